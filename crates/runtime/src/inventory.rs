//! Reads what an inventory is made of: runs of a namespace, and the histories of some of each type.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use steadfast_engine::proto::enums::WorkflowExecutionStatus;
use steadfast_engine::state::RunState;
use steadfast_inventory::{Builder, Of, OpenCall, Reader, Run, Settings};
use steadfast_ledger::entry::Time;
use steadfast_store::VisibilityQuery;
use steadfast_store::filter::Filter;

use crate::aggregate::WorkflowKey;
use crate::error::{Result, RuntimeError};
use crate::evidence::reads::{Read, Subject};
use crate::handout::{HISTORY_PAGE_BYTES, HistoryPart};
use crate::permit::Permit;
use crate::runtime::Runtime;

/// Runs that are looked at: those that live come first, then those that closed last.
const MAX_LISTED: u64 = 20_000;

/// Runs of a page.
const PAGE: usize = 1000;

/// Most runs of a type whose histories are read.
pub const MAX_SAMPLE: usize = 500;

/// How long histories are read: then it ends with what it has.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run whose history is to be read.
struct Chosen {
    workflow_type: String,
    workflow_id: String,
    run_id: String,
}

impl Runtime {
    /// Looks at the runs of a namespace, and reads the histories of the newest ones of each type, at most
    /// `sample`. Gives what was found, when, and whether nothing was left out but what is beyond the sample.
    pub async fn take_inventory(
        &self,
        permit: &Permit,
        namespace: &str,
        sample: usize,
        settings: &Settings,
    ) -> Result<(Builder, Time, bool)> {
        let namespace_id = self.namespaces().by_name(namespace)?.id.clone();
        let subject = Subject {
            detail: "inventory",
            ..Subject::default()
        };
        // It tells of calls and of messages of failures.
        self.note_read(permit, Read::History, &namespace_id, subject)
            .await?;
        let now = Time(crate::clock::now());
        let mut builder = Builder::default();
        let listed = self.choose(&namespace_id, sample, &mut builder).await?;
        let (chosen, mut is_complete) = listed;
        let began = Instant::now();
        for of in chosen {
            if began.elapsed() > PATIENCE {
                is_complete = false;
                break;
            }
            let key = WorkflowKey::new(namespace_id.clone(), of.workflow_id.clone());
            // It may be gone by now, or its history cannot be read: what is there is told.
            let Ok(run) = self.judge(&key, &of.run_id, settings).await else {
                is_complete = false;
                continue;
            };
            let of = Of {
                workflow_type: &of.workflow_type,
                workflow_id: &of.workflow_id,
                run_id: &of.run_id,
            };
            builder.read(of, run);
        }
        Ok((builder, now, is_complete))
    }

    /// The newest runs of each type, and whether all runs were looked at.
    async fn choose(
        &self,
        namespace_id: &str,
        sample: usize,
        builder: &mut Builder,
    ) -> Result<(Vec<Chosen>, bool)> {
        self.projected().await?;
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut chosen = Vec::new();
        let (mut cursor, mut listed) = (None, 0);
        loop {
            let filter = Filter::parse("", &Default::default());
            let filter = filter.map_err(|error| RuntimeError::invalid(error.to_string()))?;
            let page = self.store().list_visibility(VisibilityQuery {
                namespace_id: namespace_id.to_owned(),
                filter,
                page_size: PAGE,
                cursor,
            });
            let page = page.await?;
            for row in page.rows {
                listed += 1;
                let is_live = row.status == WorkflowExecutionStatus::Running as i32;
                builder.listed(&row.workflow_type, is_live);
                let count = seen.entry(row.workflow_type.clone()).or_default();
                *count += 1;
                if *count <= sample {
                    chosen.push(Chosen {
                        workflow_type: row.workflow_type,
                        workflow_id: row.workflow_id,
                        run_id: row.run_id,
                    });
                }
            }
            cursor = page.cursor;
            if cursor.is_none() || listed >= MAX_LISTED {
                return Ok((chosen, cursor.is_none()));
            }
        }
    }

    /// Reads a run's history, a page at a time, to its end as of now.
    async fn judge(&self, key: &WorkflowKey, run_id: &str, settings: &Settings) -> Result<Run> {
        let mut reader = Reader::new(settings);
        let (mut next, mut last) = (1, i64::MAX);
        let now = crate::clock::now();
        let mut open = Vec::new();
        while next <= last {
            let part = self.inspect(key, run_id, |workflow| {
                let live = workflow.named_live(run_id)?;
                let state = &live.run.state;
                if next == 1 {
                    open = open_calls(state, now);
                }
                Ok(HistoryPart::of(live, next))
            });
            let mut part = part.await?;
            // What comes while it is read is for the next time.
            last = last.min(part.last);
            part.last = last;
            let read = part.read(self, key, run_id, HISTORY_PAGE_BYTES, usize::MAX);
            let (events, after) = read.await?;
            if after <= next && next <= last {
                return Err(RuntimeError::Internal(format!(
                    "the history of run {run_id} has no event {next}"
                )));
            }
            next = after;
            for event in &events {
                reader.event(event);
            }
        }
        Ok(reader.finish(&open))
    }
}

/// The calls that are open in a run that lives.
fn open_calls(state: &RunState, now: i64) -> Vec<OpenCall> {
    if !state.is_running() {
        return Vec::new();
    }
    let calls = state.activities.values().map(|activity| {
        let (scheduled, attempt) = (activity.scheduled(), activity.attempt());
        let policy = scheduled.retry_policy.as_ref();
        let is_started = attempt.started_time > 0;
        let heartbeat = scheduled.heartbeat_timeout.as_ref();
        OpenCall {
            tool: scheduled
                .activity_type
                .as_ref()
                .map_or("", |of| &of.name)
                .to_owned(),
            attempt: attempt.number,
            maximum_attempts: policy.map_or(0, |of| of.maximum_attempts),
            is_started,
            running: if is_started {
                now - attempt.started_time
            } else {
                0
            },
            has_heartbeat: heartbeat.is_some_and(|of| of.seconds > 0 || of.nanos > 0),
        }
    });
    calls.collect()
}

#[cfg(test)]
mod tests {
    use steadfast_inventory::Risk;

    use super::*;
    use crate::testing::{Bed, start};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sample_of_each_type_is_read() {
        let bed = Bed::open(crate::Settings::default()).await;
        for number in 0..3 {
            bed.start(start(&format!("flow-{number}"))).await;
        }
        for _ in 0..20 {
            bed.signal("flow-1", 10).await.expect("signalled");
        }
        let namespace = start("").namespace;
        let settings = Settings {
            long_history: 10,
            ..Settings::default()
        };
        for (sample, read, found) in [(2, 2, true), (10, 3, true), (0, 0, false)] {
            let taken = bed
                .runtime
                .take_inventory(&bed.permit, &namespace, sample, &settings);
            let (builder, _, is_complete) = taken.await.expect("taken");
            let inventory = builder.finish(&namespace, "now".into(), sample, is_complete);
            assert_eq!((inventory.listed, inventory.read), (3, read));
            assert!(inventory.is_complete);
            assert_eq!(inventory.types[0].live, 3);
            let risks = &inventory.types[0].risks;
            assert_eq!(
                risks.iter().any(|of| of.risk == Risk::LongHistory),
                found,
                "{sample}"
            );
            bed.runtime.project_all().await.expect("projected");
        }
    }
}
