//! Pausing, resuming and revoking a session.

use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use steadfast_engine::pause::PauseRequest;
use steadfast_engine::proto::workflowservice::{
    PauseWorkflowExecutionRequest, UnpauseWorkflowExecutionRequest,
};

use super::Session;
use super::actions::{Where, after, dialog, form, reason};
use crate::console::page::Section;
use crate::console::{CLAIMED, Visit};

const PAUSE: &str = "PauseWorkflowExecution";
const RESUME: &str = "UnpauseWorkflowExecution";
const REVOKE: &str = "RevokeSession";

/// What of it is offered: a session that is paused can be resumed, another one paused.
struct Offered {
    pause: bool,
    resume: bool,
    revoke: bool,
}

impl Offered {
    fn of(session: &Session<'_>) -> Self {
        let may = |call| {
            let visit = session.visit;
            visit.may(call, session.namespace, &session.workflow_id)
        };
        let is_paused = session.paused().is_some();
        Self {
            pause: !is_paused && may(PAUSE),
            resume: is_paused && may(RESUME),
            revoke: may(REVOKE),
        }
    }
}

/// The buttons.
pub fn buttons(session: &Session<'_>) -> Markup {
    let offered = Offered::of(session);
    html! {
        @if offered.pause { button type="button" popovertarget="pause" { "Pause…" } }
        @if offered.resume { button type="button" popovertarget="resume" { "Resume…" } }
        @if offered.revoke { button.danger type="button" popovertarget="revoke" { "Revoke…" } }
    }
}

/// What each button asks before anything is done. A page that follows has the buttons of both states, so
/// it has both questions.
pub fn dialogs(session: &Session<'_>) -> Markup {
    let may = |call| {
        let visit = session.visit;
        visit.may(call, session.namespace, &session.workflow_id)
    };
    html! {
        @if may(PAUSE) {
            (dialog(session, "pause", "Pause the session", html! {
                p { "Nothing of it is handed to workers until it is resumed, and its credentials are worth nothing. What a worker has already may end; signals and timers are kept." }
                (reason())
            }, "Pause", ""))
        }
        @if may(RESUME) {
            (dialog(session, "resume", "Resume the session", html! {
                p { "It goes on where it was." }
                (reason())
            }, "Resume", ""))
        }
        @if may(REVOKE) {
            (dialog(session, "revoke", "Revoke the session", html! {
                p { "It ends at once and cannot be resumed; its credentials are worth nothing any more. Tool calls that are under way are not taken back." }
                (reason())
            }, "Revoke", "danger"))
        }
    }
}

/// Pauses a session.
pub async fn pause(visit: Visit, (Path(namespace), Query(wanted)): Where, body: Bytes) -> Response {
    let done = async {
        let form = form(&visit, PAUSE, &namespace, &wanted, &body)?;
        let request = PauseWorkflowExecutionRequest {
            namespace: namespace.clone(),
            workflow_id: wanted.id.clone(),
            run_id: wanted.run.clone(),
            reason: form.field("reason"),
            identity: CLAIMED.into(),
            ..Default::default()
        };
        let runtime = &visit.console.runtime;
        runtime.pause_workflow(&form.permit, request).await?;
        Ok(after(&namespace, &wanted, &wanted.run, "paused"))
    };
    visit.done(&namespace, Section::Sessions, done.await).await
}

/// Resumes a session.
pub async fn resume(
    visit: Visit,
    (Path(namespace), Query(wanted)): Where,
    body: Bytes,
) -> Response {
    let done = async {
        let form = form(&visit, RESUME, &namespace, &wanted, &body)?;
        let request = UnpauseWorkflowExecutionRequest {
            namespace: namespace.clone(),
            workflow_id: wanted.id.clone(),
            run_id: wanted.run.clone(),
            reason: form.field("reason"),
            identity: CLAIMED.into(),
            ..Default::default()
        };
        let runtime = &visit.console.runtime;
        runtime.unpause_workflow(&form.permit, request).await?;
        Ok(after(&namespace, &wanted, &wanted.run, "resumed"))
    };
    visit.done(&namespace, Section::Sessions, done.await).await
}

/// Ends a session, and all that it was given.
pub async fn revoke(
    visit: Visit,
    (Path(namespace), Query(wanted)): Where,
    body: Bytes,
) -> Response {
    let done = async {
        let form = form(&visit, REVOKE, &namespace, &wanted, &body)?;
        let why = PauseRequest {
            identity: CLAIMED.into(),
            reason: form.field("reason"),
            request_id: String::new(),
        };
        let (id, run) = (wanted.id.clone(), wanted.run.clone());
        let runtime = &visit.console.runtime;
        runtime
            .revoke_workflow(&form.permit, &namespace, id, run, why)
            .await?;
        Ok(after(&namespace, &wanted, &wanted.run, "revoked"))
    };
    visit.done(&namespace, Section::Sessions, done.await).await
}
