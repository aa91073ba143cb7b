//! Which entries a bundle is about.

use std::collections::HashSet;
use std::ops::Range;

use steadfast_ledger::Entry;
use steadfast_ledger::bundle::Scope;
use steadfast_ledger::entry::Time;

use super::{ExportError, Source};

/// What a bundle is to be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// All runs of a workflow id.
    Session {
        /// The workflow id.
        workflow_id: String,
    },
    /// What a principal did, with all of the runs that it took part in.
    Principal {
        /// The principal.
        principal: String,
    },
    /// A part of the log.
    Part {
        /// Where it begins; the beginning of the log if it is not given.
        from: Option<Bound>,
        /// What comes after it; nothing if it is not given.
        to: Option<Bound>,
    },
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// An index.
    Index(u64),
    /// A time. A part of the log from one time to another has all entries of these times, and what is
    /// between them: entries of different runs are not in the order of their times.
    Time(Time),
}

/// The entries that a bundle is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// What the bundle says that it is about.
    pub scope: Scope,
    /// The size of the tree.
    pub size: u64,
    /// The entries, in order.
    pub ranges: Vec<Range<u64>>,
}

impl Source<'_> {
    /// Finds the entries among the first `size` of the log.
    pub async fn select(&self, about: About, size: u64) -> Result<Selection, ExportError> {
        let (scope, ranges) = match about {
            About::Session { workflow_id } => {
                let ranges = self.of_session(&workflow_id, size).await?;
                (Scope::Session { workflow_id }, ranges)
            }
            About::Principal { principal } => {
                let ranges = self.of_principal(&principal, size).await?;
                (Scope::Principal { principal }, ranges)
            }
            About::Part { from, to } => {
                let range = self.part(from, to, size).await?;
                let (from, to) = (range.start, range.end);
                (Scope::Range { from, to }, vec![range])
            }
        };
        let entries = ranges.iter().map(|range| range.end - range.start).sum();
        self.progress.expect(entries);
        Ok(Selection {
            scope,
            size,
            ranges,
        })
    }

    async fn of_session(
        &self,
        workflow_id: &str,
        size: u64,
    ) -> Result<Vec<Range<u64>>, ExportError> {
        let is_about = |entry: &Entry<'_>| {
            let note = entry.note.as_ref();
            entry.workflow_id == workflow_id || note.is_some_and(|of| of.workflow_id == workflow_id)
        };
        let mut ranges = Vec::new();
        let mut has_run = false;
        self.scan(workflow_id, size, |index, entry| {
            if is_about(entry) {
                push(&mut ranges, index);
                has_run |= !entry.run_id.is_empty();
            }
        })
        .await?;
        match has_run {
            true => Ok(ranges),
            false => Err(ExportError::Nothing(format!("of workflow {workflow_id:?}"))),
        }
    }

    async fn of_principal(
        &self,
        principal: &str,
        size: u64,
    ) -> Result<Vec<Range<u64>>, ExportError> {
        let is_by = |entry: &Entry<'_>| {
            entry.cause.principal == principal
                || entry.events.iter().any(|event| event.by == principal)
        };
        let mut runs = HashSet::new();
        let mut found = false;
        self.scan(principal, size, |_, entry| {
            if is_by(entry) {
                found = true;
                runs.insert(entry.run_id.to_string());
            }
        })
        .await?;
        if !found {
            return Err(ExportError::Nothing(format!("of principal {principal:?}")));
        }
        runs.remove("");
        let mut ranges = Vec::new();
        self.scan("", size, |index, entry| {
            let is_of_run = runs.contains(entry.run_id.as_ref());
            if is_of_run || (entry.run_id.is_empty() && is_by(entry)) {
                push(&mut ranges, index);
            }
        })
        .await?;
        Ok(ranges)
    }

    async fn part(
        &self,
        from: Option<Bound>,
        to: Option<Bound>,
        size: u64,
    ) -> Result<Range<u64>, ExportError> {
        let (mut start, mut end) = (0, size);
        let (mut earliest, mut latest) = (None, None);
        match from {
            Some(Bound::Index(index)) => start = index,
            Some(Bound::Time(time)) => earliest = Some(time),
            None => {}
        }
        match to {
            Some(Bound::Index(index)) => end = end.min(index),
            Some(Bound::Time(time)) => latest = Some(time),
            None => {}
        }
        if earliest.is_some() || latest.is_some() {
            let mut within: Option<Range<u64>> = None;
            self.scan("", size, |index, entry| {
                let is_in = earliest.is_none_or(|time| entry.t >= time)
                    && latest.is_none_or(|time| entry.t < time)
                    && (start..end).contains(&index);
                if is_in {
                    within.get_or_insert(index..index).end = index + 1;
                }
            })
            .await?;
            (start, end) = within.map_or((0, 0), |range| (range.start, range.end));
        }
        match start < end {
            true => Ok(start..end),
            false => Err(ExportError::Nothing("there".to_owned())),
        }
    }

    /// Looks at the entries that a text may be in: a name, or any if it is empty.
    async fn scan(
        &self,
        text: &str,
        size: u64,
        mut visit: impl FnMut(u64, &Entry<'_>),
    ) -> Result<(), ExportError> {
        // As it is in canonical JSON (RFC 8785, section 3.2.2.2).
        let quoted = serde_json::Value::from(text).to_string();
        let finder = memchr::memmem::Finder::new(&quoted);
        self.progress.expect(size);
        let mut index = 0;
        while index < size {
            let page = self.page(index, size).await?;
            for bytes in &page {
                if text.is_empty() || finder.find(bytes).is_some() {
                    let entry = Entry::parse(bytes).map_err(|error| {
                        steadfast_ledger::bundle::BundleError::Entry { index, error }
                    })?;
                    visit(index, &entry);
                }
                index += 1;
            }
            self.progress.pass(page.len() as u64);
        }
        Ok(())
    }
}

/// Adds an index to ranges that end before it.
fn push(ranges: &mut Vec<Range<u64>>, index: u64) {
    match ranges.last_mut() {
        Some(range) if range.end == index => range.end += 1,
        _ => ranges.push(index..index + 1),
    }
}
