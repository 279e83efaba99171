//! The gate before the server: a request passes if whoever makes it may.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::rights::{self, Caller, Refusals};
use super::{Body, Bounds, error, nothing, route};
use crate::control::Apps;
use crate::model::app::AppName;
use crate::state::Entry;

/// Answers whoever may ask that, and nobody else.
pub(super) async fn pass<A: Apps>(
    request: Request<Incoming>,
    apps: Arc<A>,
    caller: &Arc<Caller>,
    bounds: &Bounds,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    if let (&Method::POST, ["v1", "limit", app]) = (request.method(), segments.as_slice()) {
        let limited = AppName::new(app).is_ok_and(|app| caller.limit(app));
        return if limited {
            nothing()
        } else {
            refuse(apps, caller, &bounds.refusals, None, &request).await
        };
    }
    let may = match rights::needs(request.method(), &segments) {
        Some((need, app)) => {
            let deployers = AppName::new(app).map(|app| apps.deployers(&app)).unwrap_or_default();
            caller.may(need, app, &deployers)
        }
        // Of all apps everybody sees his own.
        None => caller.may_all() || matches!(segments.as_slice(), ["v1", "apps" | "changes" | "metrics"]),
    };
    if may {
        route(request, apps, caller, bounds).await
    } else {
        let app = rights::needs(request.method(), &segments).map(|(_, app)| app);
        refuse(apps, caller, &bounds.refusals, app, &request).await
    }
}

/// Says no, and writes it down where somebody looks for it.
async fn refuse<A: Apps>(
    apps: Arc<A>,
    caller: &Caller,
    refusals: &Refusals,
    app: Option<&str>,
    request: &Request<Incoming>,
) -> Response<Body> {
    let named = app.and_then(|app| AppName::new(app).ok());
    let seen = [caller.only().cloned(), named].into_iter().flatten().find(|app| apps.handle(app).is_some());
    let asked: String = format!("{} {}", request.method(), request.uri().path()).chars().take(200).collect();
    if seen.is_none() {
        // No app's history is the place for it.
        tracing::warn!(who = caller.name, asked, "refused");
    }
    if let Some(app) = seen.filter(|app| refusals.next(app)) {
        let history = apps.history(&app);
        let when = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let (who, what) = (caller.name.clone(), "refused".to_owned());
        let entry = Entry { when, who, what, from: None, to: None, label: None, result: asked, failed: true };
        let written = tokio::task::spawn_blocking(move || history.append(&entry)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%app, %error, "the history could not be written");
        }
    }
    let limit = caller.only().map(|only| format!(" by a connection that is for {only}")).unwrap_or_default();
    error(
        StatusCode::FORBIDDEN,
        format!(
            "{} may not do that{limit}: all may root and the group {}, and who is named in an app's deployers may deploy it",
            caller.name,
            rights::GROUP
        ),
    )
}
