use std::path::Path;

use serde_json::Value;
use temporalio_protos::temporal::api::common::v1::{ActivityType, Payload, RetryPolicy};
use temporalio_protos::temporal::api::failure::v1::TimeoutFailureInfo;

use super::*;

/// A recorded history, as far as it matters here. They have no times: an event a second is assumed, or as many
/// as `gaps` has for the event with this id.
fn recorded(name: &str, gaps: &[(i64, i64)]) -> Vec<HistoryEvent> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/histories");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("a file");
    let file: Value = serde_json::from_str(&text).expect("is JSON");
    let mut seconds = 1_700_000_000;
    // One after the other, where there are several.
    let histories = file.as_object().expect("has histories").values();
    let events = histories.flat_map(|of| of.as_array().expect("has events"));
    let events = events.map(|event| {
        let id = event["id"].as_i64().expect("has an id");
        let gap = gaps.iter().find(|(of, _)| *of == id);
        seconds += gap.map_or(1, |(_, seconds)| *seconds);
        HistoryEvent {
            event_id: id,
            event_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            attributes: attributes(event),
            ..HistoryEvent::default()
        }
    });
    events.collect()
}

fn attributes(event: &Value) -> Option<Attributes> {
    let number = |value: &Value| {
        let text = value.as_str().and_then(|of| of.parse().ok());
        value.as_i64().or(text).unwrap_or(0)
    };
    let id = |name: &str| number(&event[name]);
    let span = |name: &str| {
        let text = event[name].as_str().unwrap_or("0s").trim_end_matches('s');
        let seconds: f64 = text.parse().expect("seconds");
        Some(prost_types::Duration {
            seconds: seconds as i64,
            nanos: 0,
        })
    };
    let failure = |value: &Value| {
        value.is_object().then(|| Failure {
            message: value["message"].as_str().unwrap_or_default().to_owned(),
            failure_info: value
                .get("timeoutFailureInfo")
                .map(|_| FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo::default())),
            ..Failure::default()
        })
    };
    Some(match event["type"].as_str()? {
        "ACTIVITY_TASK_SCHEDULED" => Attributes::ActivityTaskScheduledEventAttributes(
            history::ActivityTaskScheduledEventAttributes {
                activity_type: Some(ActivityType {
                    name: event["activityType"]["name"].as_str()?.to_owned(),
                }),
                retry_policy: Some(RetryPolicy {
                    maximum_attempts: number(&event["retryPolicy"]["maximumAttempts"]) as i32,
                    ..RetryPolicy::default()
                }),
                start_to_close_timeout: span("startToCloseTimeout"),
                schedule_to_close_timeout: span("scheduleToCloseTimeout"),
                heartbeat_timeout: span("heartbeatTimeout"),
                ..Default::default()
            },
        ),
        "ACTIVITY_TASK_STARTED" => Attributes::ActivityTaskStartedEventAttributes(
            history::ActivityTaskStartedEventAttributes {
                scheduled_event_id: id("scheduledEventId"),
                attempt: id("attempt") as i32,
                last_failure: failure(&event["lastFailure"]),
                ..Default::default()
            },
        ),
        "ACTIVITY_TASK_COMPLETED" => Attributes::ActivityTaskCompletedEventAttributes(
            history::ActivityTaskCompletedEventAttributes {
                scheduled_event_id: id("scheduledEventId"),
                ..Default::default()
            },
        ),
        "WORKFLOW_TASK_FAILED" => {
            let cause = event["cause"].as_str().unwrap_or_default();
            let mut failed = history::WorkflowTaskFailedEventAttributes {
                failure: failure(&event["failure"]),
                ..Default::default()
            };
            failed.set_cause(Cause::from_str_name(cause).unwrap_or_default());
            Attributes::WorkflowTaskFailedEventAttributes(failed)
        }
        "MARKER_RECORDED" => {
            let details = event["details"].as_object().into_iter().flatten();
            let details = details.map(|(name, of)| {
                let data = of["payloads"][0]["payload"].to_string().into_bytes();
                let payload = Payload {
                    data,
                    ..Payload::default()
                };
                (
                    name.clone(),
                    Payloads {
                        payloads: vec![payload],
                    },
                )
            });
            Attributes::MarkerRecordedEventAttributes(history::MarkerRecordedEventAttributes {
                marker_name: event["markerName"].as_str()?.to_owned(),
                details: details.collect(),
                ..Default::default()
            })
        }
        _ => return None,
    })
}

fn read(events: &[HistoryEvent], settings: &Settings, open: &[OpenCall]) -> Run {
    let mut reader = Reader::new(settings);
    for event in events {
        reader.event(event);
    }
    reader.finish(open)
}

