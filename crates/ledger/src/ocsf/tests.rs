//! Entries as events.

use super::*;
use crate::entry::{BufferedItem, Cause, EventItem, EventRange, Follows, Time, VERSION};

fn entry() -> Entry<'static> {
    Entry {
        cause: Cause {
            auth: "unauthenticated".into(),
            call: "RespondActivityTaskFailed".into(),
            principal: "worker@desk".into(),
        },
        n: 6,
        ns: "default".into(),
        prev: Some(Hash([7; 32])),
        run_id: "0820fb2f-84c2-4e76-b3b1-61bff1b2d2f6".into(),
        t: Time(1_700_000_000_123_456_789),
        v: VERSION,
        workflow_id: "payment-1".into(),
        ..Entry::default()
    }
}

fn attempt(number: i64, state: &'static str, last_failure: &'static str) -> AttemptItem<'static> {
    AttemptItem {
        activity_id: "1".into(),
        activity_type: "pay".into(),
        attempt: number,
        last_failure: last_failure.into(),
        scheduled_event_id: 9,
        state: state.into(),
        worker: "worker@desk".into(),
        ..AttemptItem::default()
    }
}

fn history(event_type: &'static str) -> Vec<EventItem<'static>> {
    vec![EventItem {
        id: 9,
        event_type: event_type.into(),
        ..EventItem::default()
    }]
}

fn exported(entry: &Entry<'_>) -> Value {
    let mut bytes = String::new();
    entry.write(&mut bytes);
    let place = Place {
        origin: "example.com/default",
        index: 41,
        product_version: "0.1.0",
    };
    event(entry, &bytes, place)
}

#[test]
fn a_failed_attempt_as_a_whole() {
    let entry = Entry {
        attempts: vec![
            attempt(2, "scheduled", "application/Declined"),
            attempt(2, "started", "application/Declined"),
        ],
        ..entry()
    };
    let mut event = exported(&entry);
    let raw = event["raw_data"].take();
    let raw = raw.as_str().expect("the entry");
    assert_eq!(Entry::parse(raw.as_bytes()).expect("is read"), entry);
    let uid = Hash::leaf(raw.as_bytes()).to_string();
    let item = |state: &str| {
        json!({
            "activity_id": "1", "activity_type": "pay", "attempt": 2, "scheduled_event_id": 9,
            "state": state, "last_failure": "application/Declined", "worker": "worker@desk",
        })
    };
    let run_id = "0820fb2f-84c2-4e76-b3b1-61bff1b2d2f6";
    let detail = "attempt 1 of pay failed, and is tried again";
    let expected = json!({
        "activity_id": 3,
        "activity_name": "Update",
        "actor": { "user": { "name": "worker@desk", "type": "Unknown", "type_id": 0 } },
        "api": {
            "operation": "RespondActivityTaskFailed",
            "service": { "name": "temporal.api.workflowservice.v1.WorkflowService" },
        },
        "category_name": "Application Activity",
        "category_uid": 6,
        "class_name": "API Activity",
        "class_uid": 6003,
        "message": format!("RespondActivityTaskFailed on payment-1: {detail}"),
        "metadata": {
            "correlation_uid": run_id,
            "log_name": "example.com/default",
            "log_version": "1",
            "original_time": "2023-11-14T22:13:20.123456789Z",
            "product": { "name": "Steadfast", "vendor_name": "Steadfast", "version": "0.1.0" },
            "profiles": ["datetime"],
            "sequence": 41,
            "uid": uid,
            "version": "1.1.0",
        },
        "raw_data": null,
        "resources": [
            {
                "name": "payment-1", "namespace": "default", "type": "workflow run",
                "uid": run_id,
            },
            { "name": "pay", "namespace": "default", "type": "tool call", "uid": "1" },
        ],
        "severity": "Low",
        "severity_id": 2,
        "src_endpoint": { "name": "worker@desk" },
        "status": "Failure",
        "status_code": "application/Declined",
        "status_detail": detail,
        "status_id": 2,
        "time": 1_700_000_000_123_i64,
        "time_dt": "2023-11-14T22:13:20.123456789Z",
        "type_name": "API Activity: Update",
        "type_uid": 600_303,
        "unmapped": {
            "attempts": [item("scheduled"), item("started")],
            "auth": "unauthenticated",
            "n": 6,
            "prev": Hash([7; 32]).to_string(),
            "run_id": run_id,
            "workflow_id": "payment-1",
        },
    });
    assert_eq!(event, expected);
}

#[test]
fn what_is_done_and_how_bad_it_is() {
    let note = |what: &'static str| Entry {
        note: Some(Note {
            what: what.into(),
            ..Note::default()
        }),
        run_id: "".into(),
        ..entry()
    };
    let called = |call: &'static str| {
        let mut called = entry();
        called.cause.call = call.into();
        called
    };
    let closed = |status: &'static str| Entry {
        closed: status.into(),
        ..entry()
    };
    let with = |event_type| Entry {
        events: history(event_type),
        ..entry()
    };
    let first = Entry {
        n: 1,
        ..called("StartWorkflowExecution")
    };
    let deleted = Entry {
        deleted: true,
        ..called("DeleteWorkflowExecution")
    };
    let expired = Entry {
        deleted: true,
        ..called("internal/retention")
    };
    let started_again = Entry {
        attempts: vec![attempt(2, "started", "application/Declined")],
        ..entry()
    };
    let buffered = Entry {
        buffered: vec![BufferedItem {
            event_type: "ACTIVITY_TASK_FAILED".into(),
            ..BufferedItem::default()
        }],
        ..entry()
    };
    for (entry, name, activity_id, severity, status) in [
        (first, "Create", 1, "Informational", "Success"),
        (
            called("GetWorkflowExecutionHistory"),
            "Read",
            2,
            "Informational",
            "Success",
        ),
        (with("TIMER_FIRED"), "Update", 3, "Informational", "Success"),
        (
            with("ACTIVITY_TASK_TIMED_OUT"),
            "Update",
            3,
            "Low",
            "Failure",
        ),
        (buffered, "Update", 3, "Low", "Failure"),
        (started_again, "Update", 3, "Informational", "Success"),
        (closed("COMPLETED"), "Update", 3, "Informational", "Success"),
        (closed("FAILED"), "Update", 3, "Medium", "Failure"),
        (closed("TIMED_OUT"), "Update", 3, "Medium", "Failure"),
        (closed("TERMINATED"), "Update", 3, "Low", "Success"),
        (deleted, "Delete", 4, "Low", "Success"),
        (expired, "Delete", 4, "Informational", "Success"),
        (
            note("namespace/registered"),
            "Create",
            1,
            "Informational",
            "Success",
        ),
        (note("namespace/changed"), "Update", 3, "Low", "Success"),
        (note("evidence/erased"), "Delete", 4, "Low", "Success"),
        (note("evidence/key-changed"), "Other", 99, "High", "Success"),
        (
            note("evidence/log-restarted"),
            "Other",
            99,
            "High",
            "Success",
        ),
    ] {
        let event = exported(&entry);
        let got = (
            &event["activity_name"],
            &event["severity"],
            &event["status"],
        );
        assert_eq!(
            got,
            (&json!(name), &json!(severity), &json!(status)),
            "{event}"
        );
        assert_eq!(event["activity_id"], activity_id, "{event}");
        assert_eq!(event["type_uid"], 600_300 + activity_id);
    }
}

