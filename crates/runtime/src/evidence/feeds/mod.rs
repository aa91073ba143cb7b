//! Evidence in the formats of what people already run: OCSF for security tools, OTLP for tracing.
//!
//! Both are written to a channel, line by line, while the store is read: a slow reader slows the
//! reading down, and one that is gone ends it.

pub mod otlp;
pub mod trace;

use std::ops::Range;

use bytes::Bytes;
use prost::Message;
use steadfast_engine::RunRecord;
use steadfast_engine::state::RunState;
use steadfast_ledger::Entry;
use steadfast_ledger::ocsf::{Place, event};
use steadfast_store::filter::Filter;
use steadfast_store::{RunRef, Store, VisibilityQuery};
use tokio::sync::mpsc;

use super::archive::{Events, Records};
use crate::error::{Result, RuntimeError};
use crate::namespaces::Namespace;
use crate::runtime::Runtime;
use otlp::{Span, SpanId, TraceId};
use trace::{Session, Tracer};

/// Bytes of a log read at a time.
const READ_BYTES: usize = 1 << 20;

/// Lines are given to the reader in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;

/// Spans in one request, at most.
const SPANS: usize = 200;

/// Runs listed at a time.
const PAGE: usize = 100;

/// Whether anybody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The reader is there.
    Present,
    /// The reader went away.
    Gone,
}

/// Which runs to export as traces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// All runs of one workflow, also open ones as far as they have come. None for closed runs of
    /// all workflows.
    pub workflow_id: Option<String>,
    /// Only runs that closed at or after this time: RFC 3339.
    pub from: Option<String>,
    /// Only runs that closed before this time: RFC 3339.
    pub to: Option<String>,
}

impl Selection {
    /// As a filter of lists.
    fn query(&self) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "''");
        let workflow_id = self.workflow_id.as_ref();
        let mut conditions = Vec::new();
        conditions.extend(workflow_id.map(|id| format!("WorkflowId = '{}'", quoted(id))));
        let from = self.from.as_ref();
        conditions.extend(from.map(|time| format!("CloseTime >= '{}'", quoted(time))));
        let to = self.to.as_ref();
        conditions.extend(to.map(|time| format!("CloseTime < '{}'", quoted(time))));
        if conditions.is_empty() {
            conditions.push("CloseTime IS NOT NULL".to_owned());
        }
        conditions.join(" AND ")
    }
}

