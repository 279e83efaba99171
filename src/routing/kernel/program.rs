//! The BPF program: it picks the listening socket of the active service for a client that arrives.
//!
//! The kernel runs it for each first packet of a connection, before it looks for a listener itself
//! (`Documentation/bpf/prog_sk_lookup.rst`). Whatever it does not find, it leaves to that look, which finds dorc's own
//! listener. It looks into four maps:
//!
//! ```text
//! routes   hash    local address            → number of the app
//! apps     array   number of the app        → the colour that is active, the canary's threshold, …
//! sockets  sockmap app, colour, IP version  → listening socket
//! counts   array   the same                 → steered, missed, refused
//! ```
//! What is looked at is the same for one app and for thousands.

use crate::routing::course::{FACTORS, SHIFTS};

/// What one instruction is: `opcode: 8, destination: 4, source: 4, offset: 16, immediate: 32`.
pub(super) type Instruction = u64;

/// Version of what the maps mean; it is part of their names.
pub(super) const LAYOUT: u32 = 1;

/// `{ family: u32, port: u32, address: [u8; 16] }`; the port in the host's order, the address as on the wire.
pub(super) const ROUTE_KEY: usize = 24;
/// What the program adds to, for each socket: `{ steered: u64, missed: u64, refused: u64 }`.
pub(super) const COUNTS: usize = 24;
/// Where an entry of `apps` has the threshold below which the hash of a canary's client is; 0: there is no canary.
pub(super) const APP_THRESHOLD: usize = 56;
/// How many sockets an app has: one for each colour and IP version.
pub(super) const SOCKETS_PER_APP: u32 = 4;

/// The descriptors of the maps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maps {
    pub(super) routes: i32,
    pub(super) apps: i32,
    pub(super) sockets: i32,
    pub(super) counts: i32,
}

/// The number of the socket of an app, a colour (1 or 2, as it is in `apps`) and an IP version.
pub(super) const fn socket_number(app: u32, active: u32, ipv6: bool) -> u32 {
    app * SOCKETS_PER_APP + (active - 1) * 2 + ipv6 as u32
}

// Registers: what a call returns, its arguments, those that calls leave alone, and the stack.
const R0: u64 = 0;
const R1: u64 = 1;
const R2: u64 = 2;
const R3: u64 = 3;
const HASH: u64 = 4;
const THRESHOLD: u64 = 5;
const CONTEXT: u64 = 6;
const FAMILY: u64 = 7;
const NUMBER: u64 = 8;
const COUNT: u64 = 9;
const STACK: u64 = 10;

// Opcodes.
const LOAD_MAP: u64 = 0x18;
const LOAD_WORD: u64 = 0x61;
const STORE_WORD: u64 = 0x63;
const STORE_CONSTANT: u64 = 0x7a;
const ATOMIC: u64 = 0xdb;
const ADD_CONSTANT: u64 = 0x07;
const ADD: u64 = 0x0f;
const SHIFT_LEFT: u64 = 0x67;
const MOVE_CONSTANT: u64 = 0xb7;
const MOVE: u64 = 0xbf;
const XOR_CONSTANT: u64 = 0xa7;
const JUMP: u64 = 0x05;
const JUMP_IF_EQUAL: u64 = 0x15;
const JUMP_UNLESS_EQUAL: u64 = 0x55;
const JUMP_UNLESS_BELOW: u64 = 0x3d;
const CALL: u64 = 0x85;
const EXIT: u64 = 0x95;
// Those that work on the lower half of a register, and leave the upper one zero.
const XOR_WORD: u64 = 0xac;
const MULTIPLY_WORD: u64 = 0x24;
const SHIFT_WORD_RIGHT: u64 = 0x74;

/// As `source` of `LOAD_MAP`: the immediate is a descriptor.
const MAP_DESCRIPTOR: u64 = 1;

// Functions of the kernel, by their numbers in `linux/bpf.h`.
const MAP_LOOKUP: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

// Where `struct bpf_sk_lookup` has what.
const CTX_FAMILY: i16 = 8;
const CTX_PROTOCOL: i16 = 12;
const CTX_REMOTE_IP4: i16 = 16;
const CTX_REMOTE_IP6: i16 = 20;
const CTX_LOCAL_IP4: i16 = 40;
const CTX_LOCAL_IP6: i16 = 44;
const CTX_LOCAL_PORT: i16 = 60;

