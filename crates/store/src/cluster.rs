//! What the nodes of a cluster know of each other, and who of them may write what. It is kept in the
//! database that they share, and measured by its clock alone: the nodes' clocks never have to agree.
//!
//! A **stream** is a journal of its own, with one owner at a time. The owner's **lease** has an
//! epoch, which grows by one with each take-over; every commit checks it inside its own transaction, so
//! that a node which lost its lease without knowing can write nothing ([`crate::StoreError::Fenced`]).

use std::time::Duration;

use async_trait::async_trait;

use crate::{StoreError, Time};

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Made anew at each start of the process: a node that comes back is another one.
    pub id: String,
    /// Where the other nodes reach it, as `host:port`.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// The first and the last format of the store that it can work with.
    pub formats: (u32, u32),
}

/// A node, as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it says of itself.
    pub node: Node,
    /// When it came.
    pub joined: Time,
    /// How long ago it was heard of, by the database's clock.
    pub silent_for: Duration,
    /// Whether it was heard of within the time that it asked for.
    pub is_alive: bool,
}

/// The right to write a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which stream.
    pub stream: u32,
    /// Id of the node that has it.
    pub owner: String,
    /// Grows with each take-over.
    pub epoch: u64,
}

/// A lease, as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// Who has it, or had it last.
    pub lease: Lease,
    /// How long it still holds by the database's clock; none if it is free.
    pub remaining: Option<Duration>,
}

/// The part of a shared store that is about nodes.
///
/// Every method is one short transaction.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Says that a node is there, for the next `ttl`; also what tells that it is still there.
    async fn announce(&self, node: &Node, ttl: Duration) -> Result<(), StoreError>;

    /// Takes a node off the list. It may have been off it already.
    async fn leave(&self, node_id: &str) -> Result<(), StoreError>;

    /// All nodes, in order of their coming. Those that have been silent for a day are forgotten.
    async fn members(&self) -> Result<Vec<Member>, StoreError>;

    /// All leases, in order of their streams.
    async fn leases(&self) -> Result<Vec<LeaseState>, StoreError>;

    /// Takes the lease of a stream that is free, or whose lease is over, for `ttl`. None if another node
    /// has it. A node that has it already gets another epoch: its older one is void.
    async fn acquire(
        &self,
        stream: u32,
        node_id: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, StoreError>;

    /// Makes a lease hold for another `ttl` from now. False if it is lost: another epoch is there.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives a lease back, so that others need not wait until it is over. Giving back a lost one is no
    /// error.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;
}
