//! dorc's planes as a child process: what a daemon does for its apps, without the daemon around it.

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
    more_apps: usize,
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
        // Services that don't exist would have no sockets, so these are in front of what is measured, too.
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let more = std::iter::repeat_n((any_port, addresses[1]), options.more_apps);
        let mut routes = Vec::new();
        for (number, (listen, target)) in more.chain(ways).enumerate() {
            routes.push(steer(&kernel, &group, number, open(listen)?, target).await?);
        }
        stay(routes).await
    })
}

const fn at(address: SocketAddr) -> Target {
    Target { colour: Colour::Blue, address }
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
    let text = std::fs::read_to_string("/proc/self/cgroup")?;
    let own =
        text.lines().find_map(|line| line.strip_prefix("0::/")).context("there are no control groups")?;
    let root = Path::new("/sys/fs/cgroup");
    let unified = if root.join("cgroup.controllers").exists() { root.into() } else { root.join("unified") };
    Ok(unified.join(own))
}
