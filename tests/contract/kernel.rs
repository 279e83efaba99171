//! The kernel plane, between real processes in control groups of their own. It attaches a program to the network namespace, so
//! it runs inside a test host only.

#![allow(
    clippy::print_stderr,
    reason = "a test says when it is skipped, and the service talks with its parent"
)]

use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dorc::model::app::AppName;
use dorc::model::colour::{ByColour, Colour};
use dorc::routing::kernel::{ControlGroup, Kernel, KernelRoute};
use dorc::routing::tcp::Plane;
use dorc::routing::{Route, Target};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::Mutex;

use crate::route_cases::{Bed, ask_colour};
use crate::systemd::TEST_HOST;

/// Where a service is told that it is one, and its name.
const SERVICE: &str = "DORC_CONTRACT_SERVICE";

struct Service {
    address: SocketAddr,
    /// Tells of each question that is not answered.
    asked: Mutex<Lines<BufReader<ChildStderr>>>,
    group: PathBuf,
    _process: Child,
}

impl Service {
    /// Starts this program as a service, in a control group of its own.
    async fn start(name: &str) -> Self {
        let group = groups().join(name);
        fs::create_dir_all(&group).unwrap();
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kernel::a_service", "--ignored", "--nocapture"])
            .env(SERVICE, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        fs::write(group.join("cgroup.procs"), process.id().unwrap().to_string()).unwrap();
        // Sockets belong to the control group in which they are made.
        process.stdin.take().unwrap().write_all(b"go\n").await.unwrap();
        let mut asked = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = asked.next_line().await.unwrap().unwrap().parse().unwrap();
        Self { address, asked: Mutex::new(asked), group, _process: process }
    }
}

/// The root of the control groups, in which a test host may make others.
fn groups() -> PathBuf {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    roots.into_iter().find(|root| root.join("cgroup.procs").exists()).unwrap()
}

#[test]
#[ignore = "a part of the other cases, which run it"]
fn a_service() {
    use std::io::{Read, Write};
    let Ok(name) = env::var(SERVICE) else { return };
    let initial = name.as_bytes()[0];
    std::io::stdin().read_exact(&mut [0; 3]).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    eprintln!("{}", listener.local_addr().unwrap());
    for client in listener.incoming() {
        let mut client = client.unwrap();
        std::thread::spawn(move || {
            let mut byte = [0];
            while let Ok(1) = client.read(&mut byte) {
                if byte == *b"?" {
                    eprintln!("?");
                } else if byte == *b"c" {
                    client.write_all(&[initial]).unwrap();
                } else {
                    // The kernel tells times in ticks: so it is known who spoke last.
                    std::thread::sleep(Duration::from_millis(20));
                    client.write_all(b"\n").unwrap();
                }
            }
        });
    }
}

struct KernelBed {
    route: KernelRoute,
    _plane: Plane,
    address: SocketAddr,
    services: ByColour<Service>,
}

async fn bed() -> Option<KernelBed> {
    static KERNEL: OnceLock<Arc<Kernel>> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if env::var_os(TEST_HOST).is_none() {
        eprintln!("skipped: not inside a test host ({TEST_HOST} is not set)");
        return None;
    }
    let kernel = KERNEL.get_or_init(|| Arc::new(Kernel::new("/run/contract/bpf".into())));
    let name = format!("app-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let [green, blue] = ["green", "blue"].map(|colour| format!("{colour}-{name}"));
    let services = ByColour { blue: Service::start(&blue).await, green: Service::start(&green).await };
    let groups = ByColour::from_fn(|colour| services[colour].group.clone());
    let control_group: ControlGroup = Arc::new(move |colour| {
        let group = groups[colour].clone();
        Box::pin(async move { Some(group) })
    });
    let plane = Plane::start(1).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let tcp = plane.open(&[any], Duration::from_secs(20), Vec::new()).unwrap();
    let address = tcp.addresses()[0];
    let route = KernelRoute::new(tcp, AppName::new(&name).unwrap(), control_group);
    route.take_shortcut(kernel).await.unwrap();
    Some(KernelBed { route, _plane: plane, address, services })
}

impl KernelBed {
    /// Nobody came by the tcp plane.
    fn went_straight(&self) {
        let by_tcp = Colour::BOTH.map(|colour| self.route.tcp().accepted(colour));
        assert_eq!(by_tcp, [0, 0], "it went straight");
    }
}

impl Bed for KernelBed {
    type Client = TcpStream;

    fn route(&self) -> &impl Route {
        &self.route
    }

    fn target(&self, colour: Colour) -> Target {
        Target::new(colour, self.services[colour].address)
    }

    async fn connect(&self, busy: bool) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(b"\n").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        self.went_straight();
        if busy {
            client.write_all(b"?").await.unwrap();
            let colour = self.route.pointing_at().unwrap().colour;
            let asked = self.services[colour].asked.lock().await.next_line().await.unwrap();
            assert_eq!(asked.as_deref(), Some("?"));
        }
        client
    }

    async fn colour_for(&self, client: IpAddr) -> Colour {
        let colour = ask_colour(client, self.address).await;
        self.went_straight();
        colour
    }

    async fn closed(&self, mut client: TcpStream) {
        let end = tokio::time::timeout(Duration::from_secs(20), client.read(&mut [0])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)));
    }
}

/// Makes a test of each case, where there is a bed.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                if let Some(bed) = bed().await {
                    crate::route_cases::$case(&bed).await;
                }
            }
        )+
    };
}

// Who is held takes the long way: `holds_who_comes_wherever_it_points` is for the other planes, and pauses of this one are tested on a
// test host.
cases!(
    points_nowhere_at_first,
    says_where_it_points,
    a_connection_stays_with_its_colour,
    closes_all_of_one_colour,
    closes_what_is_quiet_only,
    who_left_is_not_counted,
    a_canary_gets_its_share,
    a_client_stays_on_its_side,
    a_move_ends_the_canary,
    a_canary_waits_for_a_target,
);
