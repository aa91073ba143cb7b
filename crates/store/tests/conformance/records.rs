//! Small records.

use super::Fixture;

fn record(key: &str, value: &[u8]) -> (String, Vec<u8>) {
    (key.to_owned(), value.to_vec())
}

pub async fn records_are_put_listed_and_deleted(fixture: &dyn Fixture) {
    let store = fixture.open().expect("a store");
    assert_eq!(store.records("color").await, Ok(Vec::new()));
    for (kind, key, value) in [
        ("color", "red", &b"1"[..]),
        ("color", "blue", b"2"),
        ("size", "red", b"3"),
        ("color", "red", b"4"),
        ("color", "empty", b""),
    ] {
        store
            .put_record(kind, key, value.to_vec())
            .await
            .expect("a record");
    }
    let colors = vec![
        record("blue", b"2"),
        record("empty", b""),
        record("red", b"4"),
    ];
    assert_eq!(store.records("color").await, Ok(colors));
    let red = store.record("color", "red").await;
    assert_eq!(red, Ok(Some(b"4".to_vec())));
    assert_eq!(store.record("size", "blue").await, Ok(None));
    store
        .delete_record("color", "blue")
        .await
        .expect("a deletion");
    store
        .delete_record("color", "unknown")
        .await
        .expect("a deletion of nothing");
    let colors = vec![record("empty", b""), record("red", b"4")];
    assert_eq!(store.records("color").await, Ok(colors));
    assert_eq!(store.records("size").await, Ok(vec![record("red", b"3")]));
}

pub async fn records_survive_reopening(fixture: &dyn Fixture) {
    if !fixture.is_durable() {
        return;
    }
    let store = fixture.open().expect("a store");
    store
        .put_record("color", "red", b"1".to_vec())
        .await
        .expect("a record");
    drop(store);
    let store = fixture.open().expect("the store again");
    assert_eq!(store.records("color").await, Ok(vec![record("red", b"1")]));
}