const TCP: i32 = 6;
pub(super) const AF_INET: u32 = 2;
pub(super) const AF_INET6: u32 = 10;
const SK_PASS: i32 = 1;

// Where the stack has what.
const KEY: i16 = -24;
const KEY_PORT: i16 = KEY + 4;
const KEY_ADDRESS: i16 = KEY + 8;
const INDEX: i16 = -32;

/// Where jumps go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Ipv6,
    Look,
    Found,
    Ipv4Client,
    LastWord,
    Chosen,
    NumberKnown,
    Missed,
    Refused,
    AddOne,
    Pass,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
enum Line {
    Do(Instruction),
    /// A jump, without its distance.
    Go(Instruction, Label),
    Here(Label),
    /// Makes a register the map of that descriptor; takes two places.
    Map(u64, i32),
}

const fn instruction(opcode: u64, to: u64, from: u64, offset: i16, constant: i32) -> Line {
    Line::Do(encode(opcode, to, from, offset, constant))
}

const fn encode(opcode: u64, to: u64, from: u64, offset: i16, constant: i32) -> Instruction {
    opcode | to << 8 | from << 12 | (offset as u16 as u64) << 16 | (constant as u32 as u64) << 32
}

const fn load(to: u64, from: u64, offset: i16) -> Line {
    instruction(LOAD_WORD, to, from, offset, 0)
}

const fn store(offset: i16, from: u64) -> Line {
    instruction(STORE_WORD, STACK, from, offset, 0)
}

/// Eight bytes of zero.
const fn store_zero(offset: i16) -> Line {
    instruction(STORE_CONSTANT, STACK, 0, offset, 0)
}

const fn copy(to: u64, from: u64) -> Line {
    instruction(MOVE, to, from, 0, 0)
}

const fn set(to: u64, constant: i32) -> Line {
    instruction(MOVE_CONSTANT, to, 0, 0, constant)
}

const fn add(to: u64, constant: i32) -> Line {
    instruction(ADD_CONSTANT, to, 0, 0, constant)
}

const fn call(function: i32) -> Line {
    instruction(CALL, 0, 0, 0, function)
}

const fn if_equal(register: u64, constant: i32, label: Label) -> Line {
    Line::Go(encode(JUMP_IF_EQUAL, register, 0, 0, constant), label)
}

const fn unless_equal(register: u64, constant: i32, label: Label) -> Line {
    Line::Go(encode(JUMP_UNLESS_EQUAL, register, 0, 0, constant), label)
}

const fn go(label: Label) -> Line {
    Line::Go(encode(JUMP, 0, 0, 0, 0), label)
}

/// A look into a map, at the key that is at `key` on the stack; the answer is in `R0`, 0 if there is none.
const fn look(map: i32, key: i16) -> [Line; 4] {
    [Line::Map(R1, map), copy(R2, STACK), add(R2, key as i32), call(MAP_LOOKUP)]
}

/// What the client asks for: the key, if it is any of dorc's business.
#[rustfmt::skip]
fn key() -> Vec<Line> {
    vec![
        copy(CONTEXT, R1),

        // UDP is none of dorc's business: the packets of one flow would go to different services.
        load(R2, CONTEXT, CTX_PROTOCOL),
        unless_equal(R2, TCP, Label::Pass),

        // The key: where the client wants to go.
        load(FAMILY, CONTEXT, CTX_FAMILY),
        store(KEY, FAMILY),
        load(R2, CONTEXT, CTX_LOCAL_PORT),
        store(KEY_PORT, R2),
        if_equal(FAMILY, AF_INET6 as i32, Label::Ipv6),
        store_zero(KEY_ADDRESS),
        store_zero(KEY_ADDRESS + 8),
        load(R2, CONTEXT, CTX_LOCAL_IP4),
        store(KEY_ADDRESS, R2),
        go(Label::Look),
        Line::Here(Label::Ipv6),
        load(R2, CONTEXT, CTX_LOCAL_IP6),
        store(KEY_ADDRESS, R2),
        load(R2, CONTEXT, CTX_LOCAL_IP6 + 4),
        store(KEY_ADDRESS + 4, R2),
        load(R2, CONTEXT, CTX_LOCAL_IP6 + 8),
        store(KEY_ADDRESS + 8, R2),
        load(R2, CONTEXT, CTX_LOCAL_IP6 + 12),
        store(KEY_ADDRESS + 12, R2),
    ]
}

