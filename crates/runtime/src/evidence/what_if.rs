//! What other policies would have decided: runs are replayed, and what their policies were asked is asked
//! again of others. Tool calls that no policy decided are asked about as well.
//!
//! What agents would have done after another answer is not known: the first decision of a call that
//! differs is the one that counts.

use std::collections::BTreeSet;

use prost::Message;
use steadfast_engine::Run;
use steadfast_engine::governance::{Call, Governor, Ruling};
use steadfast_engine::record::{Decision, RunRecord, StepKind, Verdict};
use steadfast_engine::state::RunState;
use steadfast_engine::time::Time;
use steadfast_store::filter::Filter;
use steadfast_store::{RunRef, VisibilityQuery};
use tokio::sync::mpsc;

use super::archive::{Events, Records};
use crate::error::{Result, RuntimeError};
use crate::namespaces::Namespace;
use crate::runtime::Runtime;

/// Runs listed at a time.
const PAGE: usize = 100;

/// Decisions are given in pieces of so many.
const PIECE: usize = 200;

/// Which sessions, and which of their decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A list filter.
    pub query: String,
    /// Only decisions at or after this time, in nanoseconds since the epoch.
    pub from: Option<Time>,
    /// Only decisions before this time.
    pub to: Option<Time>,
}

/// A decision that was asked about again.
#[derive(Clone, Debug, PartialEq)]
pub struct Again {
    /// The call that it is about: activity id and type, the event, and what was decided then.
    pub then: Decision,
    /// Whether policies decided then at all.
    pub was_decided: bool,
    /// Number of the record.
    pub n: u64,
    /// When.
    pub time: Time,
    /// What is said now.
    pub now: Ruling,
}

/// What comes out of it, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// The decisions of what follows are of this run.
    Run {
        /// Its workflow id.
        workflow_id: String,
        /// Its id.
        run_id: String,
        /// Its type.
        workflow_type: String,
    },
    /// Some decisions.
    Decisions(Vec<Again>),
    /// A run that cannot be asked about: its arguments were erased, or its records are not all there.
    Skipped,
}

/// Who reads it has gone away.
struct Gone;

