//! Namespaces: stored as small records, held in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use prost::Message;
use steadfast_engine::Time;
use steadfast_engine::proto::enums::NamespaceState;
use steadfast_engine::time::SECOND;
use steadfast_ledger::entry::Note;
use steadfast_store::Store;
use steadfast_store::filter::AttributeTypes;

use crate::error::{Result, RuntimeError};
use crate::permit::Permit;
use crate::runtime::Runtime;

/// Kind of the stored records.
const KIND: &str = "namespace";

/// Retention where a namespace is made without one.
pub(crate) const DEFAULT_RETENTION: Time = 3 * 24 * 3600 * SECOND;

/// A namespace as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Namespace {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What it is for.
    #[prost(string, tag = "3")]
    pub description: String,
    /// Whom to ask about it.
    #[prost(string, tag = "4")]
    pub owner_email: String,
    /// Anything.
    #[prost(btree_map = "string, string", tag = "5")]
    pub data: BTreeMap<String, String>,
    /// How long closed runs are kept, in nanoseconds.
    #[prost(int64, tag = "6")]
    pub retention: i64,
    /// State.
    #[prost(enumeration = "NamespaceState", tag = "7")]
    pub state: i32,
    /// Custom search attributes: name and `IndexedValueType` as its number.
    #[prost(btree_map = "string, int32", tag = "8")]
    pub search_attributes: BTreeMap<String, i32>,
    /// When it was made.
    #[prost(int64, tag = "9")]
    pub created: i64,
}

impl Namespace {
    /// A new namespace.
    pub fn new(name: &str) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            name: name.to_owned(),
            retention: DEFAULT_RETENTION,
            state: NamespaceState::Registered as i32,
            created: crate::clock::now(),
            ..Self::default()
        }
    }

    /// What is different from how it was before, for people.
    fn differences(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let mut compare = |what: &str, was: &dyn fmt::Debug, is: &dyn fmt::Debug| {
            let (was, is) = (format!("{was:?}"), format!("{is:?}"));
            if was != is {
                changes.push(format!("{what}: {was} -> {is}"));
            }
        };
        compare("name", &before.name, &self.name);
        compare("description", &before.description, &self.description);
        compare("owner", &before.owner_email, &self.owner_email);
        compare("data", &before.data, &self.data);
        compare(
            "retention in seconds",
            &(before.retention / SECOND),
            &(self.retention / SECOND),
        );
        let state = |of: &Self| {
            NamespaceState::try_from(of.state)
                .map_or("", |state| state.as_str_name())
                .trim_start_matches("NAMESPACE_STATE_")
        };
        compare("state", &state(before), &state(self));
        compare(
            "search attributes",
            &before.search_attributes,
            &self.search_attributes,
        );
        changes
    }

    /// The custom search attributes, for parsing list filters.
    pub fn attribute_types(&self) -> AttributeTypes {
        AttributeTypes::new(self.search_attributes.clone())
    }
}

impl Runtime {
    /// Adds a namespace, durably. That it was added is evidence.
    pub async fn register_namespace(&self, permit: &Permit, namespace: Namespace) -> Result<()> {
        if self.namespaces().by_name(&namespace.name).is_ok() {
            return Err(RuntimeError::NamespaceExists);
        }
        self.put_namespace(permit, namespace).await
    }

    /// Writes a namespace, durably. What changes is evidence, which is written first: a change that
    /// nobody knows of is worse than an entry of one that did not come about.
    pub async fn put_namespace(&self, permit: &Permit, namespace: Namespace) -> Result<()> {
        let before = self.namespaces().by_id(&namespace.id).ok();
        let (what, changes) = match before {
            None => (
                "namespace/registered",
                namespace.differences(&Namespace::default()),
            ),
            Some(before) => ("namespace/changed", namespace.differences(&before)),
        };
        if !changes.is_empty() {
            let note = Note {
                what: what.into(),
                detail: changes.join("; ").into(),
                ..Note::default()
            };
            self.note_of(permit, &namespace.id, &namespace.name, note)
                .await?;
        }
        self.namespaces().put(&**self.store(), namespace).await
    }
}

/// All namespaces.
pub struct NamespaceRegistry {
    by_id: RwLock<HashMap<String, Arc<Namespace>>>,
}

impl NamespaceRegistry {
    /// Reads them from the store.
    pub async fn load(store: &dyn Store) -> Result<Self> {
        let mut by_id = HashMap::new();
        for (id, bytes) in store.records(KIND).await? {
            let namespace = Namespace::decode(bytes.as_slice())
                .map_err(|error| RuntimeError::Internal(format!("namespace {id}: {error}")))?;
            by_id.insert(id, Arc::new(namespace));
        }
        Ok(Self {
            by_id: RwLock::new(by_id),
        })
    }

    /// A namespace by its name.
    pub fn by_name(&self, name: &str) -> Result<Arc<Namespace>> {
        if name.is_empty() {
            return Err(RuntimeError::invalid("Namespace not set on request."));
        }
        self.find(name)
            .ok_or_else(|| RuntimeError::NamespaceNotFound(name.to_owned()))
    }

    /// A namespace by its id.
    pub fn by_id(&self, id: &str) -> Result<Arc<Namespace>> {
        let found = self.by_id.read().get(id).cloned();
        found.ok_or_else(|| RuntimeError::NamespaceNotFound(id.to_owned()))
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<Namespace>> {
        let mut all: Vec<_> = self.by_id.read().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// A namespace's name by its id; the id itself for one that is gone.
    pub fn name(&self, id: &str) -> String {
        self.by_id
            .read()
            .get(id)
            .map_or_else(|| id.to_owned(), |namespace| namespace.name.clone())
    }

    /// Writes a namespace that is there, durably.
    pub async fn put(&self, store: &dyn Store, namespace: Namespace) -> Result<()> {
        store
            .put_record(KIND, &namespace.id, namespace.encode_to_vec())
            .await?;
        self.by_id
            .write()
            .insert(namespace.id.clone(), Arc::new(namespace));
        Ok(())
    }

    /// Removes a namespace.
    pub async fn remove(&self, store: &dyn Store, id: &str) -> Result<()> {
        store.delete_record(KIND, id).await?;
        self.by_id.write().remove(id);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Arc<Namespace>> {
        self.by_id
            .read()
            .values()
            .find(|namespace| namespace.name == name)
            .cloned()
    }
}

impl steadfast_engine::run::Namespaces for NamespaceRegistry {
    fn id(&self, name: &str) -> Option<String> {
        self.find(name).map(|namespace| namespace.id.clone())
    }
}