/// Which app that is, and which colour is active: in `COUNT`.
#[rustfmt::skip]
fn app(maps: Maps) -> Vec<Line> {
    let [r1, r2, r3, r4] = look(maps.routes, KEY);
    let [w1, w2, w3, w4] = look(maps.routes, KEY);
    let [a1, a2, a3, a4] = look(maps.apps, INDEX);
    vec![
        // An app that listens on this very address, else one that listens on all.
        Line::Here(Label::Look),
        r1, r2, r3, r4,
        unless_equal(R0, 0, Label::Found),
        store_zero(KEY_ADDRESS),
        store_zero(KEY_ADDRESS + 8),
        w1, w2, w3, w4,
        if_equal(R0, 0, Label::Pass),

        // Its active colour; 0 is none.
        Line::Here(Label::Found),
        load(NUMBER, R0, 0),
        store(INDEX, NUMBER),
        a1, a2, a3, a4,
        if_equal(R0, 0, Label::Pass),
        load(COUNT, R0, 0),
        if_equal(COUNT, 0, Label::Pass),
    ]
}

/// Mixes the word in `R2` into the hash, as `course::hash` does.
fn mix() -> Vec<Line> {
    let shift_in = |bits: u32| {
        [
            copy(R3, HASH),
            instruction(SHIFT_WORD_RIGHT, R3, 0, 0, bits as i32),
            instruction(XOR_WORD, HASH, R3, 0, 0),
        ]
    };
    let multiply = |factor: u32| instruction(MULTIPLY_WORD, HASH, 0, 0, factor as i32);
    let mut lines = vec![instruction(XOR_WORD, HASH, R2, 0, 0)];
    lines.extend(shift_in(SHIFTS[0]));
    lines.push(multiply(FACTORS[0]));
    lines.extend(shift_in(SHIFTS[1]));
    lines.push(multiply(FACTORS[1]));
    lines.extend(shift_in(SHIFTS[2]));
    lines
}

/// Whether the client is one of the canary's, which has the other colour.
fn canary() -> Vec<Line> {
    let mut lines = vec![
        load(THRESHOLD, R0, APP_THRESHOLD as i16),
        if_equal(THRESHOLD, 0, Label::Chosen),
        set(HASH, 0),
        unless_equal(FAMILY, AF_INET6 as i32, Label::Ipv4Client),
    ];
    for word in 0..3 {
        lines.push(load(R2, CONTEXT, CTX_REMOTE_IP6 + 4 * word));
        lines.extend(mix());
    }
    lines.extend([
        load(R2, CONTEXT, CTX_REMOTE_IP6 + 12),
        go(Label::LastWord),
        // The zeros before an IPv4 address leave nothing in the hash. Where a socket takes both versions, the family here is
        // still the client's.
        Line::Here(Label::Ipv4Client),
        load(R2, CONTEXT, CTX_REMOTE_IP4),
        Line::Here(Label::LastWord),
    ]);
    lines.extend(mix());
    lines.extend([
        Line::Go(encode(JUMP_UNLESS_BELOW, HASH, THRESHOLD, 0, 0), Label::Chosen),
        // 1 becomes 2, and 2 becomes 1.
        instruction(XOR_CONSTANT, COUNT, 0, 0, 3),
        Line::Here(Label::Chosen),
    ]);
    lines
}

/// The number of the socket, as `socket_number` has it.
#[rustfmt::skip]
fn number() -> Vec<Line> {
    vec![
        instruction(SHIFT_LEFT, NUMBER, 0, 0, 2),
        add(COUNT, -1),
        instruction(SHIFT_LEFT, COUNT, 0, 0, 1),
        instruction(ADD, NUMBER, COUNT, 0, 0),
        unless_equal(FAMILY, AF_INET6 as i32, Label::NumberKnown),
        add(NUMBER, 1),
        Line::Here(Label::NumberKnown),
        store(INDEX, NUMBER),
    ]
}

