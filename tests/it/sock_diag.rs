//! What the kernel tells of its TCP sockets, asked on loopback.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dorc::routing::kernel::sock_diag::{Connection, Listening, SockDiag};
use rustix::net::sockopt::{
    ipv6_v6only, set_ipv6_v6only, set_socket_recv_buffer_size, set_tcp_nodelay, socket_cookie,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
const ANY_V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// More ports than are left to the kernel to filter by: everything is looked through here.
const TOO_MANY: usize = 65;

/// A service in this process: its listener, and what asks the kernel about it.
struct Service {
    diag: SockDiag,
    listener: TcpListener,
    cgroup: u64,
}

impl Service {
    fn new() -> Self {
        Self::at(V4)
    }

    fn at(address: SocketAddr) -> Self {
        Self { diag: SockDiag::open().unwrap(), listener: open(address, false), cgroup: own_cgroup() }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).unwrap()
    }

    /// Both ends of a new connection, the client's first.
    fn pair(&self) -> (TcpStream, TcpStream) {
        let client = self.connect();
        (client, self.listener.accept().unwrap().0)
    }

    fn connections(&mut self) -> Vec<Connection> {
        let port = self.port();
        self.diag.connections(self.cgroup, &[port]).unwrap()
    }

    fn connection_of(&mut self, client: &TcpStream) -> Option<Connection> {
        let address = client.local_addr().unwrap();
        self.connections().into_iter().find(|one| one.peer == address)
    }

    fn listening(&mut self) -> Vec<Listening> {
        let port = self.port();
        self.diag.listening(port).unwrap()
    }
}

/// Listens there, with room for many who are not accepted.
fn open(address: SocketAddr, only_v6: bool) -> TcpListener {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, only_v6).unwrap();
    }
    bind(&socket, &address).unwrap();
    listen(&socket, 4096).unwrap();
    TcpListener::from(socket)
}

/// The inode number of the control group's folder that this process is in.
fn own_cgroup() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path =
        groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("there is a cgroup2 hierarchy");
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    // The root of the other kind of hierarchy would have another inode number.
    let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists()).expect("it is mounted");
    fs::metadata(root.join(path)).unwrap().ino()
}

/// Tries until it is so: what the two ends of a loopback connection know of each other is not promised at once.
#[track_caller]
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it never came to that");
        std::thread::yield_now();
    }
}

fn has_no_ipv6() -> bool {
    let is_missing = TcpListener::bind(V6).is_err();
    if is_missing {
        eprintln!("skipped: this machine has no IPv6");
    }
    is_missing
}

#[test]
fn an_ipv4_listener_is_found_with_its_cookie_group_and_queue() {
    let mut service = Service::new();
    let _waiting = [service.connect(), service.connect(), service.connect()];
    let found = until(|| Some(service.listening()).filter(|found| found[0].queued == 3));
    let address = service.listener.local_addr().unwrap();
    let cookie = socket_cookie(&service.listener).unwrap();
    let cgroup = service.cgroup;
    assert_eq!(found, [Listening { address, cookie, cgroup, only_v6: false, queued: 3 }]);
}

#[test]
fn ipv6_listeners_say_whether_they_take_ipv4_clients() {
    if has_no_ipv6() {
        return;
    }
    // Bound to an address of IPv6 it takes no others, whatever was asked for.
    for (address, asked, only_v6) in [(V6, false, true), (ANY_V6, false, false), (ANY_V6, true, true)] {
        let listener = open(address, asked);
        assert_eq!(ipv6_v6only(&listener).unwrap(), only_v6);
        let bound = listener.local_addr().unwrap();
        let found = SockDiag::open().unwrap().listening(bound.port()).unwrap();
        let cookie = socket_cookie(&listener).unwrap();
        let found = found.iter().find(|one| one.cookie == cookie).expect("it listens");
        assert_eq!((found.address, found.only_v6), (bound, only_v6));
    }
}

#[test]
fn both_families_on_one_port_are_two_listeners_and_a_closed_one_is_none() {
    if has_no_ipv6() {
        return;
    }
    let mut service = Service::at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let port = service.port();
    let other = open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), true);
    let mut addresses: Vec<String> = service.listening().iter().map(|one| one.address.to_string()).collect();
    addresses.sort();
    assert_eq!(addresses, [format!("0.0.0.0:{port}"), format!("[::]:{port}")]);
    drop(other);
    assert_eq!(service.listening().len(), 1);
}