fn found(name: &str, gaps: &[(i64, i64)]) -> Vec<(Risk, String, u64)> {
    let run = read(&recorded(name, gaps), &Settings::default(), &[]);
    let risks = run.risks.into_iter();
    risks
        .map(|((risk, tool), seen)| (risk, tool, seen.count))
        .collect()
}

#[test]
fn recorded_histories_are_judged() {
    let of = |risk, tool: &str, count| (risk, tool.to_owned(), count);
    for (name, expected) in [
        ("activity_ok", vec![]),
        ("complete", vec![]),
        ("patched", vec![]),
        ("markers", vec![]),
        (
            "activity_retried",
            vec![of(Risk::MadeAgain, "third_time_lucky", 2)],
        ),
        (
            "activity_start_to_close_timeout_retried",
            vec![of(Risk::MadeAgain, "hang", 1)],
        ),
        ("local_activity", vec![of(Risk::LocalActivity, "double", 1)]),
        ("nondeterminism", vec![of(Risk::NonDeterminism, "", 1)]),
        ("task_fails_once", vec![of(Risk::TaskFailed, "", 1)]),
        // Somebody reset it: that is nobody's fault.
        ("reset_reapplies_signals", vec![]),
        // The server's own doing.
        ("completion_with_unseen_signal", vec![]),
    ] {
        assert_eq!(found(name, &[]), expected, "{name}");
    }
    let run = read(
        &recorded("activity_start_to_close_timeout_retried", &[]),
        &Settings::default(),
        &[],
    );
    let seen = &run.risks[&(Risk::MadeAgain, "hang".to_owned())];
    assert!(seen.detail.contains("may have had its effect"), "{seen:?}");
    assert_eq!(run.calls["hang"], 1);
}

#[test]
fn what_is_known_to_be_idempotent_may_be_made_again() {
    let settings = Settings {
        idempotent: ["third_time_lucky".to_owned()].into(),
        ..Settings::default()
    };
    let run = read(&recorded("activity_retried", &[]), &settings, &[]);
    assert_eq!(run.risks, BTreeMap::new());
}

#[test]
fn long_attempts_should_have_heartbeats() {
    // Event 7 completes the call.
    let events = recorded("activity_ok", &[(7, 90)]);
    let run = read(&events, &Settings::default(), &[]);
    let risks: Vec<_> = run.risks.iter().collect();
    let [((risk, _), seen)] = risks.as_slice() else {
        panic!("{risks:?}");
    };
    assert_eq!(
        (*risk, seen.detail.as_str()),
        (Risk::NoHeartbeat, "an attempt took 90 s")
    );
}

#[test]
fn attempts_and_time_outs_are_looked_at() {
    let mut events = recorded("activity_ok", &[]);
    let scheduled = events
        .iter_mut()
        .find_map(|event| match &mut event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(of)) => Some(of),
            _ => None,
        });
    let scheduled = scheduled.expect("a call");
    let policy = scheduled.retry_policy.get_or_insert_default();
    policy.maximum_attempts = 1;
    scheduled.start_to_close_timeout = Some(prost_types::Duration {
        seconds: 86_400,
        nanos: 0,
    });
    let run = read(&events, &Settings::default(), &[]);
    let risks: Vec<Risk> = run.risks.keys().map(|(risk, _)| *risk).collect();
    assert_eq!(risks, [Risk::SingleAttempt, Risk::LateNotice]);
    let seen = run.risks.values().next_back().expect("two");
    assert_eq!(seen.detail, "an attempt times out after 24 h only");
}

#[test]
fn open_calls_of_live_sessions_count() {
    let call = |attempt, is_started| OpenCall {
        tool: "pay".into(),
        attempt,
        maximum_attempts: 3,
        is_started,
        running: 61 * SECOND,
        has_heartbeat: false,
    };
    let risks = |open| {
        let run = read(&[], &Settings::default(), &[open]);
        run.risks
            .into_keys()
            .map(|(risk, _)| risk)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        risks(call(3, true)),
        [Risk::LastAttempt, Risk::MadeAgain, Risk::NoHeartbeat]
    );
    assert_eq!(risks(call(3, false)), [Risk::MadeAgain]);
    assert_eq!(risks(call(1, false)), []);
}

#[test]
fn histories_may_be_too_long() {
    let settings = Settings {
        long_history: 5,
        ..Settings::default()
    };
    let run = read(&recorded("activity_ok", &[]), &settings, &[]);
    assert!(run.risks.contains_key(&(Risk::LongHistory, String::new())));
}
