//! The console: what agents do, why, what waits for people, and how to stop it, in a browser.
//!
//! Pages are made here, on the server, out of the same calls that gRPC and the HTTP API make, with the
//! same permits. They can be read without JavaScript; the script only follows what happens, shows times
//! as local ones, and spares reloads. Nothing is loaded from elsewhere.

mod approvals;
mod assets;
mod evidence;
mod guard;
mod live;
mod message;
mod namespaces;
mod page;
mod payload;
mod policies;
mod session;
mod sessions;
mod text;
mod times;
mod workers;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use steadfast_runtime::Runtime;
use steadfast_runtime::evidence::reads::Reads;
use tokio::sync::Semaphore;

use crate::evidence::{Logs, Witnesses};
use guard::Tokens;
pub(crate) use guard::local_names;
use page::Visit;

/// Who callers are where nobody is authenticated, unless they say.
const CLAIMED: &str = "console";

/// Pages that follow at a time.
const MAX_FOLLOWERS: usize = 200;

/// Bundles that are verified at a time.
const MAX_VERIFICATIONS: usize = 2;

/// What pages are made of. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    runtime: Runtime,
    logs: Logs,
    witnesses: Witnesses,
    tokens: Tokens,
    followers: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
}

impl Console {
    /// Whether pages may follow: not where each look leaves an entry in the log.
    fn can_follow(&self) -> bool {
        self.runtime.settings().reads == Reads::None
    }
}

/// The routes.
pub fn router(runtime: Runtime, logs: Logs, witnesses: Witnesses) -> Router {
    let console = Console {
        runtime,
        logs,
        witnesses,
        tokens: Tokens::new(),
        followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
        verifications: Arc::new(Semaphore::new(MAX_VERIFICATIONS)),
    };
    let within = |path: &str| format!("/ui/namespaces/{{namespace}}/{path}");
    let upload = DefaultBodyLimit::max(evidence::MAX_BUNDLE);
    Router::new()
        .route("/ui", get(namespaces::home))
        .route("/ui/assets/{name}", get(assets::get))
        .route("/ui/namespaces", get(namespaces::page))
        .route(&within("sessions"), get(sessions::page))
        .route(&within("session"), get(session::page))
        .route(&within("session/history.json"), get(session::history))
        .route(&within("session/signal"), post(session::actions::signal))
        .route(&within("session/cancel"), post(session::actions::cancel))
        .route(
            &within("session/terminate"),
            post(session::actions::terminate),
        )
        .route(&within("session/reset"), post(session::actions::reset))
        .route(&within("session/pause"), post(session::control::pause))
        .route(&within("session/resume"), post(session::control::resume))
        .route(&within("session/revoke"), post(session::control::revoke))
        .route(
            &within("approvals"),
            get(approvals::page).post(approvals::vote),
        )
        .route(&within("evidence"), get(evidence::page))
        .route(
            &within("evidence/verify"),
            post(evidence::verify).layer(upload),
        )
        .route(&within("policies"), get(policies::page))
        .route(&within("workers"), get(workers::page))
        .route(&within("live"), get(live::follow))
        .layer(middleware::from_fn(guard::same_origin))
        .layer(middleware::from_fn(guard::headers))
        .with_state(console)
}
