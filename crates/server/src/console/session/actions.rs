//! What can be done about a session, each after a question: signal, cancel, terminate, reset; pausing,
//! resuming and revoking are in `control.rs`.

use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use steadfast_engine::proto::common::{Payload, Payloads, WorkflowExecution};
use steadfast_engine::proto::enums::EventType;
use steadfast_engine::proto::workflowservice::{
    RequestCancelWorkflowExecutionRequest, ResetWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest, TerminateWorkflowExecutionRequest,
};

use super::story::Story;
use super::{Session, Wanted, control};
use crate::console::page::{Fault, Section, field};
use crate::console::{CLAIMED, Visit, text, times};

/// Points of a reset that are offered.
const MAX_POINTS: usize = 200;

/// What can be done: name, call, word.
const ACTIONS: [(&str, &str, &str); 4] = [
    ("signal", "SignalWorkflowExecution", "Signal"),
    ("reset", "ResetWorkflowExecution", "Reset"),
    ("cancel", "RequestCancelWorkflowExecution", "Cancel"),
    ("terminate", "TerminateWorkflowExecution", "Terminate"),
];

/// The buttons.
pub fn bar(session: &Session<'_>) -> Markup {
    html! {
        div.actions role="group" aria-label="Actions" {
            @for (name, call, word) in ACTIONS {
                @if session.visit.may(call, session.namespace, &session.workflow_id) {
                    button type="button" popovertarget=(name) class=[(name == "terminate").then_some("danger")] { (word) "…" }
                }
            }
            (control::buttons(session))
        }
    }
}

/// What each button asks before anything is done.
pub fn dialogs(session: &Session<'_>, story: Option<&Story>) -> Markup {
    let may = |call| {
        session
            .visit
            .may(call, session.namespace, &session.workflow_id)
    };
    html! {
        @if may(ACTIONS[0].1) {
            (dialog(session, "signal", "Send a signal", html! {
                p { "The signal becomes part of the history. The agent sees it with its next workflow task." }
                label { span { "Name" } input name="name" required maxlength="1000" autocomplete="off" spellcheck="false"; }
                label { span { "Argument, as JSON" } textarea.code name="input" rows="4" placeholder="{\"approved\": true}" spellcheck="false" {} }
            }, "Send the signal", ""))
        }
        @if may(ACTIONS[2].1) {
            (dialog(session, "cancel", "Ask the agent to stop", html! {
                p { "The agent's code is told, and may tidy up before it ends. It may also go on." }
                (reason())
            }, "Request cancellation", ""))
        }
        @if may(ACTIONS[3].1) {
            (dialog(session, "terminate", "Terminate the session", html! {
                p { "It ends at once. Its code is not asked and cannot tidy up; tool calls that are under way are not taken back. This cannot be undone." }
                (reason())
            }, "Terminate", "danger"))
        }
        @if may(ACTIONS[1].1) {
            (dialog(session, "reset", "Begin again from a point", html! {
                p { "This run is terminated. A new one begins with the history up to the point that you choose: what came before is not done again, what came after is. Signals are kept." }
                (points(story))
                (reason())
            }, "Reset", "danger"))
        }
        (control::dialogs(session))
    }
}

pub(super) fn dialog(
    session: &Session<'_>,
    name: &str,
    heading: &str,
    content: Markup,
    button: &str,
    class: &str,
) -> Markup {
    let labelled = format!("{name}-heading");
    html! {
        div.dialog #(name) popover role="dialog" aria-labelledby=(labelled) {
            form method="post" action=(session.action(name)) {
                h2 id=(labelled) { (heading) }
                p.subject { (text::name(&session.workflow_id)) }
                (content)
                (session.visit.token_field())
                div.buttons {
                    button type="submit" class=(class) { (button) }
                    button.quiet type="button" popovertarget=(name) popovertargetaction="hide" { "Not now" }
                }
            }
        }
    }
}

pub(super) fn reason() -> Markup {
    html! { label { span { "Reason, for the record" } input name="reason" maxlength="1000" autocomplete="off"; } }
}

fn points(story: Option<&Story>) -> Markup {
    let events = story.map_or(&[][..], |of| &of.events);
    let is_point = |number| number == EventType::WorkflowTaskCompleted as i32;
    let points: Vec<_> = events
        .iter()
        .rev()
        .filter(|of| is_point(of.event_type))
        .take(MAX_POINTS)
        .collect();
    let begin = story.map_or(0, |of| of.begin);
    html! {
        label { span { "Up to" }
            select name="event" required {
                @for event in points {
                    @let after = times::nanos(&event.event_time).saturating_sub(begin);
                    option value=(event.event_id) { "event " (event.event_id) ", after " (times::span(after)) }
                }
            }
        }
    }
}

/// A form about a session, checked as forms are. The permit comes first: whoever may not is told so.
pub(super) struct Form {
    pub(super) permit: steadfast_runtime::Permit,
    fields: Vec<(String, String)>,
    execution: Option<WorkflowExecution>,
}