#[test]
fn connections_of_the_own_group_are_found_and_of_another_not() {
    let mut service = Service::new();
    let (client, server) = service.pair();
    let (port, cgroup) = (service.port(), service.cgroup);
    let found = service.connections();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].local, found[0].peer), (server.local_addr().unwrap(), client.local_addr().unwrap()));
    assert_eq!((found[0].cgroup, found[0].accepted), (cgroup, true));
    assert_eq!(service.diag.connections(cgroup, &[1, port, 2]).unwrap().len(), 1);
    assert_eq!(service.diag.connections(cgroup + 1, &[port]).unwrap(), []);
    let wrong_ports = [port.wrapping_sub(1), port.wrapping_add(1)];
    assert!(
        service.diag.connections(cgroup, &wrong_ports).unwrap().iter().all(|one| one.local.port() != port)
    );
    assert_eq!(service.diag.connections(cgroup, &[]).unwrap(), []);
    let many = [port; TOO_MANY];
    assert_eq!(service.diag.connections(cgroup, &many).unwrap().len(), 1);
    assert_eq!(service.diag.connections(cgroup + 1, &many).unwrap(), []);
}

#[test]
fn a_client_of_a_dual_stack_listener_is_told_by_its_ipv4_address() {
    if has_no_ipv6() {
        return;
    }
    let mut service = Service::at(ANY_V6);
    let (client, _server) = service.pair();
    let found = service.connection_of(&client).expect("it is connected");
    assert_eq!(found.local, client.peer_addr().unwrap());
    assert!(service.diag.again(&found).unwrap().is_some(), "the kernel still knows it by what it told");
    let port = service.port();
    let client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    assert!(service.connection_of(&client).expect("it is connected").local.is_ipv6());
}

#[test]
fn a_connection_that_nobody_has_accepted_counts() {
    let mut service = Service::new();
    let mut client = service.connect();
    client.write_all(b"hello").unwrap();
    let found = until(|| service.connection_of(&client).filter(|one| one.unread == 5));
    assert!(!found.accepted);
    let _server = service.listener.accept().unwrap();
    assert!(service.diag.again(&found).unwrap().expect("it is open").accepted);
}

#[test]
fn again_sees_what_has_changed() {
    let mut service = Service::new();
    let (mut client, mut server) = service.pair();
    set_tcp_nodelay(&client, true).unwrap();
    let before = service.connection_of(&client).expect("it is connected");
    let info = before.info.expect("the kernel tells it");
    assert_eq!((before.unread, before.unsent, info.bytes_received, info.bytes_sent), (0, 0, 0, 0));

    client.write_all(&[1; 1000]).unwrap();
    let after = until(|| service.diag.again(&before).unwrap().filter(|one| one.unread == 1000));
    assert_eq!(after.info.unwrap().bytes_received, 1000);
    server.read_exact(&mut [0; 1000]).unwrap();
    server.write_all(&[2; 10]).unwrap();
    let after = until(|| service.diag.again(&before).unwrap().filter(|one| one.unsent == 0));
    let info = after.info.unwrap();
    assert_eq!((after.unread, info.bytes_sent), (0, 10));
    assert!(info.rtt > Duration::ZERO && info.rtt < Duration::from_secs(5));
    // Nothing happens any more, and the time since then grows.
    let later = until(|| {
        let info = service.diag.again(&before).unwrap()?.info?;
        (info.since_received >= Duration::from_millis(50)).then_some(info)
    });
    assert!(later.since_sent >= Duration::from_millis(40) && later.since_sent < Duration::from_secs(60));
    assert!(later.since_acked >= Duration::from_millis(40) && later.since_acked < Duration::from_secs(60));
}

#[test]
fn what_the_client_does_not_read_is_unsent() {
    let mut service = Service::new();
    let (client, mut server) = service.pair();
    set_socket_recv_buffer_size(&client, 4096).unwrap();
    server.set_nonblocking(true).unwrap();
    while let Ok(1..) = server.write(&[0; 65536]) {}
    let found = service.connection_of(&client).expect("it is connected");
    assert!(found.unsent > 0);
}

