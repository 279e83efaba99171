//! The filter that the kernel runs over its sockets before it tells of them: a small program of jumps.
//!
//! Each operation names how far to jump on "yes" and on "no", in bytes from its own start. The end of the
//! program means that the socket is wanted, four bytes behind it that it isn't; only forward jumps exist.
//! Comparisons of ports are done in pairs (≥ and ≤), because `=` is too new.

/// `INET_DIAG_BC_*` of linux/inet_diag.h.
const JUMP: u8 = 1;
const LOCAL_PORT_AT_LEAST: u8 = 2;
const LOCAL_PORT_AT_MOST: u8 = 3;
const IN_CGROUP: u8 = 13;

/// The sizes of operations with what belongs to them.
const PLAIN: u8 = 4;
const WITH_PORT: u8 = 8;
const WITH_CGROUP: u8 = 12;
/// One port: two comparisons and the jump to the end.
const A_PORT: usize = 2 * WITH_PORT as usize + PLAIN as usize;

/// With more ports than these the jumps are no longer worth it.
const MOST_PORTS: usize = 64;

/// Wants the sockets of that control group, if one is given, with one of the local ports. `None` if there
/// are no ports, or too many.
pub(super) fn program(cgroup: Option<u64>, ports: &[u16]) -> Option<Vec<u8>> {
    if ports.is_empty() || ports.len() > MOST_PORTS {
        return None;
    }
    let length = cgroup.map_or(0, |_| usize::from(WITH_CGROUP)) + ports.len() * A_PORT;
    let mut program = Vec::with_capacity(length);
    if let Some(cgroup) = cgroup {
        operation(&mut program, IN_CGROUP, WITH_CGROUP, length + 4)?;
        program.extend(cgroup.to_ne_bytes());
    }
    for (index, port) in ports.iter().enumerate() {
        let is_last = index + 1 == ports.len();
        let next = if is_last { length + 4 } else { program.len() + A_PORT };
        for code in [LOCAL_PORT_AT_LEAST, LOCAL_PORT_AT_MOST] {
            operation(&mut program, code, WITH_PORT, next)?;
            // The port stands where a second operation would have its "no".
            program.extend([0, 0]);
            program.extend(port.to_ne_bytes());
        }
        operation(&mut program, JUMP, PLAIN, length)?;
    }
    Some(program)
}

/// Adds an operation that goes on behind itself on "yes" and at `no_at` on "no".
fn operation(program: &mut Vec<u8>, code: u8, size: u8, no_at: usize) -> Option<()> {
    let no = u16::try_from(no_at - program.len()).ok()?;
    program.extend([code, size]);
    program.extend(no.to_ne_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does (`inet_diag_bc_run`).
    fn wants(program: &[u8], cgroup: u64, port: u16) -> bool {
        let mut at = 0;
        while at < program.len() {
            let rest = &program[at..];
            let number = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
            let yes = match rest[0] {
                JUMP => false,
                LOCAL_PORT_AT_LEAST => port >= number(6),
                LOCAL_PORT_AT_MOST => port <= number(6),
                IN_CGROUP => rest[4..12] == cgroup.to_ne_bytes(),
                other => panic!("{other} is no operation"),
            };
            at += if yes { usize::from(rest[1]) } else { usize::from(number(2)) };
        }
        at == program.len()
    }

    #[test]
    fn wants_the_group_and_the_ports_and_nothing_else() {
        let program = program(Some(7), &[80, 8081, 65535]).expect("three ports fit");
        for port in [80, 8081, 65535] {
            assert!(wants(&program, 7, port) && !wants(&program, 8, port), "{port}");
            assert!(!wants(&program, 7, port - 1) && !wants(&program, 7, port.wrapping_add(1)), "{port}");
        }
    }

    #[test]
    fn without_a_group_only_the_port_counts() {
        let program = program(None, &[80]).expect("one port fits");
        assert!(wants(&program, 7, 80) && !wants(&program, 7, 81) && !wants(&program, 7, 79));
    }

    #[test]
    fn what_does_not_fit_is_no_program() {
        assert_eq!(program(Some(7), &[]), None);
        assert!(program(Some(7), &[80; MOST_PORTS]).is_some());
        assert_eq!(program(Some(7), &[80; MOST_PORTS + 1]), None);
    }
}
