//! The floor: a server that keeps no rules, checks nothing and remembers only what it must hand out
//! again, yet takes the same calls and is durable: every state change is a row in one SQLite table,
//! written in groups with one fsync before anything depends on it.
//!
//! Whatever a real server costs above this is the price of what it does.

pub mod journal;
pub mod queues;
pub mod service;