#[test]
fn half_closed_counts_and_closed_does_not() {
    let mut service = Service::new();
    let (client, server) = service.pair();
    let found = service.connection_of(&client).expect("it is connected");
    server.shutdown(Shutdown::Write).unwrap();
    assert!(service.diag.again(&found).unwrap().is_some(), "the service can still read");
    assert_eq!(service.connections().len(), 1);
    drop(server);
    assert_eq!(service.diag.again(&found).unwrap(), None, "the service has closed it");
    assert_eq!(service.connections(), []);
    let many = [service.port(); TOO_MANY];
    assert_eq!(service.diag.connections(service.cgroup, &many).unwrap(), []);

    let (client, _server) = service.pair();
    client.shutdown(Shutdown::Write).unwrap();
    let found = until(|| service.connection_of(&client).filter(|one| one.unread == 1));
    assert!(service.diag.again(&found).unwrap().is_some(), "the service can still answer");
}

#[test]
fn destroy_ends_one_connection_and_not_its_neighbour() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can end connections");
        return;
    }
    for address in [V4, ANY_V6] {
        if address.is_ipv6() && has_no_ipv6() {
            return;
        }
        let mut service = Service::at(address);
        let (mut client, mut server) = service.pair();
        let (mut neighbour, mut other) = service.pair();
        let found = service.connection_of(&client).expect("it is connected");
        assert!(service.diag.destroy(&found).unwrap());
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(server.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert!(!service.diag.destroy(&found).unwrap(), "it had gone");
        assert_eq!(service.diag.again(&found).unwrap(), None);

        neighbour.write_all(b"still here").unwrap();
        other.read_exact(&mut [0; 10]).unwrap();
        assert_eq!(service.connections().len(), 1);
    }
}

#[test]
fn what_is_closed_and_only_remembered_is_not_destroyed() {
    let mut service = Service::new();
    let (client, server) = service.pair();
    let found = service.connection_of(&client).expect("it is connected");
    // The service closes first, so that the kernel remembers its end for a minute.
    drop(server);
    drop(client);
    assert!(!service.diag.destroy(&found).unwrap());
}

#[test]
fn two_thousand_connections_come_through() {
    const MANY: usize = 2000;
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let mut service = Service::new();
    let mut ends: Vec<OwnedFd> = Vec::new();
    for at in 0..MANY {
        let client = service.connect();
        if at % 2 == 0 {
            ends.push(service.listener.accept().unwrap().0.into());
        }
        ends.push(client.into());
    }
    // The last handshake may be a moment from its end.
    let found = until(|| Some(service.connections()).filter(|found| found.len() == MANY));
    let peers: std::collections::BTreeSet<SocketAddr> = found.iter().map(|one| one.peer).collect();
    assert_eq!(peers.len(), MANY);
    // Each piece that was read to its end leaves nothing behind for the next question.
    assert_eq!(service.listening().len(), 1);
    drop(ends);
    // Those in the queue are the service's to close.
    let left = until(|| Some(service.connections()).filter(|found| found.len() == MANY / 2));
    assert!(left.iter().all(|one| !one.accepted));
}

/// A listener that leaves handshakes half-open until the client says something.
const DEFERRING: &str = "
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
listener.bind(('127.0.0.1', 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
";

#[test]
fn half_open_handshakes_are_found_by_their_port() {
    let python =
        Command::new("python3").args(["-c", DEFERRING]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(python) = python else {
        eprintln!("skipped: python3, which can defer accepting, is not installed");
        return;
    };
    let mut listener = Killed(python);
    let port: u16 = first_line(&mut listener.0).parse().unwrap();
    let mut diag = SockDiag::open().unwrap();
    assert_eq!(diag.handshakes(&[port]).unwrap(), []);
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let addresses = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    assert_eq!(diag.handshakes(&[1, port]).unwrap(), [addresses]);
    assert!(!diag.handshakes(&[1]).unwrap().contains(&addresses));
    assert_eq!(diag.connections(own_cgroup(), &[port]).unwrap(), []);
    client.write_all(b"hello").unwrap();
    until(|| diag.handshakes(&[port]).unwrap().is_empty().then_some(()));
    assert_eq!(diag.connections(own_cgroup(), &[port]).unwrap().len(), 1);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    line.trim().to_owned()
}
