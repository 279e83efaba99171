//! Who may do what. Root, dorc's own user and the group dorc may do all; an app's deployers what a deployment of it
//! needs. The kernel says who is on the other end of a connection, never the client.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use tokio::net::unix::UCred;

use crate::accounts;
use crate::model::app::AppName;

/// The group whose members may do all.
pub const GROUP: &str = "dorc";

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To look at an app, or to deploy it.
    Deploy,
    /// All else.
    Administer,
}

/// Who is on the other end of a connection.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) name: String,
    uid: Option<u32>,
    is_administrator: bool,
    /// The only app that the connection is for, once that was said.
    only: OnceLock<AppName>,
}

impl Caller {
    /// The one with these credentials; `None`: nobody could tell. Who that is can take a while to find out.
    pub(super) fn of(credentials: Option<UCred>) -> Self {
        let Some(credentials) = credentials else {
            return Self { name: "?".into(), uid: None, is_administrator: false, only: OnceLock::new() };
        };
        let name = accounts::user_name(credentials.uid());
        let is_administrator = credentials.uid() == 0
            || credentials.uid() == rustix::process::geteuid().as_raw()
            || accounts::group_id(GROUP) == Some(credentials.gid())
            || accounts::is_member(&name, GROUP);
        Self { name, uid: Some(credentials.uid()), is_administrator, only: OnceLock::new() }
    }

    /// Whoever asks for the metrics where they are to be had without any more ado: sees all, and can do nothing there.
    pub(super) fn of_metrics() -> Self {
        Self { name: "?".into(), uid: None, is_administrator: true, only: OnceLock::new() }
    }

    /// From now on the connection is for deployments of that app only; false if it is for another one already.
    pub(super) fn limit(&self, app: AppName) -> bool {
        *self.only.get_or_init(|| app.clone()) == app
    }

    /// The app that the connection is limited to.
    pub(super) fn only(&self) -> Option<&AppName> {
        self.only.get()
    }

    /// Whether it may do all.
    pub(super) fn may_all(&self) -> bool {
        self.is_administrator && self.only.get().is_none()
    }

    /// Whether it may do that with an app that has these deployers.
    pub(super) fn may(&self, need: Need, app: &str, deployers: &[String]) -> bool {
        match self.only.get() {
            Some(only) if only.as_str() != app || need == Need::Administer => false,
            _ => self.is_administrator || (need == Need::Deploy && self.is_one_of(deployers)),
        }
    }

    /// Whether one of these names, or numbers, is it.
    fn is_one_of(&self, users: &[String]) -> bool {
        let number = self.uid.map(|uid| uid.to_string());
        users.iter().any(|user| *user == self.name || Some(user) == number.as_ref())
    }
}

/// What a request needs, and of which app; `None`: it is about no app, or there is no such request.
pub(super) fn needs<'a>(method: &Method, segments: &[&'a str]) -> Option<(Need, &'a str)> {
    match (method, segments) {
        (
            &Method::GET,
            ["v1", "apps", app] | ["v1", "apps", app, "releases" | "history" | "changes" | "logs"],
        )
        | (_, ["v1", "apps", app, "uploads", _])
        | (&Method::POST, ["v1", "apps", app, "switch" | "rollback" | "deploy"]) => Some((Need::Deploy, app)),
        (_, ["v1", "apps", app, ..]) => Some((Need::Administer, app)),
        _ => None,
    }
}

/// So many refusals of an app are written down at once, and then one each time that this is over.
const REFUSALS: u32 = 20;
const ONE_MORE: Duration = Duration::from_secs(60);

/// How many refusals may still be written down: whoever is refused must not fill the disk.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<AppName, (u32, Instant)>>);

impl Refusals {
    /// Whether the next one of that app, which is loaded, is to be written down.
    pub(super) fn next(&self, app: &AppName) -> bool {
        // Each entry is exchanged as a whole.
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (count, since) = apps.entry(app.clone()).or_insert((0, now));
        if now.duration_since(*since) > ONE_MORE {
            (*count, *since) = (count.saturating_sub(1), now);
        }
        if *count >= REFUSALS {
            return false;
        }
        *count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str, is_administrator: bool) -> Caller {
        Caller { name: name.into(), uid: Some(1007), is_administrator, only: OnceLock::new() }
    }

    #[test]
    fn a_deployer_may_deploy_his_app_and_no_more() {
        let (ann, deployers) = (caller("ann", false), ["ann".to_owned()]);
        assert!(ann.may(Need::Deploy, "web", &deployers));
        assert!(!ann.may(Need::Administer, "web", &deployers));
        assert!(!ann.may(Need::Deploy, "api", &[]) && !ann.may_all());
        assert!(
            ann.may(Need::Deploy, "web", &["1007".into()]) && !ann.may(Need::Deploy, "web", &["7".into()])
        );
        let root = caller("root", true);
        assert!(root.may(Need::Administer, "web", &[]) && root.may_all());
    }

    #[test]
    fn a_connection_can_be_limited_once() {
        for (one, deployers) in
            [(caller("root", true), vec![]), (caller("ann", false), vec!["ann".to_owned()])]
        {
            let web = AppName::new("web").unwrap();
            assert!(one.limit(web.clone()) && one.limit(web) && !one.limit(AppName::new("api").unwrap()));
            assert!(one.may(Need::Deploy, "web", &deployers));
            assert!(!one.may(Need::Administer, "web", &deployers));
            assert!(!one.may(Need::Deploy, "api", &deployers) && !one.may_all());
        }
    }

    #[test]
    fn what_is_not_known_to_be_a_deployment_is_administration() {
        let needs_of = |method: &Method, path: &str| {
            let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
            needs(method, &segments).map(|(need, app)| (need, app.to_owned()))
        };
        let deploy = |app: &str| Some((Need::Deploy, app.to_owned()));
        let administer = |app: &str| Some((Need::Administer, app.to_owned()));
        assert_eq!(needs_of(&Method::GET, "/v1/apps/web"), deploy("web"));
        assert_eq!(needs_of(&Method::POST, "/v1/apps/web/uploads/00"), deploy("web"));
        assert_eq!(needs_of(&Method::POST, "/v1/apps/web/deploy"), deploy("web"));
        for verb in ["load", "update", "remove", "reload", "freeze", "thaw", "pause", "resume", "nonsense"] {
            assert_eq!(needs_of(&Method::POST, &format!("/v1/apps/web/{verb}")), administer("web"));
        }
        assert_eq!(needs_of(&Method::POST, "/v1/apps/web/../api/deploy"), administer("web"));
        assert_eq!(needs_of(&Method::GET, "/v1/apps/%77eb"), deploy("%77eb"));
        assert_eq!(needs_of(&Method::GET, "/v1/apps"), None);
    }

    #[test]
    fn refusals_are_written_down_up_to_a_number() {
        let (refusals, web) = (Refusals::default(), AppName::new("web").unwrap());
        assert_eq!((0..100).filter(|_| refusals.next(&web)).count(), REFUSALS as usize);
    }
}
