//! dorc's planes as a child process: what a daemon does for its apps, without the daemon around it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use dorc::model::app::AppName;
use dorc::model::colour::Colour;
use dorc::routing::kernel::{ControlGroup, Kernel, KernelRoute};
use dorc::routing::tcp::{Plane, TcpRoute};
use dorc::routing::{Route, Target};

/// The file of a control group that has its processes.
const PROCESSES: &str = "cgroup.procs";
/// What it says when connections may come.
pub const READY: &str = "ready";

/// How the bench starts itself again.
#[derive(Debug, Args)]
pub struct Options {
    /// Pairs of listen and target addresses.
    #[arg(long, num_args = 4, hide = true)]
    pub plane: Option<Vec<SocketAddr>>,
    /// A folder for the kernel plane; without one it is the tcp plane alone.
    #[arg(long, hide = true)]
    kernel: Option<PathBuf>,
    /// How many more apps are loaded beside the ones that are measured.
    #[arg(long, default_value_t = 0, hide = true)]
    more_apps: u16,
}

/// Is the plane, on one thread, until the parent ends this process.
pub fn run(addresses: &[SocketAddr], options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _within = runtime.enter();
    let plane = Plane::start(1)?;
    let open = |listen: SocketAddr| plane.open(&[listen], Duration::from_secs(10), Vec::new());
    let ways = addresses.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    runtime.block_on(async {
        let Some(folder) = &options.kernel else {
            let mut routes = Vec::new();
            for (listen, target) in ways {
                let route = open(listen)?;
                route.point_at(Some(at(target))).await?;
                routes.push(route);
            }
            return stay(routes).await;
        };
        let (kernel, group) = (Arc::new(Kernel::new(folder.clone())), own_control_group()?);
        let more = (0..options.more_apps).map(|number| (elsewhere(number, addresses[0]), addresses[1]));
        let mut routes = Vec::new();
        for (number, (listen, target)) in ways.chain(more).enumerate() {
            routes.push(steer(&kernel, &group, number, open(listen)?, target).await?);
        }
        stay(routes).await
    })
}

const fn at(address: SocketAddr) -> Target {
    Target::new(Colour::Blue, address)
}

/// Where another app listens: at the same port, because each port that is taken is one less for the clients. What is behind
/// it is the same service, so that the kernel has a socket for each app.
fn elsewhere(number: u16, address: SocketAddr) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 1, high, low), address.port()))
}

/// Says that all is set up, and keeps it so.
async fn stay<T>(routes: Vec<T>) -> Result<()> {
    println!("{READY}");
    std::future::pending::<()>().await;
    drop(routes);
    Ok(())
}

/// Makes a route one of the kernel plane.
async fn steer(
    kernel: &Arc<Kernel>,
    group: &Path,
    number: usize,
    tcp: TcpRoute,
    target: SocketAddr,
) -> Result<KernelRoute> {
    let name = AppName::new(&format!("app-{number}")).map_err(anyhow::Error::msg)?;
    let group = group.to_owned();
    let group: ControlGroup = Arc::new(move |_| Box::pin(std::future::ready(Some(group.clone()))));
    let route = KernelRoute::new(tcp, name, group);
    route.take_shortcut(kernel).await.map_err(anyhow::Error::msg)?;
    route.point_at(Some(at(target))).await?;
    match route.obstacle() {
        None => Ok(route),
        Some(obstacle) => bail!("the kernel plane is not used: {obstacle}"),
    }
}

/// The control group of this process, which is the parent's and that of all that the parent starts.
fn own_control_group() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let own =
        text.lines().find_map(|line| line.strip_prefix("0::/")).context("there are no control groups")?;
    let root = Path::new("/sys/fs/cgroup");
    let unified = if root.join("cgroup.controllers").exists() { root.into() } else { root.join("unified") };
    Ok(unified.join(own))
}

/// A control group for this process and all that it starts, as a service has one: sockets are looked for in all
/// processes of a control group, and those of others are none of our business.
pub struct OwnGroup {
    before: PathBuf,
    own: PathBuf,
}

impl OwnGroup {
    /// Makes it and goes there.
    pub fn enter() -> Result<Self> {
        let before = own_control_group()?;
        // Always the same name: what a run that was cut off has left is the next one's.
        let own = before.join("dorc-bench");
        fs::create_dir_all(&own)?;
        let group = Self { before, own };
        fs::write(group.own.join(PROCESSES), std::process::id().to_string())?;
        Ok(group)
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        let back = || {
            fs::write(self.before.join(PROCESSES), std::process::id().to_string())?;
            fs::remove_dir(&self.own)
        };
        if let Err(error) = back() {
            eprintln!("the control group {} is left behind: {error}", self.own.display());
        }
    }
}