impl Runtime {
    /// Asks `governor` again about what was decided in the runs of a selection. It ends early when nobody
    /// reads `out` any more.
    pub async fn what_if(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        governor: &dyn Governor,
        out: &mpsc::Sender<Seen>,
    ) -> Result<()> {
        let filter = Filter::parse(&selection.query, &namespace.attribute_types())
            .map_err(|error| RuntimeError::invalid(error.to_string()))?;
        if filter.groups_by_status() {
            return Err(RuntimeError::invalid("GROUP BY is only for counts."));
        }
        self.projected().await?;
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
                let begins_after = selection.to.is_some_and(|to| row.start_time >= to);
                let ended = row.close_time;
                let ended_before = ended.is_some_and(|at| selection.from.is_some_and(|of| at < of));
                if begins_after || ended_before {
                    continue;
                }
                let run = RunRef {
                    namespace_id: namespace.id.clone(),
                    workflow_id: row.workflow_id,
                    run_id: row.run_id,
                };
                let asked = Asked {
                    runtime: self,
                    namespace: &namespace.name,
                    selection,
                    governor,
                    out,
                };
                if asked.run(&run).await?.is_err() {
                    return Ok(());
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

struct Asked<'a> {
    runtime: &'a Runtime,
    namespace: &'a str,
    selection: &'a Selection,
    governor: &'a dyn Governor,
    out: &'a mpsc::Sender<Seen>,
}

impl Asked<'_> {
    async fn run(&self, run: &RunRef) -> Result<std::result::Result<(), Gone>> {
        if !self.is_readable(run).await? {
            return Ok(self.send(Seen::Skipped).await);
        }
        match self.replay(run).await {
            // Deleted or erased while it was read: as if it had been before.
            Err(_) if !self.is_readable(run).await? => Ok(self.send(Seen::Skipped).await),
            other => other,
        }
    }

    async fn is_readable(&self, run: &RunRef) -> Result<bool> {
        let store = self.runtime.store();
        let Some(stored) = store.load_run(run).await? else {
            return Ok(false);
        };
        let state = RunState::decode(stored.snapshot.as_slice()).map_err(|error| {
            RuntimeError::Internal(format!("the state of run {}: {error}", run.run_id))
        })?;
        let first = store.record_page(run, 1).await?;
        Ok(!state.erased && first.is_some_and(|page| page.first_n == 1))
    }

    async fn replay(&self, run: &RunRef) -> Result<std::result::Result<(), Gone>> {
        let store = &**self.runtime.store();
        let mut records = Records::new(store, run.clone());
        let mut events = Events::new(store, run.clone());
        let mut replay = Replay::default();
        let mut is_named = false;
        loop {
            let record = records.next().await?;
            let is_last = record.is_none();
            if let Some(mut record) = record {
                let next_id = replay.live.state.next_event_id;
                events.fill(&mut record, next_id).await?;
                replay.record(&record, self)?;
            }
            if replay.again.len() < PIECE && !is_last {
                continue;
            }
            let piece = std::mem::take(&mut replay.again);
            if !piece.is_empty() {
                let name = Seen::Run {
                    workflow_id: run.workflow_id.clone(),
                    run_id: run.run_id.clone(),
                    workflow_type: replay.live.state.workflow_type().to_owned(),
                };
                if !is_named && self.send(name).await.is_err() {
                    return Ok(Err(Gone));
                }
                is_named = true;
                if self.send(Seen::Decisions(piece)).await.is_err() {
                    return Ok(Err(Gone));
                }
            }
            if is_last {
                return Ok(Ok(()));
            }
        }
    }

    async fn send(&self, seen: Seen) -> std::result::Result<(), Gone> {
        self.out.send(seen).await.map_err(|_| Gone)
    }

    fn wants(&self, time: Time) -> bool {
        let Selection { from, to, .. } = self.selection;
        from.is_none_or(|from| time >= from) && to.is_none_or(|to| time < to)
    }
}

/// A run that is made again, with what is asked meanwhile.
#[derive(Default)]
struct Replay {
    live: Run,
    again: Vec<Again>,
    /// Tool calls up to this event have been seen.
    seen_until: i64,
}

impl Replay {
    fn record(&mut self, record: &RunRecord, asked: &Asked<'_>) -> Result<()> {
        let wants = asked.wants(record.time);
        let mut decided = BTreeSet::new();
        let again = &mut self.again;
        let ask = |state: &RunState, event_id: i64, attested: bool| {
            let command = state.command(event_id)?;
            Some(asked.governor.decide(&Call {
                namespace: asked.namespace,
                state,
                event_id,
                command,
                now: record.time,
                attested,
            }))
        };
        let is_attested = |state: &RunState| asked.governor.is_attested(state, record.time);
        let ask_undecided = |state: &RunState, id| ask(state, id, is_attested(state));
        self.live.apply_record_seeing(record, &mut |state, step| {
            let StepKind::Decision(decision) = step else {
                return;
            };
            decided.insert(decision.scheduled_event_id);
            if !wants {
                return;
            }
            // What has no event cannot be asked about again.
            if let Some(now) = ask(state, decision.scheduled_event_id, decision.attested) {
                again.push(Again {
                    then: decision.clone(),
                    was_decided: true,
                    n: record.n,
                    time: record.time,
                    now,
                });
            }
        })?;
        self.undecided(record, &decided, wants, &ask_undecided);
        self.live.tail.clear();
        Ok(())
    }

    /// Asks about tool calls that were scheduled when there were no policies.
    fn undecided(
        &mut self,
        record: &RunRecord,
        decided: &BTreeSet<i64>,
        wants: bool,
        ask: &dyn Fn(&RunState, i64) -> Option<Ruling>,
    ) {
        let state = &mut self.live.state;
        let new = state.activities.range(self.seen_until + 1..);
        let new: Vec<i64> = new.map(|(id, _)| *id).collect();
        self.seen_until = new.last().copied().unwrap_or(self.seen_until);
        for id in new.into_iter().filter(|id| !decided.contains(id)) {
            let now = ask(state, id);
            let Some(command) = state.command(id) else {
                continue;
            };
            let then = Decision {
                kind: command.kind().into(),
                scheduled_event_id: id,
                activity_id: command.id().to_owned(),
                activity_type: command.name().to_owned(),
                ..Decision::default()
            };
            // They count, as they would have with policies.
            if id > state.tool_calls_until {
                state.tool_calls_until = id;
                let count = state.tool_calls.entry(then.activity_type.clone());
                *count.or_default() += 1;
            }
            if let (Some(now), true) = (now, wants) {
                self.again.push(Again {
                    then,
                    was_decided: false,
                    n: record.n,
                    time: record.time,
                    now,
                });
            }
        }
    }
}

/// The name of an answer, as entries have it.
pub fn answer(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::Approval => "approval",
    }
}

impl Again {
    /// What was answered then: `none` where no policy decided.
    pub fn answer_then(&self) -> &'static str {
        match self.was_decided {
            true => answer(self.then.verdict()),
            false => "none",
        }
    }

    /// What is answered now, and by which policies.
    pub fn answer_now(&self) -> (&'static str, &[String]) {
        match &self.now {
            Ruling::Free => ("none", &[]),
            Ruling::Allow(of) => ("allow", &of.policies),
            Ruling::Deny(of) => ("deny", &of.policies),
            Ruling::Approval(of, _) => ("approval", &of.policies),
        }
    }
}