impl Runtime {
    /// Sends entries of a log as OCSF events, each on a line.
    pub async fn export_ocsf(
        &self,
        namespace_id: &str,
        origin: &str,
        indexes: Range<u64>,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<Reader> {
        let mut index = indexes.start;
        while index < indexes.end {
            let count = usize::try_from(indexes.end - index).unwrap_or(usize::MAX);
            let read = self.store();
            let page = read
                .log_entries(namespace_id, index, count, READ_BYTES)
                .await?;
            if page.is_empty() {
                return Err(unreadable(index, "it is missing"));
            }
            let mut piece = String::new();
            for bytes in &page {
                let place = Place {
                    origin,
                    index,
                    product_version: env!("CARGO_PKG_VERSION"),
                };
                piece.push_str(&ocsf_line(bytes, place)?);
                index += 1;
                if piece.len() >= PIECE_BYTES && send(lines, &mut piece).await == Reader::Gone {
                    return Ok(Reader::Gone);
                }
            }
            if !piece.is_empty() && send(lines, &mut piece).await == Reader::Gone {
                return Ok(Reader::Gone);
            }
        }
        Ok(Reader::Present)
    }

    /// Sends runs as traces: requests of OTLP, each on a line.
    pub async fn export_traces(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<Reader> {
        let filter = Filter::parse(&selection.query(), &namespace.attribute_types())
            .map_err(|error| RuntimeError::invalid(error.to_string()))?;
        self.projected().await?;
        let mut batch = Batch {
            namespace: &namespace.name,
            spans: Vec::new(),
            lines,
        };
        let mut cursor = None;
        loop {
            let query = VisibilityQuery {
                namespace_id: namespace.id.clone(),
                filter: filter.clone(),
                page_size: PAGE,
                cursor,
            };
            let page = self.store().list_visibility(query).await?;
            for row in page.rows {
                let run = RunRef {
                    namespace_id: namespace.id.clone(),
                    workflow_id: row.workflow_id,
                    run_id: row.run_id,
                };
                if trace(&**self.store(), &run, &mut batch).await? == Reader::Gone {
                    return Ok(Reader::Gone);
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return batch.send().await;
            }
        }
    }
}

fn ocsf_line(bytes: &[u8], place: Place<'_>) -> Result<String> {
    let entry = Entry::parse(bytes).map_err(|error| unreadable(place.index, &error.to_string()))?;
    let text =
        std::str::from_utf8(bytes).map_err(|error| unreadable(place.index, &error.to_string()))?;
    Ok(format!("{}\n", event(&entry, text, place)))
}

fn unreadable(index: u64, why: &str) -> RuntimeError {
    RuntimeError::Internal(format!("entry {index} of the log cannot be read: {why}"))
}

async fn send(lines: &mpsc::Sender<Bytes>, piece: &mut String) -> Reader {
    let piece = Bytes::from(std::mem::take(piece));
    match lines.send(piece).await {
        Ok(()) => Reader::Present,
        Err(_) => Reader::Gone,
    }
}

/// Spans on their way into a request.
struct Batch<'a> {
    namespace: &'a str,
    spans: Vec<Span>,
    lines: &'a mpsc::Sender<Bytes>,
}

impl Batch<'_> {
    /// Adds spans, and sends what makes a whole request.
    async fn add(&mut self, spans: Vec<Span>) -> Result<Reader> {
        for span in spans {
            self.spans.push(span);
            if self.spans.len() >= SPANS && self.send().await? == Reader::Gone {
                return Ok(Reader::Gone);
            }
        }
        Ok(Reader::Present)
    }

    async fn send(&mut self) -> Result<Reader> {
        if self.spans.is_empty() {
            return Ok(Reader::Present);
        }
        let mut line = format!("{}\n", otlp::request(self.namespace, &self.spans));
        self.spans.clear();
        Ok(send(self.lines, &mut line).await)
    }
}

/// Adds the spans of one run.
async fn trace(store: &dyn Store, run: &RunRef, batch: &mut Batch<'_>) -> Result<Reader> {
    let Some(state) = state(store, run).await? else {
        return Ok(Reader::Present);
    };
    // Records of a run from before there was evidence do not begin with the first one.
    let first = store.record_page(run, 1).await?;
    if first.is_none_or(|page| page.first_n != 1) {
        tracing::debug!(run_id = run.run_id, "a run without records has no trace");
        return Ok(Reader::Present);
    }
    let mut tracer = Tracer::new(session(store, &state).await?);
    let mut records = Records::new(store, run.clone());
    let mut events = Events::new(store, run.clone());
    loop {
        match next(&mut records, &mut events, &mut tracer).await {
            Ok(true) => {}
            Ok(false) => return Ok(Reader::Present),
            // Deleted or erased while it was read: as if it had been before.
            Err(error) => {
                let is_there = self::state(store, run).await?.is_some_and(|of| !of.erased);
                return if is_there {
                    Err(error)
                } else {
                    Ok(Reader::Present)
                };
            }
        }
        if batch.add(tracer.take()).await? == Reader::Gone {
            return Ok(Reader::Gone);
        }
    }
}

/// Reads the next record; whether there was one.
async fn next(
    records: &mut Records<'_>,
    events: &mut Events<'_>,
    tracer: &mut Tracer,
) -> Result<bool> {
    let Some(mut record): Option<RunRecord> = records.next().await? else {
        return Ok(false);
    };
    events.fill(&mut record, tracer.next_event_id).await?;
    tracer.apply(&record)?;
    Ok(true)
}

async fn state(store: &dyn Store, run: &RunRef) -> Result<Option<RunState>> {
    let Some(stored) = store.load_run(run).await? else {
        return Ok(None);
    };
    let state = RunState::decode(stored.snapshot.as_slice());
    state.map(Some).map_err(|error| {
        RuntimeError::Internal(format!(
            "the state of run {} cannot be read: {error}",
            run.run_id
        ))
    })
}

/// What all spans of a run have in common. The trace is that of the workflow in which the first of
/// its parents began.
async fn session(store: &dyn Store, state: &RunState) -> Result<Session> {
    let start = state.start();
    let parent = start.parent_workflow_execution.as_ref();
    let mut first_run_id = match start.first_execution_run_id.as_str() {
        "" => state.run_id.clone(),
        first => first.to_owned(),
    };
    if let (Some(_), Some(root)) = (parent, &start.root_workflow_execution) {
        let root = RunRef {
            namespace_id: state.namespace_id.clone(),
            workflow_id: root.workflow_id.clone(),
            run_id: root.run_id.clone(),
        };
        let of_root = self::state(store, &root).await?;
        // A root that is not there any more was, most likely, the first run of its chain.
        first_run_id = match of_root {
            Some(of_root) if !of_root.start().first_execution_run_id.is_empty() => {
                of_root.start().first_execution_run_id.clone()
            }
            _ => root.run_id,
        };
    }
    let trace_id = TraceId::of_session(&first_run_id);
    // A run of a reset began as its base did, and follows the base.
    let before = match state.reset_from_run_id.as_str() {
        "" => start.continued_execution_run_id.as_str(),
        base => base,
    };
    let links = Some(before).filter(|run_id| !run_id.is_empty());
    Ok(Session {
        trace_id,
        parent: parent
            .map(|parent| SpanId::new(&parent.run_id, start.parent_initiated_event_id, 0)),
        links: links
            .map(|run_id| (trace_id, SpanId::of_run(run_id)))
            .into_iter()
            .collect(),
        workflow_id: state.workflow_id.clone(),
        run_id: state.run_id.clone(),
        agent: state.workflow_type().to_owned(),
    })
}

#[cfg(test)]
mod tests;
