//! History pages and the branches that share them.

use super::{Fixture, NAMESPACE, delete, page, project, projection, run_id, run_ref};

fn events(range: std::ops::RangeInclusive<i64>) -> Vec<(i64, Vec<u8>)> {
    range
        .map(|id| (id, format!("event {id}").into_bytes()))
        .collect()
}

fn reversed(mut events: Vec<(i64, Vec<u8>)>) -> Vec<(i64, Vec<u8>)> {
    events.reverse();
    events
}

fn event_page(range: std::ops::RangeInclusive<i64>) -> steadfast_store::HistoryPage {
    steadfast_store::HistoryPage {
        first_event_id: *range.start(),
        events: events(range).into_iter().map(|(_, event)| event).collect(),
    }
}

pub async fn events_are_read_in_both_directions(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let mut run = projection(1);
    run.history = vec![event_page(1..=4), event_page(5..=5)];
    project(&*store, vec![run.clone(), projection(2)]).await;
    run.history = vec![event_page(6..=20)];
    project(&*store, vec![run]).await;
    let everything = usize::MAX;
    for (first, last) in [
        (1, 20),
        (1, 4),
        (2, 3),
        (3, 8),
        (5, 5),
        (6, 19),
        (20, 20),
        (1, 1),
    ] {
        let expected = events(first..=last);
        let read = store
            .read_history(NAMESPACE, &run_id(1), first, last, everything)
            .await;
        assert_eq!(read, Ok(expected.clone()), "{first} to {last}");
        let read = store
            .read_history_reverse(NAMESPACE, &run_id(1), first, last, everything)
            .await;
        assert_eq!(read, Ok(reversed(expected)), "{last} back to {first}");
    }
    for (first, last, expected) in [
        (15, 99, events(15..=20)),
        (21, 99, Vec::new()),
        (8, 7, Vec::new()),
        (-3, 2, events(1..=2)),
        (i64::MIN, i64::MAX, events(1..=20)),
    ] {
        let read = store
            .read_history(NAMESPACE, &run_id(1), first, last, everything)
            .await;
        assert_eq!(read, Ok(expected.clone()), "{first} to {last}");
        let read = store
            .read_history_reverse(NAMESPACE, &run_id(1), first, last, everything)
            .await;
        assert_eq!(read, Ok(reversed(expected)), "{last} back to {first}");
    }
    for run in [run_id(2), run_id(3), String::new()] {
        let read = store.read_history(NAMESPACE, &run, 1, 20, everything).await;
        assert_eq!(read, Ok(Vec::new()));
    }
}

pub async fn reads_stop_at_the_limit_of_bytes(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let mut run = projection(1);
    run.history = vec![
        page(1, &["12345", "12345", "12345"]),
        page(4, &["123", "1"]),
    ];
    project(&*store, vec![run]).await;
    for (max_bytes, forward, backward) in [
        (0, vec![1], vec![5]),
        (5, vec![1], vec![5, 4]),
        (9, vec![1], vec![5, 4, 3]),
        (10, vec![1, 2], vec![5, 4, 3]),
        (18, vec![1, 2, 3, 4], vec![5, 4, 3, 2]),
        (19, vec![1, 2, 3, 4, 5], vec![5, 4, 3, 2, 1]),
    ] {
        let ids = |events: Vec<(i64, Vec<u8>)>| events.iter().map(|it| it.0).collect::<Vec<_>>();
        let read = store
            .read_history(NAMESPACE, &run_id(1), 1, 5, max_bytes)
            .await;
        assert_eq!(read.map(ids), Ok(forward), "{max_bytes} bytes");
        let read = store
            .read_history_reverse(NAMESPACE, &run_id(1), 1, 5, max_bytes)
            .await;
        assert_eq!(read.map(ids), Ok(backward), "{max_bytes} bytes");
    }
}

pub async fn big_pages_are_read_in_part(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let big = |id: i64| vec![id as u8; 90_000 + id as usize];
    let mut run = projection(1);
    run.history = vec![steadfast_store::HistoryPage {
        first_event_id: 1,
        events: (1..=30).map(big).collect(),
    }];
    project(&*store, vec![run]).await;
    let expected: Vec<_> = (11..=13).map(|id| (id, big(id))).collect();
    let read = store
        .read_history(NAMESPACE, &run_id(1), 11, 30, 280_000)
        .await;
    assert_eq!(read, Ok(expected.clone()));
    let read = store
        .read_history_reverse(NAMESPACE, &run_id(1), 1, 13, 280_000)
        .await;
    assert_eq!(read, Ok(reversed(expected)));
    let read = store
        .read_history(NAMESPACE, &run_id(1), 1, 30, usize::MAX)
        .await;
    let read = read.expect("all events");
    assert!(read.into_iter().eq((1..=30).map(|id| (id, big(id)))));
}

pub async fn shared_history_outlives_its_run(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let mut original = projection(1);
    original.history = vec![event_page(1..=9)];
    let mut reset = projection(2);
    reset.history = vec![event_page(6..=7)];
    reset.history_parents = vec![run_id(1)];
    // The one that refers comes first: a batch has no order.
    project(&*store, vec![reset, original]).await;
    delete(&*store, vec![run_ref(1)]).await;
    assert_eq!(store.load_run(&run_ref(1)).await, Ok(None));
    assert_eq!(
        store.runs_of_namespace(NAMESPACE, 10).await,
        Ok(vec![run_ref(2)])
    );
    let read = store
        .read_history(NAMESPACE, &run_id(1), 1, 5, usize::MAX)
        .await;
    assert_eq!(read, Ok(events(1..=5)));
    delete(&*store, vec![run_ref(2)]).await;
    for run in [1, 2] {
        let read = store
            .read_history(NAMESPACE, &run_id(run), 1, 9, usize::MAX)
            .await;
        assert_eq!(read, Ok(Vec::new()));
    }
}

pub async fn shared_history_of_a_chain_goes_with_its_last_user(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let based_on = |number, parents: &[u32]| {
        let mut run = projection(number);
        run.history = vec![event_page(1..=2)];
        run.history_parents = parents.iter().map(|it| run_id(*it)).collect();
        run
    };
    let has_history = async |number| {
        let read = store
            .read_history(NAMESPACE, &run_id(number), 1, 9, usize::MAX)
            .await;
        !read.expect("a read").is_empty()
    };
    project(&*store, vec![based_on(1, &[])]).await;
    project(&*store, vec![based_on(2, &[1])]).await;
    project(&*store, vec![based_on(3, &[2]), based_on(4, &[1, 2])]).await;
    // A run that is not stored has nothing to keep.
    project(&*store, vec![based_on(5, &[99])]).await;
    delete(&*store, vec![run_ref(1), run_ref(2), run_ref(4)]).await;
    assert!(has_history(1).await, "2 begins with it, and 3 with 2");
    assert!(has_history(2).await, "3 begins with it");
    assert!(!has_history(4).await);
    delete(&*store, vec![run_ref(3)]).await;
    for number in [1, 2, 3] {
        assert!(!has_history(number).await, "{number}");
    }
    assert!(has_history(5).await);
}
