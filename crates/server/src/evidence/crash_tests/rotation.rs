//! A rotation of the key, with a fault at each of its places.

use steadfast_ledger::proof::TlogProof;

use super::Fault;
use super::life::{NAMESPACE, Task, World, at_every_place, changes, verifiers};
use crate::evidence::keys;

const ROTATE: Task = Task {
    rounds: 1,
    rotate: true,
};

/// It was finished, once, and leads from the old key to the new one.
fn is_finished(world: &World, context: &str) {
    assert!(world.is_rotated(), "{context}");
    assert!(!keys::is_rotating(&world.key()), "{context}");
    let log = world.newest();
    let [old, new] = verifiers();
    assert_eq!(log.key, new, "{context}");
    let [rotation] = &log.rotations[..] else {
        panic!("{context}: {} rotations", log.rotations.len());
    };
    let proof = TlogProof::parse(&rotation.proof).expect("a proof");
    let led_to = steadfast_ledger::rotation::verify(&proof, &old);
    assert_eq!(led_to.as_ref(), Ok(&new), "{context}");
    let namespace = log.namespace_id.clone();
    let executor = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("an executor");
    let entries = executor.block_on(async {
        let size = usize::try_from(log.head.size).expect("a small log");
        let entries = world.store.log_entries(&namespace, 0, size, usize::MAX);
        entries.await.expect("entries")
    });
    assert_eq!(changes(&entries), [format!("{old} -> {new}")], "{context}");
    assert!(log.origin.ends_with(NAMESPACE), "{context}");
}

#[test]
fn a_process_that_dies_anywhere_rotates_once() {
    let places = at_every_place(Fault::Death, ROTATE, is_finished);
    assert!(places > 45, "there are {places} places");
}

#[test]
fn a_write_that_fails_anywhere_does_not_keep_it_from_rotating_once() {
    let places = at_every_place(Fault::Failure, ROTATE, is_finished);
    assert!(places > 45, "there are {places} places");
}
