//! Runs: snapshots, due times, which one is current, deletion.

use steadfast_store::filter::Filter;
use steadfast_store::{PendingTask, ProjectionBatch, RunRef, Store, StoredRun, Time};

use super::{
    Fixture, NAMESPACE, OTHER_NAMESPACE, delete, page, project, projection, rows, run_id, run_ref,
    visibility_row,
};

pub async fn snapshots_are_replaced(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    assert_eq!(store.load_run(&run_ref(1)).await, Ok(None));
    project(&*store, vec![projection(1), projection(2)]).await;
    let mut changed = projection(1);
    changed.snapshot = b"later".to_vec();
    changed.seq = 17;
    project(&*store, vec![changed]).await;
    assert_eq!(
        store.load_run(&run_ref(1)).await,
        Ok(Some(StoredRun {
            snapshot: b"later".to_vec(),
            seq: 17
        }))
    );
    assert_eq!(
        store.load_run(&run_ref(2)).await,
        Ok(Some(StoredRun {
            snapshot: b"snapshot 2".to_vec(),
            seq: 1
        }))
    );
    let of_other_workflow = RunRef {
        workflow_id: "workflow-2".to_owned(),
        ..run_ref(1)
    };
    assert_eq!(store.load_run(&of_other_workflow).await, Ok(None));
}

pub async fn a_batch_is_all_or_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    store.append(&rows(1..=9)).await.expect("an append");
    let mut first = projection(1);
    first.history = vec![page(1, &["a", "b"])];
    project(&*store, vec![first]).await;
    let mut new = projection(2);
    new.run.namespace_id = "a namespace seen first in the batch that fails".to_owned();
    let mut repeats_a_page = projection(1);
    repeats_a_page.snapshot = b"later".to_vec();
    repeats_a_page.history = vec![page(1, &["x"])];
    let batch = ProjectionBatch {
        position: 5,
        runs: vec![new.clone(), repeats_a_page],
        current_runs: vec![(
            NAMESPACE.to_owned(),
            "workflow-1".to_owned(),
            Some(run_id(1)),
        )],
        deleted: Vec::new(),
        ..ProjectionBatch::default()
    };
    store
        .project(batch)
        .await
        .expect_err("pages are never rewritten");
    assert_eq!(store.projected_position().await, Ok(0));
    assert_eq!(store.load_run(&new.run).await, Ok(None));
    assert_eq!(store.current_run(NAMESPACE, "workflow-1").await, Ok(None));
    let snapshot = store.load_run(&run_ref(1)).await.expect("a snapshot");
    assert_eq!(snapshot.map(|it| it.snapshot), Some(b"snapshot 1".to_vec()));
    // The same namespace works once the batch is right.
    let batch = ProjectionBatch {
        position: 5,
        runs: vec![new.clone()],
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("a projection");
    let runs = store.runs_of_namespace(&new.run.namespace_id, 10).await;
    assert_eq!(runs, Ok(vec![new.run]));
    assert_eq!(store.projected_position().await, Ok(5));
}

pub async fn current_run_follows_the_last_batch(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let current =
        |run_id: Option<String>| vec![(NAMESPACE.to_owned(), "workflow-1".to_owned(), run_id)];
    let mut second = projection(2);
    second.run.workflow_id = "workflow-1".to_owned();
    let steps = [
        (
            vec![projection(1)],
            current(Some(run_id(1))),
            Some(run_id(1)),
        ),
        (vec![projection(3)], Vec::new(), Some(run_id(1))),
        (
            vec![second.clone()],
            current(Some(run_id(2))),
            Some(run_id(2)),
        ),
        (vec![projection(1)], Vec::new(), Some(run_id(2))),
        (
            vec![projection(1)],
            current(Some(run_id(1))),
            Some(run_id(1)),
        ),
        (Vec::new(), current(None), None),
        (Vec::new(), current(Some(run_id(2))), Some(run_id(2))),
    ];
    for (runs, current_runs, expected) in steps {
        let batch = ProjectionBatch {
            runs,
            current_runs,
            ..ProjectionBatch::default()
        };
        store.project(batch).await.expect("a projection");
        assert_eq!(
            store.current_run(NAMESPACE, "workflow-1").await,
            Ok(expected)
        );
    }
    assert_eq!(store.current_run(NAMESPACE, "workflow-3").await, Ok(None));
    delete(&*store, vec![second.run]).await;
    assert_eq!(store.current_run(NAMESPACE, "workflow-1").await, Ok(None));
}