#[test]
fn the_server_is_a_system_and_a_nameless_caller_is_unknown() {
    let mut by_server = entry();
    by_server.cause = Cause {
        call: "internal/timer".into(),
        principal: "steadfast".into(),
        ..Cause::default()
    };
    let event = exported(&by_server);
    assert_eq!(event["actor"]["user"]["type_id"], 3);
    assert_eq!(event["api"]["service"]["name"], "steadfast");
    assert_eq!(event["src_endpoint"], json!({ "svc_name": "steadfast" }));
    let mut nameless = entry();
    nameless.cause.principal = "".into();
    let event = exported(&nameless);
    assert_eq!(event["actor"]["user"]["name"], "Unknown");
    assert_eq!(event["src_endpoint"]["name"], "Unknown");
}

#[test]
fn what_has_no_place_is_unmapped() {
    let full = Entry {
        closed: "CONTINUED_AS_NEW".into(),
        deleted: true,
        event_range: Some(EventRange {
            first: 5,
            last: 900,
            root: Hash::of(b"r"),
        }),
        events: vec![EventItem {
            by: "steadfast".into(),
            ..history("TIMER_FIRED").remove(0)
        }],
        follows: Some(Follows {
            run_id: "before".into(),
            ..Follows::default()
        }),
        note: Some(Note {
            detail: "why".into(),
            run_id: "r".into(),
            what: "evidence/erased".into(),
            workflow_id: "w".into(),
        }),
        omitted: 3,
        ..entry()
    };
    let event = exported(&full);
    let unmapped = &event["unmapped"];
    assert_eq!(unmapped["closed"], "CONTINUED_AS_NEW");
    assert_eq!(unmapped["deleted"], true);
    assert_eq!(unmapped["event_range"], json!({ "first": 5, "last": 900 }));
    assert_eq!(
        unmapped["events"],
        json!([{ "id": 9, "type": "TIMER_FIRED", "by": "steadfast" }])
    );
    assert_eq!(unmapped["follows"], "before");
    assert_eq!(
        unmapped["note"],
        json!({ "what": "evidence/erased", "detail": "why" })
    );
    assert_eq!(unmapped["omitted"], 3);
    assert_eq!(event["resources"][1]["uid"], "r");
}
