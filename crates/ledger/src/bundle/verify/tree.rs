//! The tree that entries and nodes make up together.

use super::archive::Member;
use super::findings::{Code, Findings, Place};
use crate::Hash;
use crate::bundle::lines::Lines;
use crate::bundle::{ENTRIES, TREE};
use crate::checkpoint::Checkpoint;
use crate::tree::RootBuilder;

/// Makes the root while entries come, with nodes between them.
pub(super) struct Tree<'m, 'a> {
    nodes: Lines<&'m mut Member<'a>>,
    builder: RootBuilder,
    checkpoint: Option<&'m Checkpoint>,
    findings: &'m Findings,
    /// Something was found that makes the root meaningless.
    is_broken: bool,
    /// The first leaf that neither an entry nor a node was there for. It may come out of order.
    missing: Option<u64>,
}

impl<'m, 'a> Tree<'m, 'a> {
    pub fn new(
        nodes: &'m mut Member<'a>,
        checkpoint: Option<&'m Checkpoint>,
        findings: &'m Findings,
    ) -> Self {
        Self {
            nodes: Lines::nodes(nodes),
            builder: RootBuilder::default(),
            checkpoint,
            findings,
            is_broken: false,
            missing: None,
        }
    }

    /// What is wrong was found by somebody else.
    pub fn give_up(&mut self) {
        self.is_broken = true;
    }

    pub fn leaf(&mut self, index: u64, leaf: Hash) {
        self.missing = self.missing.filter(|missing| *missing != index);
        let size = self.checkpoint.map(|checkpoint| checkpoint.size);
        if let Some(size) = size.filter(|size| index >= *size && !self.is_broken) {
            let place = Place::file(ENTRIES).index(index);
            let detail = format!("the checkpoint is about {size} entries only");
            self.break_off(Code::LogRolledBack, place, &detail);
        }
        self.advance(index);
        if !self.is_broken && self.builder.push_leaf(index, leaf).is_err() {
            let place = Place::file(TREE).index(index);
            self.break_off(Code::RootMismatch, place, "a node covers this entry");
        }
    }

    pub fn finish(mut self) {
        let Some(checkpoint) = self.checkpoint else {
            return;
        };
        self.advance(checkpoint.size);
        if let Some(index) = self.missing {
            let place = Place::file(ENTRIES).index(index);
            let detail = "neither an entry nor a node of the tree is there for it";
            self.findings.add(Code::EntryMissing, place, detail);
        }
        if self.is_broken {
            return;
        }
        let place = Place::file(TREE);
        if !matches!(self.nodes.next_node(), Ok(None)) {
            self.break_off(Code::RootMismatch, place, "it goes on after the last node");
        } else if self.builder.size() != checkpoint.size {
            self.break_off(Code::RootMismatch, place, "it has another size");
        } else if self.builder.fold() != checkpoint.root {
            let detail = "entries and nodes do not give the root of the checkpoint: \
                          an entry or a node was altered, or the checkpoint is of another log";
            self.break_off(Code::RootMismatch, Place::default(), detail);
        }
    }

    /// Takes nodes until there is room for a leaf.
    fn advance(&mut self, to: u64) {
        while !self.is_broken && self.builder.size() < to {
            let at = self.builder.size();
            match self.nodes.next_node() {
                Ok(Some((node, hash))) => {
                    if self.builder.push_node(node, hash).is_err() {
                        self.gap(at, node.first_leaf());
                    }
                }
                Ok(None) => self.gap(at, None),
                Err(error) => {
                    let place = Place::file(TREE);
                    self.break_off(Code::FileMalformed, place, &error.to_string());
                }
            }
        }
    }

    /// The next node is not the one that continues the tree.
    fn gap(&mut self, at: u64, next: Option<u64>) {
        match next {
            Some(first) if first < at => {
                let place = Place::file(TREE).index(first);
                self.break_off(Code::RootMismatch, place, "a node covers what others cover");
            }
            _ => {
                self.is_broken = true;
                self.missing = Some(at);
            }
        }
    }

    fn break_off(&mut self, code: Code, place: Place, detail: &str) {
        self.is_broken = true;
        self.findings.add(code, place, detail);
    }
}