pub async fn due_runs_are_in_order(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let due = |number, wake_at| {
        let mut run = projection(number);
        run.wake_at = wake_at;
        run
    };
    let runs = vec![
        due(1, Some(300)),
        due(2, Some(100)),
        due(3, None),
        due(4, Some(200)),
        due(5, Some(-5)),
    ];
    project(&*store, runs).await;
    assert_eq!(
        due_runs(&*store, 200, 10).await,
        vec![(-5, run_ref(5)), (100, run_ref(2)), (200, run_ref(4))]
    );
    assert_eq!(due_runs(&*store, 1000, 1).await, vec![(-5, run_ref(5))]);
    assert_eq!(store.next_wake(100).await, Ok(Some(200)));
    assert_eq!(store.next_wake(300).await, Ok(None));
    project(
        &*store,
        vec![due(2, None), due(5, Some(400)), due(3, Some(150))],
    )
    .await;
    assert_eq!(
        due_runs(&*store, 1000, 10).await,
        vec![
            (150, run_ref(3)),
            (200, run_ref(4)),
            (300, run_ref(1)),
            (400, run_ref(5))
        ]
    );
    assert_eq!(store.next_wake(i64::MIN).await, Ok(Some(150)));
}

async fn due_runs(store: &dyn Store, before: Time, limit: usize) -> Vec<(Time, RunRef)> {
    let due = store.due_runs(None, before, limit).await.expect("runs");
    due.into_iter()
        .map(|(place, run)| (place.at, run))
        .collect()
}

pub async fn due_runs_come_in_batches(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    // Several are due at the same time.
    let due = |number: u32| {
        let mut run = projection(number);
        run.wake_at = Some(100 + i64::from(number / 4));
        run
    };
    project(&*store, (1..=10).map(due).collect()).await;
    let mut after = None;
    let mut runs = Vec::new();
    loop {
        let batch = store.due_runs(after, 1000, 3).await.expect("a batch");
        runs.extend(batch.iter().map(|(_, run)| run.clone()));
        match batch.last() {
            Some((place, _)) => after = Some(*place),
            None => break,
        }
    }
    let expected: Vec<RunRef> = (1..=10).map(run_ref).collect();
    assert_eq!(runs, expected);
}

pub async fn expired_runs_are_in_order(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let closed = |number, delete_at| {
        let mut run = projection(number);
        run.delete_at = delete_at;
        run
    };
    project(
        &*store,
        vec![
            closed(1, Some(20)),
            closed(2, Some(10)),
            closed(3, None),
            closed(4, Some(30)),
        ],
    )
    .await;
    let expected = Ok(vec![run_ref(2), run_ref(1)]);
    assert_eq!(store.expired_runs(20, 10).await, expected);
    assert_eq!(store.expired_runs(99, 1).await, Ok(vec![run_ref(2)]));
    delete(&*store, vec![run_ref(2)]).await;
    assert_eq!(store.expired_runs(20, 10).await, Ok(vec![run_ref(1)]));
}

