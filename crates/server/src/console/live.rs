//! Tells pages that something has changed, as server-sent events. What it was they see when they load
//! themselves again.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::page::Fault;
use super::{MAX_FOLLOWERS, Visit};

/// How often it is looked whether anything has changed.
const LOOK: Duration = Duration::from_millis(500);

/// A comment is sent when there was nothing else for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// After so long a page connects again, and is admitted anew.
const LONGEST: Duration = Duration::from_secs(300);

/// Follows.
pub async fn follow(visit: Visit, Path(namespace): Path<String>) -> Response {
    if let Err(Fault(status)) = visit.admit("ListWorkflowExecutions", &namespace) {
        return crate::http::refusal(&status);
    }
    let slot = visit.console.followers.clone().try_acquire_owned();
    let Some(slot) = slot.ok().filter(|_| visit.console.can_follow()) else {
        let message = format!(
            "nothing can be followed now: {MAX_FOLLOWERS} pages do, or reads are recorded\n"
        );
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    let begun = Instant::now();
    let state = (visit, slot, None, begun);
    let pieces = futures::stream::unfold(state, move |(visit, slot, seen, last)| async move {
        let runtime = &visit.console.runtime;
        loop {
            if begun.elapsed() >= LONGEST {
                return None;
            }
            // Of commits: what is only decided, lists do not have yet, and nothing may come after it.
            let (_, commits) = runtime.counters();
            if seen != Some(commits) {
                let piece = match seen {
                    // What happened since the page was made is not to be missed.
                    None => format!("retry: 3000\ndata: {commits}\n\n"),
                    Some(_) => format!("data: {commits}\n\n"),
                };
                let state = (visit, slot, Some(commits), Instant::now());
                return Some((Ok::<_, Infallible>(Bytes::from(piece)), state));
            }
            if last.elapsed() >= KEEP_ALIVE {
                return Some((
                    Ok(Bytes::from_static(b":\n\n")),
                    (visit, slot, seen, Instant::now()),
                ));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = runtime.stopping() => return None,
                () = visit.caller.over() => return None,
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}