pub(super) fn form(
    visit: &Visit,
    call: &str,
    namespace: &str,
    wanted: &Wanted,
    body: &Bytes,
) -> Result<Form, Fault> {
    let permit = visit.admit_to(call, namespace, &wanted.id)?;
    let fields = text::form(body);
    visit.check_token(&fields)?;
    Ok(Form {
        permit,
        fields,
        execution: wanted.execution(),
    })
}

impl Form {
    pub(super) fn field(&self, name: &str) -> String {
        field(&self.fields, name).to_owned()
    }
}

/// The page after it was done.
pub(super) fn after(namespace: &str, wanted: &Wanted, run_id: &str, done: &str) -> String {
    let query = text::query(&[("id", &wanted.id), ("run", run_id), ("done", done)]);
    format!("{}/session{query}", Visit::base(namespace))
}

pub(super) type Where = (Path<String>, Query<Wanted>);

/// Sends a signal.
pub async fn signal(
    visit: Visit,
    (Path(namespace), Query(wanted)): Where,
    body: Bytes,
) -> Response {
    let done = async {
        let form = form(
            &visit,
            "SignalWorkflowExecution",
            &namespace,
            &wanted,
            &body,
        )?;
        let request = SignalWorkflowExecutionRequest {
            namespace: namespace.clone(),
            workflow_execution: form.execution.clone(),
            signal_name: form.field("name"),
            input: argument(&form.field("input"))?,
            identity: CLAIMED.into(),
            ..Default::default()
        };
        visit
            .console
            .runtime
            .signal_workflow(&form.permit, request)
            .await?;
        Ok(after(&namespace, &wanted, &wanted.run, "signalled"))
    };
    visit.done(&namespace, Section::Sessions, done.await).await
}

/// The JSON of a signal's argument; none where there is none.
fn argument(json: &str) -> Result<Option<Payloads>, Fault> {
    let json = json.trim();
    if json.is_empty() {
        return Ok(None);
    }
    serde_json::from_str::<serde::de::IgnoredAny>(json)
        .map_err(|error| Fault::invalid(format!("the argument is not JSON: {error}")))?;
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())];
    Ok(Some(Payloads {
        payloads: vec![Payload {
            metadata: metadata.into(),
            data: json.as_bytes().to_vec(),
            ..Payload::default()
        }],
    }))
}

/// Asks a session to cancel itself.
pub async fn cancel(
    visit: Visit,
    (Path(namespace), Query(wanted)): Where,
    body: Bytes,
) -> Response {
    let done = async {
        let call = "RequestCancelWorkflowExecution";
        let form = form(&visit, call, &namespace, &wanted, &body)?;
        let request = RequestCancelWorkflowExecutionRequest {
            namespace: namespace.clone(),
            workflow_execution: form.execution.clone(),
            reason: form.field("reason"),
            identity: CLAIMED.into(),
            ..Default::default()
        };
        visit
            .console
            .runtime
            .cancel_workflow(&form.permit, request)
            .await?;
        Ok(after(&namespace, &wanted, &wanted.run, "cancelled"))
    };
    visit.done(&namespace, Section::Sessions, done.await).await
}

/// Ends a session.
pub async fn terminate(
    visit: Visit,
    (Path(namespace), Query(wanted)): Where,
    body: Bytes,
) -> Response {
    let done = async {
        let call = "TerminateWorkflowExecution";
        let form = form(&visit, call, &namespace, &wanted, &body)?;
        let request = TerminateWorkflowExecutionRequest {
            namespace: namespace.clone(),
            workflow_execution: form.execution.clone(),
            reason: form.field("reason"),
            identity: CLAIMED.into(),
            ..Default::default()
        };
        visit
            .console
            .runtime
            .terminate_workflow(&form.permit, request)
            .await?;
        Ok(after(&namespace, &wanted, &wanted.run, "terminated"))
    };
    visit.done(&namespace, Section::Sessions, done.await).await
}

/// Begins again from a point.
pub async fn reset(visit: Visit, (Path(namespace), Query(wanted)): Where, body: Bytes) -> Response {
    let done = async {
        let form = form(&visit, "ResetWorkflowExecution", &namespace, &wanted, &body)?;
        let event = form.field("event");
        let event: i64 = event
            .parse()
            .map_err(|_| Fault::invalid("no point was chosen"))?;
        let request = ResetWorkflowExecutionRequest {
            namespace: namespace.clone(),
            workflow_execution: form.execution.clone(),
            reason: form.field("reason"),
            workflow_task_finish_event_id: event,
            request_id: uuid::Uuid::new_v4().to_string(),
            identity: CLAIMED.into(),
            ..Default::default()
        };
        let answer = visit
            .console
            .runtime
            .reset_workflow(&form.permit, request)
            .await?;
        Ok(after(&namespace, &wanted, &answer.run_id, "reset"))
    };
    visit.done(&namespace, Section::Sessions, done.await).await
}
