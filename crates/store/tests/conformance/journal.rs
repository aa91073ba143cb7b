//! The journal.

use steadfast_store::{ProjectionBatch, StoreError};

use super::{Fixture, rows};

pub async fn appended_rows_are_read_back(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    assert_eq!(store.journal_head().await, Ok(0));
    assert_eq!(store.journal_rows(0, 10).await, Ok(Vec::new()));
    store.append(&rows(1..=3)).await.expect("an append");
    store.append(&rows(4..=10)).await.expect("an append");
    assert_eq!(store.journal_head().await, Ok(10));
    assert_eq!(store.journal_rows(0, 100).await, Ok(rows(1..=10)));
    assert_eq!(store.journal_rows(3, 4).await, Ok(rows(4..=7)));
    assert_eq!(store.journal_rows(10, 4).await, Ok(Vec::new()));
}

pub async fn gaps_and_repeats_are_conflicts(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    let conflict = |expected, found| Err(StoreError::Conflict { expected, found });
    assert_eq!(store.append(&rows(2..=3)).await, conflict(1, 2));
    store.append(&rows(1..=3)).await.expect("an append");
    assert_eq!(store.append(&rows(3..=4)).await, conflict(4, 3));
    assert_eq!(store.append(&rows(5..=6)).await, conflict(4, 5));
    let mut gap = rows(4..=6);
    gap.remove(1);
    assert_eq!(store.append(&gap).await, conflict(5, 6));
    assert_eq!(store.journal_head().await, Ok(3));
    assert_eq!(store.journal_rows(0, 10).await, Ok(rows(1..=3)));
    store.append(&rows(4..=6)).await.expect("an append");
}

pub async fn nothing_appended_is_nothing_written(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    store.append(&[]).await.expect("an append of nothing");
    assert_eq!(store.journal_head().await, Ok(0));
}

pub async fn head_and_rows_survive_reopening(fixture: &dyn Fixture) {
    if !fixture.is_durable() {
        return;
    }
    let store = fixture.open().expect("a store");
    store.append(&rows(1..=5)).await.expect("an append");
    drop(store);
    let store = fixture.open().expect("the store again");
    assert_eq!(store.journal_head().await, Ok(5));
    assert_eq!(store.journal_rows(0, 10).await, Ok(rows(1..=5)));
    let all = ProjectionBatch {
        position: 5,
        ..ProjectionBatch::default()
    };
    store.project(all).await.expect("a projection");
    store.close().await.expect("an orderly end");
    drop(store);
    // Everything may have been trimmed by now; the numbers go on.
    let store = fixture.open().expect("the store again");
    assert_eq!(store.journal_head().await, Ok(5));
    assert_eq!(store.projected_position().await, Ok(5));
    store.append(&rows(6..=7)).await.expect("an append");
    assert_eq!(store.journal_rows(5, 10).await, Ok(rows(6..=7)));
}

pub async fn rows_not_projected_are_kept(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    for group in 0..50 {
        let first = group * 10 + 1;
        store
            .append(&rows(first..=first + 9))
            .await
            .expect("an append");
        let some = ProjectionBatch {
            position: first + 4,
            ..ProjectionBatch::default()
        };
        store.project(some).await.expect("a projection");
    }
    assert_eq!(store.projected_position().await, Ok(495));
    assert_eq!(store.journal_head().await, Ok(500));
    assert_eq!(store.journal_rows(495, 100).await, Ok(rows(496..=500)));
}

pub async fn a_batch_may_not_go_back(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    store.append(&rows(1..=9)).await.expect("an append");
    let at = |position| ProjectionBatch {
        position,
        ..ProjectionBatch::default()
    };
    store.project(at(7)).await.expect("a projection");
    store
        .project(at(7))
        .await
        .expect("a projection of nothing new");
    assert_eq!(
        store.project(at(6)).await,
        Err(StoreError::Conflict {
            expected: 7,
            found: 6
        })
    );
    assert_eq!(store.projected_position().await, Ok(7));
}
