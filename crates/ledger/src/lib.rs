//! Evidence: entries, the Merkle log that they are in, its proofs, bundles and their verification.
//!
//! Pure: no clock, no randomness, no files, no network. Everything here follows a public format, so
//! that others can verify with tools that are not ours.

pub mod attestation;
pub mod bundle;
pub mod checkpoint;
pub mod cosignature;
mod dsse;
pub mod entry;
pub mod hash;
mod json;
pub mod note;
pub mod ocsf;
pub mod offboarding;
pub mod proof;
pub mod rotation;
mod shapes;
pub mod skeleton;
pub mod tile;
pub mod tree;
pub mod witness;

pub use entry::Entry;
pub use hash::Hash;
