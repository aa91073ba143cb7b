//! What policies were asked, for each decision in the entries of a bundle, and the policies.
//!
//! It is not stored: a run is replayed, and what its policies were asked is made again from its state.

use std::io::{Read, Seek, Write};

use prost::Message;
use steadfast_engine::Run;
use steadfast_engine::governance::Call;
use steadfast_engine::record::{RunRecord, StepKind};
use steadfast_engine::state::RunState;
use steadfast_ledger::Hash;
use steadfast_ledger::bundle::BundleWriter;
use steadfast_store::{RunRef, Store};

use super::{ExportError, Source};
use crate::error::{Result, RuntimeError};
use crate::evidence::archive::{Events, Records};

/// What policies are asked about a command, as JSON on one line.
pub type Explain = fn(&Call<'_>) -> std::result::Result<String, String>;

/// Kind of the stored records that have the policies that were in force, by their hash.
const POLICIES: &str = "policies";

/// Keeps policies, before they decide anything: bundles have them.
pub async fn keep_policies(store: &dyn Store, hash: &Hash, content: Vec<u8>) -> Result<()> {
    match kept_policies(store, hash).await? {
        Some(_) => Ok(()),
        None => Ok(store
            .put_record(POLICIES, &hash.to_string(), content)
            .await?),
    }
}

/// Policies that were kept; none if there are none with this hash.
pub async fn kept_policies(store: &dyn Store, hash: &Hash) -> Result<Option<Vec<u8>>> {
    Ok(store.record(POLICIES, &hash.to_string()).await?)
}

impl Source<'_> {
    /// Writes what was asked for all decisions in runs whose histories are in the bundle, and the
    /// policies that decided.
    pub(super) async fn decisions<W: Write, S: Read + Write + Seek>(
        &self,
        bundle: &mut BundleWriter<W, S>,
    ) -> std::result::Result<(), ExportError> {
        let Some(explain) = self.explain else {
            return Ok(());
        };
        let decided = bundle.runs().filter(|of| of.decisions > 0);
        let decided = decided.filter(|of| of.last_event_id.is_some());
        let decided: Vec<(RunRef, u64)> = decided
            .map(|of| {
                let run = RunRef {
                    namespace_id: self.namespace_id.to_owned(),
                    workflow_id: of.workflow_id.to_owned(),
                    run_id: of.run_id.to_owned(),
                };
                (run, of.last_n)
            })
            .collect();
        for (run, last_n) in decided {
            self.decisions_of(bundle, explain, &run, last_n).await?;
        }
        let wanted: Vec<Hash> = bundle.policies().copied().collect();
        for hash in wanted {
            if let Some(content) = kept_policies(self.store, &hash).await? {
                bundle.policy_file(&hash, &content)?;
            }
        }
        Ok(())
    }

    async fn decisions_of<W: Write, S: Read + Write + Seek>(
        &self,
        bundle: &mut BundleWriter<W, S>,
        explain: Explain,
        run: &RunRef,
        last_n: u64,
    ) -> std::result::Result<(), ExportError> {
        let gone = || ExportError::Gone(format!("run {}", run.run_id));
        let stored = self.store.load_run(run).await?.ok_or_else(gone)?;
        let state = RunState::decode(stored.snapshot.as_slice()).map_err(|error| {
            RuntimeError::Internal(format!("the state of run {}: {error}", run.run_id))
        })?;
        if state.erased {
            // The arguments are gone.
            return Ok(());
        }
        let mut records = Records::new(self.store, run.clone());
        let mut events = Events::new(self.store, run.clone());
        let mut live = Run::default();
        while let Some(mut record) = records.next().await? {
            if record.n > last_n {
                break;
            }
            let next_id = live.state.next_event_id;
            events.fill(&mut record, next_id).await?;
            for (place, request) in self.asked(&mut live, &record, explain)? {
                bundle.decision(&run.run_id, record.n, place, &request)?;
            }
            live.tail.clear();
        }
        Ok(())
    }

    /// What was asked while a record was made, with its place among the record's decisions.
    fn asked(
        &self,
        live: &mut Run,
        record: &RunRecord,
        explain: Explain,
    ) -> Result<Vec<(usize, String)>> {
        let mut asked = Vec::new();
        let mut place = 0;
        live.apply_record_seeing(record, &mut |state, step| {
            let StepKind::Decision(decision) = step else {
                return;
            };
            let event_id = decision.scheduled_event_id;
            if let Some(command) = state.decided(decision) {
                let request = explain(&Call {
                    namespace: self.namespace,
                    state,
                    event_id,
                    command,
                    now: record.time,
                    attested: decision.attested,
                });
                // What Cedar does not take was refused, by no policy: nobody can decide it again.
                asked.extend(request.ok().map(|request| (place, request)));
            }
            place += 1;
        })?;
        Ok(asked)
    }
}
