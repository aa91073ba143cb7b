//! Evidence bundles over HTTP.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use steadfast_ledger::entry::Time;
use steadfast_runtime::evidence::export::{About, Bound, ExportError};

use crate::evidence::bundles::{Exports, Refusal};
use crate::gate::{Caller, Target};

/// Says which export an answer is of.
const EXPORT: &str = "steadfast-export";

/// The routes.
pub fn router(exports: Exports) -> Router {
    let base = "/api/v1/namespaces/{namespace}/evidence";
    Router::new()
        .route(&format!("{base}/bundle"), get(bundle))
        .route(&format!("{base}/exports/{{id}}"), get(progress))
        .with_state(exports)
}

/// What a bundle is to be about: one of these, or a part of the log.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    workflow_id: Option<String>,
    principal: Option<String>,
    from: Option<String>,
    to: Option<String>,
    /// The size of an earlier tree: the bundle has the proof that the log extends it.
    since: Option<u64>,
}

impl Wanted {
    fn about(self) -> Result<About, String> {
        let is_part = self.from.is_some() || self.to.is_some();
        match (self.workflow_id, self.principal) {
            (Some(workflow_id), None) if !is_part => Ok(About::Session { workflow_id }),
            (None, Some(principal)) if !is_part => Ok(About::Principal { principal }),
            (None, None) if is_part => Ok(About::Part {
                from: self.from.as_deref().map(bound).transpose()?,
                to: self.to.as_deref().map(bound).transpose()?,
            }),
            _ => Err("give workflow_id, or principal, or from and to".to_owned()),
        }
    }
}

fn bound(text: &str) -> Result<Bound, String> {
    if let Ok(index) = text.parse() {
        return Ok(Bound::Index(index));
    }
    chrono::DateTime::parse_from_rfc3339(text)
        .ok()
        .and_then(|time| time.timestamp_nanos_opt())
        .map(|nanoseconds| Bound::Time(Time(nanoseconds)))
        .ok_or_else(|| {
            format!(
                "{text:?} is neither an index of the log nor a time such as 2026-11-23T10:00:00Z"
            )
        })
}

async fn bundle(
    State(exports): State<Exports>,
    caller: Caller,
    Path(namespace): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let workflow_id = wanted.workflow_id.as_deref().unwrap_or_default();
    let about = Target::of(&namespace).workflow_id(workflow_id);
    let permit = match caller.admit_to("ExportEvidence", &about) {
        Ok(permit) => permit,
        Err(refused) => return super::refusal(&refused),
    };
    let since = wanted.since;
    let about = match wanted.about() {
        Ok(about) => about,
        Err(message) => return (StatusCode::BAD_REQUEST, format!("{message}\n")).into_response(),
    };
    let export = match exports.begin(&permit, &namespace, about, since).await {
        Ok(export) => export,
        Err(refusal) => return refused(&refusal),
    };
    let chunks = futures::stream::unfold(export.chunks, |mut chunks| async {
        chunks.recv().await.map(|chunk| (chunk, chunks))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"evidence.zip\"".to_owned(),
        ),
        (
            header::HeaderName::from_static(EXPORT),
            export.id.to_string(),
        ),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::NoLog(_) | Refusal::Export(ExportError::Nothing(_)) => StatusCode::NOT_FOUND,
        Refusal::Shorter { .. } => StatusCode::CONFLICT,
        Refusal::Busy | Refusal::NotSigned | Refusal::Runtime(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{refusal}\n")).into_response()
}

async fn progress(
    State(exports): State<Exports>,
    caller: Caller,
    Path((namespace, id)): Path<(String, u64)>,
) -> Response {
    if let Err(refused) = caller.admit("ExportEvidence", &namespace, "") {
        return super::refusal(&refused);
    }
    match exports.progress(id) {
        Some((done, total)) => Json(json!({ "done": done, "total": total })).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
