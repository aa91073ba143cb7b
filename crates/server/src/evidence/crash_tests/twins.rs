//! Two servers on copies of one store, which share the anchor and the key: whatever they do, and in
//! whatever order, a log has one history.

use std::path::Path;
use std::sync::Arc;

use steadfast_ledger::entry::Note;
use steadfast_runtime::namespaces::Namespace;
use steadfast_runtime::{Permit, Runtime};
use steadfast_store::Store;
use steadfast_store::sqlite::{SqliteOptions, SqliteStore};

use super::life::{BASE, NAMESPACE, settings};
use crate::evidence::anchor::{Anchor, AnchorError};
use crate::evidence::keys::{self, Keys};
use crate::evidence::publisher::{PublishError, PublishedLog, Publisher};
use crate::evidence::reader::root_at;

const FILES: [&str; 2] = ["steadfast.db", "steadfast.journal.db"];

/// One of the two.
struct Twin {
    store: Arc<dyn Store>,
    runtime: Runtime,
    /// None once it has found that it is not alone.
    publisher: Option<Publisher>,
}

fn store(folder: &Path) -> Arc<dyn Store> {
    let path = folder.join(FILES[0]);
    Arc::new(SqliteStore::open(&path, SqliteOptions::default()).expect("a store"))
}

impl Twin {
    async fn open(folder: &Path, shared: &Path) -> Self {
        let store = store(folder);
        let runtime = Runtime::open(store.clone(), settings()).await;
        let runtime = runtime.expect("opens");
        if runtime.namespaces().by_name(NAMESPACE).is_err() {
            let permit = Permit::internal("configuration");
            let registered = runtime.register_namespace(&permit, Namespace::new(NAMESPACE));
            registered.await.expect("registered");
        }
        let mut twin = Self {
            store,
            runtime,
            publisher: None,
        };
        twin.reopen(shared).await;
        twin
    }

    async fn reopen(&mut self, shared: &Path) {
        let keys = Keys::open(&shared.join("key"), BASE, [1; 32]).expect("a key");
        let anchor = Anchor::File(shared.join("anchor"));
        let publisher = Publisher::open(self.runtime.clone(), anchor, keys, BASE.into()).await;
        self.publisher = Some(publisher.expect("opens"));
    }

    fn id(&self) -> String {
        let namespace = self.runtime.namespaces().by_name(NAMESPACE);
        namespace.expect("there").id.clone()
    }

    async fn write(&self, what: &'static str) {
        let note = Note {
            what: what.into(),
            ..Note::default()
        };
        let permit = Permit::internal("test");
        let noted = self.runtime.note(&permit, &self.id(), note).await;
        noted.expect("is noted");
    }

    /// Signs, and gives what is to be seen then.
    async fn publish(&mut self) -> Option<PublishedLog> {
        self.runtime.log_size(&self.id()).await.expect("projected");
        let publisher = self.publisher.as_mut()?;
        match publisher.work().await {
            Ok(()) => {}
            Err(PublishError::Anchor(AnchorError::Moved { .. })) => {
                let seen = publisher.logs().get(NAMESPACE);
                self.publisher = None;
                return seen;
            }
            Err(error) => panic!("{error}"),
        }
        publisher.logs().get(NAMESPACE)
    }
}

/// Two checkpoints of one log are of one history.
async fn agree(twins: &[Twin; 2], one: &(usize, PublishedLog), other: &(usize, PublishedLog)) {
    if one.1.origin != other.1.origin {
        return;
    }
    let (small, large) = match one.1.head.size <= other.1.head.size {
        true => (one, other),
        false => (other, one),
    };
    let of = &twins[large.0];
    let root = root_at(&*of.store, &of.id(), small.1.head.size).await;
    assert_eq!(
        root.expect("tiles"),
        Some(small.1.head.root),
        "{} and {} entries of {}",
        small.1.head.size,
        large.1.head.size,
        small.1.origin
    );
}

/// Numbers that look random, the same ones for a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[tokio::test]
async fn twins_cannot_fork_a_log() {
    let mut fenced = 0;
    for seed in 1..=12 {
        let folder = tempfile::tempdir().expect("a directory");
        let shared = folder.path();
        let places = [shared.join("one"), shared.join("other")];
        for place in &places {
            std::fs::create_dir(place).expect("a directory");
        }
        let mut first = Twin::open(&places[0], shared).await;
        first.write("common").await;
        first.publish().await.expect("is signed");
        first.runtime.close().await.expect("closes");
        for name in FILES {
            std::fs::copy(places[0].join(name), places[1].join(name)).expect("copies");
        }
        let mut twins = [
            Twin::open(&places[0], shared).await,
            Twin::open(&places[1], shared).await,
        ];
        let mut seen: Vec<(usize, PublishedLog)> = Vec::new();
        let mut chance = Chance(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        for step in 0..40 {
            let at = usize::from(chance.below(2) == 1);
            let twin = &mut twins[at];
            match chance.below(8) {
                0..3 => twin.write(["one", "other"][at]).await,
                3..7 => {
                    let was_signing = twin.publisher.is_some();
                    let published = twin.publish().await;
                    fenced += usize::from(was_signing && twin.publisher.is_none());
                    seen.extend(published.map(|log| (at, log)));
                }
                _ if step > 20 && chance.below(4) == 0 => {
                    let asked = keys::ask_for_rotation(&shared.join("key"), [9; 32]);
                    asked.expect("is asked for");
                }
                _ => twin.reopen(shared).await,
            }
        }
        for (number, one) in seen.iter().enumerate() {
            for other in &seen[..number] {
                agree(&twins, one, other).await;
            }
        }
        for twin in twins {
            twin.runtime.close().await.expect("closes");
        }
    }
    assert!(fenced > 4, "only {fenced} times did one meet the other");
}
