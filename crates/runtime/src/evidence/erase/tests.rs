use steadfast_engine::Error as EngineError;
use steadfast_engine::proto::command::CompleteWorkflowExecutionCommandAttributes;
use steadfast_engine::proto::command::command::Attributes as Command;
use steadfast_engine::proto::common::{Memo, Payload, Payloads};
use steadfast_engine::proto::history::HistoryEvent;
use steadfast_engine::proto::workflowservice::DescribeWorkflowExecutionRequest;
use steadfast_ledger::Entry;
use steadfast_store::ProjectionBatch;

use super::*;
use crate::Settings;
use crate::evidence::check::Findings;
use crate::testing::{Bed, execution, shapes, start};

const SECRET: &str = "4111-1111";

fn settings() -> Settings {
    Settings {
        shapes: shapes(),
        ..Settings::default()
    }
}

fn payload() -> Payload {
    Payload {
        data: SECRET.into(),
        ..Payload::default()
    }
}

fn payloads() -> Option<Payloads> {
    Some(Payloads {
        payloads: vec![payload()],
    })
}

fn complete() -> Command {
    let result = CompleteWorkflowExecutionCommandAttributes { result: payloads() };
    Command::CompleteWorkflowExecutionCommandAttributes(result)
}

/// A run that was signaled, and has ended.
async fn closed(bed: &Bed, workflow_id: &str) -> String {
    let mut request = start(workflow_id);
    request.input = payloads();
    request.memo = Some(Memo {
        fields: [("card".to_owned(), payload())].into(),
    });
    let run_id = bed.start(request).await;
    let task = bed.take().await;
    // It comes while the worker has the task, and is buffered.
    bed.signal(workflow_id, 20).await.expect("signalled");
    bed.answer_task(task.task_token, []).await;
    bed.answer([complete()]).await;
    run_id
}

async fn erase(bed: &Bed, workflow_id: &str, run_id: &str) -> Result<Erased> {
    let erasure = Erasure {
        workflow_id: workflow_id.to_owned(),
        run_id: run_id.to_owned(),
        reason: "GDPR-17".to_owned(),
    };
    bed.runtime.erase(&bed.permit, "default", erasure).await
}

async fn check(bed: &Bed) -> Findings {
    let id = bed.key("").namespace_id;
    let findings = bed.runtime.check_evidence(&id, |_| {}).await;
    findings.expect("is checked")
}

/// The notes about erasures in the log.
async fn notes(bed: &Bed) -> Vec<String> {
    let id = bed.key("").namespace_id;
    bed.runtime.projected().await.expect("projected");
    let read = bed.store.log_entries(&id, 0, usize::MAX, usize::MAX);
    let entries = read.await.expect("entries");
    let parsed = entries.iter().map(|bytes| Entry::parse(bytes));
    let notes = parsed.filter_map(|entry| {
        let entry = entry.expect("an entry");
        let note = entry.note.filter(|note| note.what == NOTE)?;
        assert!(entry.run_id.is_empty() && entry.cause.principal == "tester");
        assert_eq!(note.detail, "GDPR-17");
        Some(note.run_id.into_owned())
    });
    notes.collect()
}

fn types(events: &[HistoryEvent]) -> Vec<(i64, i32)> {
    let types = events
        .iter()
        .map(|event| (event.event_id, event.event_type));
    types.collect()
}

fn says(events: &[HistoryEvent], text: &str) -> bool {
    events.iter().any(|event| {
        let bytes = event.encode_to_vec();
        bytes.windows(text.len()).any(|of| of == text.as_bytes())
    })
}

