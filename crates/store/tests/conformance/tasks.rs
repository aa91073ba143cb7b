//! The index of waiting tasks.

use steadfast_store::PendingTask;

use super::{Fixture, NAMESPACE, OTHER_NAMESPACE, project, projection, run_ref};

fn task(kind: i32, task_queue: &str, count: u32, since: i64) -> PendingTask {
    PendingTask {
        kind,
        task_queue: task_queue.to_owned(),
        count,
        since,
    }
}

pub async fn waiting_runs_are_in_order(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let waiting = |number, tasks| {
        let mut run = projection(number);
        run.pending_tasks = tasks;
        run
    };
    let runs = vec![
        waiting(1, vec![task(1, "queue", 1, 30)]),
        waiting(2, vec![task(1, "queue", 1, 10), task(2, "queue", 3, 5)]),
        waiting(3, vec![task(1, "other", 1, 1)]),
        waiting(4, Vec::new()),
        waiting(5, vec![task(1, "queue", 2, 20)]),
    ];
    project(&*store, runs).await;
    let runs = async |kind, queue, limit| {
        let runs = store
            .runs_with_pending_tasks(NAMESPACE, kind, queue, limit)
            .await;
        runs.expect("runs")
    };
    assert_eq!(
        runs(1, "queue", 10).await,
        [run_ref(2), run_ref(5), run_ref(1)]
    );
    assert_eq!(runs(1, "queue", 2).await, [run_ref(2), run_ref(5)]);
    assert_eq!(runs(2, "queue", 10).await, [run_ref(2)]);
    assert_eq!(runs(1, "other", 10).await, [run_ref(3)]);
    assert_eq!(runs(2, "other", 10).await, []);
    assert_eq!(runs(1, "unknown", 10).await, []);
}

pub async fn queues_add_up(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    assert_eq!(store.pending_queues().await, Ok(Vec::new()));
    let mut first = projection(1);
    first.pending_tasks = vec![task(1, "a", 1, 30), task(2, "a", 4, 25), task(2, "b", 1, 3)];
    let mut second = projection(2);
    second.pending_tasks = vec![task(2, "a", 2, 20)];
    let mut elsewhere = projection(3);
    elsewhere.run.namespace_id = OTHER_NAMESPACE.to_owned();
    elsewhere.pending_tasks = vec![task(2, "a", 7, 1)];
    project(&*store, vec![first, second, elsewhere]).await;
    let mut queues = store.pending_queues().await.expect("queues");
    queues.sort();
    let queue = |namespace: &str, kind, queue: &str, tasks, oldest| {
        (namespace.to_owned(), kind, queue.to_owned(), tasks, oldest)
    };
    assert_eq!(
        queues,
        [
            queue(NAMESPACE, 1, "a", 1, 30),
            queue(NAMESPACE, 2, "a", 6, 20),
            queue(NAMESPACE, 2, "b", 1, 3),
            queue(OTHER_NAMESPACE, 2, "a", 7, 1),
        ]
    );
}

pub async fn a_projection_replaces_what_waited(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let mut run = projection(1);
    for (tasks, expected) in [
        (vec![task(1, "a", 1, 10)], vec![(1, "a", 1)]),
        (
            vec![task(1, "a", 2, 12), task(2, "b", 1, 11)],
            vec![(1, "a", 2), (2, "b", 1)],
        ),
        (vec![task(2, "b", 1, 11)], vec![(2, "b", 1)]),
        (Vec::new(), Vec::new()),
        (vec![task(1, "a", 1, 20)], vec![(1, "a", 1)]),
    ] {
        run.pending_tasks = tasks;
        project(&*store, vec![run.clone()]).await;
        let mut queues = store.pending_queues().await.expect("queues");
        queues.sort();
        let queues: Vec<_> = queues
            .iter()
            .map(|(_, kind, queue, tasks, _)| (*kind, queue.as_str(), *tasks))
            .collect();
        assert_eq!(queues, expected);
    }
}