/// Gives the client to that socket, and counts.
#[rustfmt::skip]
fn assign(maps: Maps) -> Vec<Line> {
    let [c1, c2, c3, c4] = look(maps.counts, INDEX);
    let [s1, s2, s3, s4] = look(maps.sockets, INDEX);
    vec![
        // What is counted for it. A number that is too large has no count, and no socket either.
        c1, c2, c3, c4,
        if_equal(R0, 0, Label::Pass),
        copy(COUNT, R0),

        // The socket, to which the connection goes from here.
        s1, s2, s3, s4,
        if_equal(R0, 0, Label::Missed),
        copy(NUMBER, R0),
        copy(R1, CONTEXT),
        copy(R2, R0),
        set(R3, 0),
        call(SK_ASSIGN),
        copy(FAMILY, R0),
        copy(R1, NUMBER),
        call(SK_RELEASE),
        unless_equal(FAMILY, 0, Label::Refused),
        go(Label::AddOne),

        Line::Here(Label::Refused),
        add(COUNT, 8),
        Line::Here(Label::Missed),
        add(COUNT, 8),
        Line::Here(Label::AddOne),
        set(R1, 1),
        instruction(ATOMIC, COUNT, R1, 0, 0),

        // The kernel goes on with what was assigned, or looks for a listener itself.
        Line::Here(Label::Pass),
        set(R0, SK_PASS),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// The program over these maps.
pub(super) fn instructions(maps: Maps) -> Vec<Instruction> {
    let lines = [key(), app(maps), canary(), number(), assign(maps)].concat();
    let mut labels = Vec::new();
    let mut place = 0i16;
    for line in &lines {
        match line {
            Line::Here(label) => labels.push((*label, place)),
            Line::Map(..) => place += 2,
            Line::Do(_) | Line::Go(..) => place += 1,
        }
    }
    let place_of = |label| labels.iter().find(|(known, _)| *known == label).map_or(0, |(_, place)| *place);
    let mut program: Vec<Instruction> = Vec::new();
    for line in lines {
        match line {
            Line::Here(_) => {}
            Line::Do(instruction) => program.push(instruction),
            Line::Go(instruction, label) => {
                // It counts from the instruction after the jump.
                let distance = place_of(label) - program.len() as i16 - 1;
                program.push(instruction | (distance as u16 as u64) << 16);
            }
            Line::Map(register, descriptor) => {
                program.push(encode(LOAD_MAP, register, MAP_DESCRIPTOR, 0, descriptor));
                program.push(0);
            }
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: Maps = Maps { routes: 3, apps: 4, sockets: 5, counts: 6 };

    #[test]
    fn jumps_go_forward_and_stay_inside() {
        let program = instructions(MAPS);
        let jumps = [JUMP, JUMP_IF_EQUAL, JUMP_UNLESS_EQUAL, JUMP_UNLESS_BELOW];
        let mut count = 0;
        for (place, instruction) in program.iter().enumerate() {
            if jumps.contains(&(instruction & 0xff)) {
                let distance = usize::from((instruction >> 16) as u16);
                assert!((1..program.len() - place - 1).contains(&distance), "{place}: {distance}");
                count += 1;
            }
        }
        assert_eq!(count, 16);
        assert_eq!(program.last(), Some(&0x95));
    }

    #[test]
    fn each_app_colour_and_ip_version_has_a_socket_of_its_own() {
        let mut numbers: Vec<u32> = Vec::new();
        for app in 0..3 {
            for active in [1, 2] {
                numbers.extend([false, true].map(|ipv6| socket_number(app, active, ipv6)));
            }
        }
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn instructions_have_the_layout_of_the_kernel() {
        // `r2 = *(u32 *)(r6 + 12)`, as bpftool shows it: 61 62 0c 00 00 00 00 00
        assert_eq!(encode(LOAD_WORD, R2, CONTEXT, 12, 0).to_le_bytes(), [0x61, 0x62, 12, 0, 0, 0, 0, 0]);
        assert_eq!(encode(MOVE_CONSTANT, R0, 0, 0, -1).to_le_bytes(), [0xb7, 0, 0, 0, 255, 255, 255, 255]);
    }
}
