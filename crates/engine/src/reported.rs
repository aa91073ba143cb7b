//! What the answer to a workflow task tells, or does at once: local activities, which ran within the worker,
//! and going on as a workflow of another type.
//!
//! Policies are asked about both, before anything of the answer counts. A refusal fails the workflow task: for
//! a local activity that is too late for what it did, and it runs again with each attempt of the task. People
//! are not asked: what has run cannot wait, and what asks for approval is refused.

use serde_json::Value;

use crate::call::{Command, Reported};
use crate::error::{Error, Result};
use crate::governance::{Call, Reasons, Ruling};
use crate::proto::command::{RecordMarkerCommandAttributes, command::Attributes as C};
use crate::proto::common::Payloads;
use crate::proto::enums::WorkflowTaskFailedCause as Cause;
use crate::proto::workflowservice::RespondWorkflowTaskCompletedRequest;
use crate::record::{CallKind, Decision, StepKind, Verdict};
use crate::run::{Cx, Run};

/// Names of the markers that SDKs write about local activities: those on the Rust core (Python, TypeScript,
/// .NET, Ruby, Rust), and those of Go and Java.
const LOCAL_ACTIVITY: [&str; 2] = ["core_local_activity", "LocalActivity"];

/// What was found in an answer.
#[derive(Debug, Default, PartialEq)]
struct Found {
    id: String,
    name: String,
    attempt: i32,
}