pub async fn deleted_runs_leave_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let mut whole = projection(1);
    whole.wake_at = Some(1);
    whole.delete_at = Some(1);
    whole.history = vec![page(1, &["a"])];
    whole.visibility = Some(visibility_row(1));
    whole.pending_tasks = vec![PendingTask {
        kind: 1,
        task_queue: "queue".to_owned(),
        count: 1,
        since: 1,
    }];
    let position = 0;
    let batch = ProjectionBatch {
        position,
        runs: vec![whole.clone(), projection(2)],
        current_runs: vec![(
            NAMESPACE.to_owned(),
            "workflow-1".to_owned(),
            Some(run_id(1)),
        )],
        deleted: Vec::new(),
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("a projection");
    let all = store.runs_of_namespace(NAMESPACE, 10).await;
    assert_eq!(all, Ok(vec![run_ref(1), run_ref(2)]));
    delete(&*store, vec![run_ref(1), run_ref(99)]).await;
    assert_eq!(store.load_run(&run_ref(1)).await, Ok(None));
    assert_eq!(store.current_run(NAMESPACE, "workflow-1").await, Ok(None));
    assert_eq!(store.due_runs(None, 10, 10).await, Ok(Vec::new()));
    assert_eq!(store.expired_runs(10, 10).await, Ok(Vec::new()));
    assert_eq!(store.pending_queues().await, Ok(Vec::new()));
    let history = store.read_history(NAMESPACE, &run_id(1), 1, 10, 100).await;
    assert_eq!(history, Ok(Vec::new()));
    let count = store.count_visibility(NAMESPACE, Filter::default()).await;
    assert_eq!(count.map(|it| it.total), Ok(0));
    let left = store.runs_of_namespace(NAMESPACE, 10).await;
    assert_eq!(left, Ok(vec![run_ref(2)]));
    // The same run may be written anew.
    project(&*store, vec![whole]).await;
    let history = store.read_history(NAMESPACE, &run_id(1), 1, 10, 100).await;
    assert_eq!(history, Ok(vec![(1, b"a".to_vec())]));
}

pub async fn namespaces_do_not_mix(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let mut here = projection(1);
    here.history = vec![page(1, &["here"])];
    let mut there = projection(1);
    there.run.namespace_id = OTHER_NAMESPACE.to_owned();
    there.snapshot = b"there".to_vec();
    project(&*store, vec![here.clone(), there.clone()]).await;
    let snapshot = |it: Option<StoredRun>| it.map(|run| run.snapshot);
    let found = store.load_run(&there.run).await.expect("a run");
    assert_eq!(snapshot(found), Some(b"there".to_vec()));
    let found = store.load_run(&here.run).await.expect("a run");
    assert_eq!(snapshot(found), Some(b"snapshot 1".to_vec()));
    let history = store
        .read_history(OTHER_NAMESPACE, &run_id(1), 1, 10, 100)
        .await;
    assert_eq!(history, Ok(Vec::new()));
    let runs = store.runs_of_namespace(OTHER_NAMESPACE, 10).await;
    assert_eq!(runs, Ok(vec![there.run.clone()]));
    assert_eq!(
        store.runs_of_namespace("never heard of", 10).await,
        Ok(Vec::new())
    );
    assert_eq!(
        store.current_run("never heard of", "workflow-1").await,
        Ok(None)
    );
    delete(&*store, vec![there.run]).await;
    assert!(store.load_run(&here.run).await.expect("a run").is_some());
}

pub async fn projections_survive_reopening(fixture: &dyn Fixture) {
    if !fixture.is_durable() {
        return;
    }
    let store = fixture.open().expect("a store");
    store.append(&rows(1..=3)).await.expect("an append");
    let mut run = projection(1);
    run.history = vec![page(1, &["a"])];
    run.visibility = Some(visibility_row(1));
    let batch = ProjectionBatch {
        position: 3,
        runs: vec![run],
        ..ProjectionBatch::default()
    };
    store.project(batch).await.expect("a projection");
    drop(store);
    let store = fixture.open().expect("the store again");
    assert_eq!(store.projected_position().await, Ok(3));
    assert!(store.load_run(&run_ref(1)).await.expect("a run").is_some());
    let history = store.read_history(NAMESPACE, &run_id(1), 1, 10, 100).await;
    assert_eq!(history, Ok(vec![(1, b"a".to_vec())]));
    let count = store.count_visibility(NAMESPACE, Filter::default()).await;
    assert_eq!(count.map(|it| it.total), Ok(1));
}