fn is_precondition(error: &RuntimeError) -> bool {
    matches!(
        error,
        RuntimeError::Engine(EngineError::FailedPrecondition(_))
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_run_can_be_read_and_checked() {
    let bed = Bed::open(settings()).await;
    let run_id = closed(&bed, "flow").await;
    let other = closed(&bed, "other").await;
    let whole = bed.history("flow", "").await;
    let erased = erase(&bed, "flow", "").await.expect("erased");
    assert_eq!(
        (erased.run_ids, erased.before),
        (vec![run_id.clone()], vec![])
    );
    let again = erase(&bed, "flow", &run_id).await.expect("erased");
    assert_eq!(
        (again.run_ids, again.before),
        (vec![], vec![run_id.clone()])
    );
    assert_eq!(notes(&bed).await, [run_id.as_str()]);
    for round in 0..2 {
        let events = bed.history("flow", "").await;
        assert_eq!(types(&events), types(&whole), "{round}");
        assert!(says(&whole, SECRET) && !says(&events, SECRET));
        assert!(says(&events, super::super::ENCODING));
        assert!(says(&bed.history("other", &other).await, SECRET));
        let findings = check(&bed).await;
        assert_eq!(findings.differences, Vec::<String>::new());
        assert_eq!((findings.runs, findings.erased), (1, 1));
        let request = DescribeWorkflowExecutionRequest {
            namespace: "default".into(),
            execution: execution("flow", ""),
        };
        let described = bed.runtime.describe_workflow(&bed.permit, request).await;
        let info = described.expect("described").workflow_execution_info;
        let info = info.expect("is there");
        assert_eq!(info.memo, Some(Memo::default()));
        assert_eq!(info.history_length, whole.len() as i64);
        if round == 0 {
            bed.runtime.project_all().await.expect("projected");
        }
    }
    let store = bed.stop().await;
    let bed = Bed::reopen(store, settings()).await;
    assert_eq!(check(&bed).await.erased, 1);
    assert!(!says(&bed.history("flow", "").await, SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_or_unknown_run_is_refused() {
    let bed = Bed::open(settings()).await;
    let first = closed(&bed, "flow").await;
    let second = bed.start(start("flow")).await;
    let refused = erase(&bed, "flow", "").await.expect_err("it is open");
    assert!(is_precondition(&refused), "{refused}");
    assert!(refused.to_string().contains(&second));
    assert!(erase(&bed, "flow", &second).await.is_err());
    for (workflow_id, run_id) in [("none", ""), ("none", &first), ("flow", &uuid())] {
        let refused = erase(&bed, workflow_id, run_id).await;
        let is_not_found = matches!(refused, Err(RuntimeError::Engine(EngineError::NotFound(_))));
        assert!(is_not_found, "{workflow_id} {run_id}");
    }
    assert_eq!(notes(&bed).await, Vec::<String>::new());
    // The closed one can be erased by itself.
    let erased = erase(&bed, "flow", &first).await.expect("erased");
    assert_eq!(erased.run_ids, [first]);
    bed.answer([complete()]).await;
    let mut rest = erase(&bed, "flow", "").await.expect("erased");
    assert_eq!(rest.run_ids, [second]);
    assert_eq!(rest.before.pop().map(|_| rest.before.len()), Some(0));
    assert_eq!(check(&bed).await.differences, Vec::<String>::new());
}

fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_no_log_erases_nothing() {
    let bed = Bed::open(Settings {
        evidence: false,
        ..settings()
    })
    .await;
    closed(&bed, "flow").await;
    let refused = erase(&bed, "flow", "").await.expect_err("no log");
    assert!(is_precondition(&refused), "{refused}");
    assert!(says(&bed.history("flow", "").await, SECRET));
}

/// A run from before there was evidence has no salts and no entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_older_than_the_log_is_erased_too() {
    let bed = Bed::open(Settings {
        evidence: false,
        ..settings()
    })
    .await;
    closed(&bed, "old").await;
    bed.start(start("older")).await;
    let store = bed.stop().await;
    let bed = Bed::reopen(store, settings()).await;
    bed.answer([complete()]).await;
    for workflow_id in ["old", "older"] {
        erase(&bed, workflow_id, "").await.expect("erased");
        assert!(!says(&bed.history(workflow_id, "").await, SECRET));
    }
    let findings = check(&bed).await;
    assert_eq!((findings.differences, findings.erased), (vec![], 2));
}

/// The row is durable, and the process dies before anything is projected.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_finishes_what_a_crash_interrupted() {
    let slow = Settings {
        projection_interval: Duration::from_secs(3600),
        ..settings()
    };
    for is_projected in [false, true] {
        let bed = Bed::open(slow.clone()).await;
        let run_id = closed(&bed, "flow").await;
        let whole = bed.history("flow", "").await;
        if is_projected {
            bed.runtime.project_all().await.expect("projected");
        }
        let (key, current) = (bed.key("flow"), Some(run_id.clone()));
        let decided =
            bed.runtime
                .decide_erasure(&bed.permit, &key, &run_id, false, &current, "GDPR-17");
        assert!(matches!(decided.await, Ok(Outcome::Decided)));
        // Nobody gets to the payloads any more, though they are there.
        let refused = bed
            .runtime
            .inspect(&key, "", |workflow| {
                workflow.whole_live("").map(|live| live.run.state.n)
            })
            .await;
        assert!(is_precondition(&refused.expect_err("marked")));
        let store = bed.store.clone();
        drop(bed);
        let bed = Bed::reopen(store, slow.clone()).await;
        let events = bed.history("flow", "").await;
        assert_eq!(types(&events), types(&whole));
        assert!(!says(&events, SECRET));
        assert_eq!(notes(&bed).await, [run_id.as_str()]);
        let findings = check(&bed).await;
        assert_eq!((findings.differences, findings.erased), (vec![], 1));
        assert_eq!(
            bed.store.record_page(&run_ref(&key, &run_id), 1).await,
            Ok(None)
        );
        let again = erase(&bed, "flow", "").await.expect("erased");
        assert_eq!(again.before, [run_id]);
    }
}

/// Another decision for the same workflow fails half-way: memory is made again, and the mark with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_survives_memory_that_is_made_again() {
    let slow = Settings {
        projection_interval: Duration::from_secs(3600),
        ..settings()
    };
    let bed = Bed::open(slow).await;
    let run_id = closed(&bed, "flow").await;
    let (key, current) = (bed.key("flow"), Some(run_id.clone()));
    let decided =
        bed.runtime
            .decide_erasure(&bed.permit, &key, &run_id, false, &current, "GDPR-17");
    assert!(matches!(decided.await, Ok(Outcome::Decided)));
    let failed = bed
        .runtime
        .transact(&bed.permit, &key, "", |workflow, _| {
            workflow.deleted.push("something".to_owned());
            Err::<(), _>(RuntimeError::invalid("no"))
        })
        .await;
    assert!(failed.is_err());
    bed.runtime.project_all().await.expect("projected");
    assert!(!says(&bed.history("flow", "").await, SECRET));
    assert_eq!(check(&bed).await.differences, Vec::<String>::new());
}

/// What somebody did behind the server's back.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_tells_erased_from_removed() {
    type Change = fn(&mut ErasedRun);
    let changes: [(&str, bool, Change); 5] = [
        ("it is erased, and the log does not say so", false, |_| {}),
        ("event 3 does not give the hash", true, |left| {
            let last = left.history[0].events[2].last_mut();
            *last.expect("a byte") ^= 1;
        }),
        ("is missing", true, |left| {
            left.history[0].events.pop();
        }),
        ("event 1 is not erased", true, |left| {
            left.history[0].events[0] = b"\x08\x01".to_vec();
        }),
        ("does not hold the hash of its last entry", true, |left| {
            let mut state = state(left);
            state.entry_hash = vec![0; 32].into();
            left.snapshot = Some(state.encode_to_vec());
        }),
    ];
    for (expected, is_noted, change) in changes {
        let bed = Bed::open(settings()).await;
        let run_id = closed(&bed, "flow").await;
        let key = bed.key("flow");
        bed.runtime.projected().await.expect("projected");
        let left = bed.runtime.erased_run(&key, &run_id).await;
        let mut left = left.expect("can be erased").expect("is whole");
        if is_noted {
            erase(&bed, "flow", "").await.expect("erased");
        }
        change(&mut left);
        put(&bed, left).await;
        let differences = check(&bed).await.differences;
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(differences[0].contains(expected), "{differences:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_finds_a_run_that_was_to_be_erased() {
    let bed = Bed::open(settings()).await;
    let run_id = closed(&bed, "flow").await;
    let key = bed.key("flow");
    bed.runtime.projected().await.expect("projected");
    let stored = bed.store.load_run(&run_ref(&key, &run_id)).await;
    let snapshot = stored.expect("a read").expect("a run").snapshot;
    let read = bed
        .store
        .read_history(&key.namespace_id, &run_id, 1, i64::MAX, usize::MAX);
    let events = read.await.expect("a history").into_iter();
    let whole = ErasedRun {
        run: run_ref(&key, &run_id),
        snapshot: Some(snapshot),
        history: vec![HistoryPage {
            first_event_id: 1,
            events: events.map(|(_, bytes)| bytes).collect(),
        }],
        visibility: None,
    };
    erase(&bed, "flow", "").await.expect("erased");
    put(&bed, whole).await;
    let differences = check(&bed).await.differences;
    assert!(differences[0].contains("the log says that it is erased, and it is not"));
}

fn state(left: &ErasedRun) -> RunState {
    let snapshot = left.snapshot.as_ref().expect("a state");
    RunState::decode(snapshot.as_slice()).expect("a state")
}

async fn put(bed: &Bed, left: ErasedRun) {
    let batch = ProjectionBatch {
        position: bed.store.projected_position().await.expect("a position"),
        erased: vec![left],
        ..ProjectionBatch::default()
    };
    bed.store.project(batch).await.expect("projected");
}