impl Run {
    /// Has policies decide what an answer tells. What was decided is recorded, also of an answer that is
    /// refused.
    pub(crate) fn decide_reported(
        &mut self,
        cx: &Cx<'_>,
        request: &RespondWorkflowTaskCompletedRequest,
    ) -> Result<()> {
        if cx.governor.is_none() {
            return Ok(());
        }
        for command in &request.commands {
            match &command.attributes {
                Some(C::RecordMarkerCommandAttributes(marker)) => {
                    if let Some(found) = local_activity(marker) {
                        self.decide_one(cx, CallKind::Local, found)?;
                    }
                }
                Some(C::ContinueAsNewWorkflowExecutionCommandAttributes(next)) => {
                    let name = next.workflow_type.as_ref().map_or("", |of| &of.name);
                    if !name.is_empty() && name != self.state.workflow_type() {
                        let found = Found {
                            name: name.to_owned(),
                            attempt: 1,
                            ..Found::default()
                        };
                        self.decide_one(cx, CallKind::ContinueAs, found)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn decide_one(&mut self, cx: &Cx<'_>, kind: CallKind, found: Found) -> Result<()> {
        let Some(governor) = cx.governor else {
            return Ok(());
        };
        let attested = governor.is_attested(&self.state, cx.now);
        let ruling = governor.decide(&Call {
            namespace: cx.namespace,
            state: &self.state,
            event_id: 0,
            command: Command::Reported(Reported {
                kind,
                id: &found.id,
                name: &found.name,
                attempt: found.attempt,
            }),
            now: cx.now,
            attested,
        });
        let (verdict, reasons) = match ruling {
            Ruling::Free => return Ok(()),
            Ruling::Allow(reasons) => (Verdict::Allow, reasons),
            Ruling::Deny(reasons) => (Verdict::Deny, reasons),
            Ruling::Approval(reasons, _) => (Verdict::Approval, reasons),
        };
        let refusal = refusal(kind, &found.name, verdict, &reasons);
        self.step(StepKind::Decision(Decision {
            kind: kind.into(),
            scheduled_event_id: 0,
            activity_id: found.id,
            activity_type: found.name,
            verdict: verdict.into(),
            policies: reasons.policies,
            policy_hash: reasons.policy_hash,
            attempt: found.attempt,
            attested,
        }));
        match verdict {
            Verdict::Allow => Ok(()),
            Verdict::Deny | Verdict::Approval => Err(refusal),
        }
    }
}

/// What the worker is told, and the failed task's event says.
fn refusal(kind: CallKind, name: &str, verdict: Verdict, reasons: &Reasons) -> Error {
    let (cause, what, after) = match kind {
        CallKind::Local => (
            Cause::BadRecordMarkerAttributes,
            format!("the local activity {name}"),
            " It has run in the worker: what it did is not undone.",
        ),
        _ => (
            Cause::BadContinueAsNewAttributes,
            format!("going on as a workflow of type {name}"),
            "",
        ),
    };
    let policies = reasons.policies.join(", ");
    let why = match verdict {
        Verdict::Approval => {
            format!("{what} needs an approval by policy {policies}, and cannot wait.")
        }
        _ if policies.is_empty() => format!("no policy permits {what}."),
        _ => format!("{what} is refused by policy {policies}."),
    };
    Error::bad_command(cause, format!("PolicyDenied: {why}{after}"))
}

/// What a marker says of a local activity, if it is about one. A name that cannot be read is empty.
fn local_activity(marker: &RecordMarkerCommandAttributes) -> Option<Found> {
    if !LOCAL_ACTIVITY.contains(&marker.marker_name.as_str()) {
        return None;
    }
    let detail = |key: &str| marker.details.get(key).and_then(json);
    let data = detail("data").unwrap_or_default();
    let of_data = |keys: [&str; 3]| keys.iter().find_map(|key| data.get(key)).cloned();
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let attempt = of_data(["attempt", "attempt", "Attempt"]).and_then(|of| of.as_i64());
    Some(Found {
        id: text(
            of_data(["activity_id", "activityId", "ActivityID"]).or_else(|| detail("activityId")),
        ),
        name: text(
            of_data(["activity_type", "activityType", "ActivityType"]).or_else(|| detail("type")),
        ),
        attempt: attempt.and_then(|of| of.try_into().ok()).unwrap_or(1),
    })
}

fn json(payloads: &Payloads) -> Option<Value> {
    serde_json::from_slice(&payloads.payloads.first()?.data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::common::Payload;

    fn marker(name: &str, details: &[(&str, &str)]) -> RecordMarkerCommandAttributes {
        let detail = |data: &str| Payloads {
            payloads: vec![Payload {
                data: data.into(),
                ..Payload::default()
            }],
        };
        let details = details
            .iter()
            .map(|(key, data)| ((*key).to_owned(), detail(data)));
        RecordMarkerCommandAttributes {
            marker_name: name.into(),
            details: details.collect(),
            ..Default::default()
        }
    }

    fn found(id: &str, name: &str, attempt: i32) -> Option<Found> {
        Some(Found {
            id: id.into(),
            name: name.into(),
            attempt,
        })
    }

    #[test]
    fn markers_of_all_sdks_are_read() {
        let core =
            r#"{"seq":1,"attempt":2,"activity_id":"1","activity_type":"pay","backoff":null}"#;
        let camel = r#"{"activityId":"1","activityType":"pay"}"#;
        let go = r#"{"ActivityID":"1","ActivityType":"pay","Attempt":3,"Backoff":0}"#;
        for (name, details, expected) in [
            (
                "core_local_activity",
                &[("data", core)][..],
                found("1", "pay", 2),
            ),
            (
                "core_local_activity",
                &[("data", camel)],
                found("1", "pay", 1),
            ),
            (
                "LocalActivity",
                &[("data", go), ("result", "1")],
                found("1", "pay", 3),
            ),
            (
                "LocalActivity",
                &[("type", "\"pay\""), ("activityId", "\"1\"")],
                found("1", "pay", 1),
            ),
            (
                "core_local_activity",
                &[("data", "\u{1}secret")],
                found("", "", 1),
            ),
            ("core_local_activity", &[("data", "[1]")], found("", "", 1)),
            (
                "core_local_activity",
                &[("data", r#"{"activity_type":7,"attempt":1e99}"#)],
                found("", "", 1),
            ),
            ("core_local_activity", &[], found("", "", 1)),
            ("core_patch", &[("data", core)], None),
            ("SideEffect", &[("data", go)], None),
        ] {
            assert_eq!(
                local_activity(&marker(name, details)),
                expected,
                "{name} {details:?}"
            );
        }
    }

    #[test]
    fn no_marker_is_too_odd() {
        let core = br#"{"seq":1,"attempt":2,"activity_id":"1","activity_type":"pay"}"#;
        for at in 0..core.len() {
            for byte in [0, b'"', b'}', b'9', 0xff] {
                let mut data = core.to_vec();
                data[at] = byte;
                data.truncate(core.len() - at / 2);
                let payload = Payload {
                    data,
                    ..Payload::default()
                };
                let mut odd = marker("core_local_activity", &[]);
                let payloads = vec![payload];
                odd.details.insert("data".into(), Payloads { payloads });
                assert!(local_activity(&odd).is_some());
            }
        }
    }
}
