//! The histories of the runs in a bundle, with what is needed to hash their events.

use std::io::{Read, Seek, Write};

use prost::Message;
use steadfast_engine::state::RunState;
use steadfast_ledger::bundle::BundleWriter;
use steadfast_ledger::skeleton::SaltKey;
use steadfast_store::RunRef;

use super::{ExportError, READ_BYTES, Source, missing};
use crate::error::RuntimeError;
use crate::evidence::archive::salts_of;
use crate::evidence::seal::salts;

/// A run whose history is to be written.
struct Wanted {
    run: RunRef,
    /// As far as its entries go.
    last_event_id: i64,
}

impl Source<'_> {
    /// Writes the history of each run that all entries are there of.
    pub(super) async fn histories<W: Write, S: Read + Write + Seek>(
        &self,
        bundle: &mut BundleWriter<W, S>,
    ) -> Result<(), ExportError> {
        let wanted = bundle.runs().filter_map(|of| {
            Some(Wanted {
                last_event_id: of.last_event_id?,
                run: RunRef {
                    namespace_id: self.namespace_id.to_owned(),
                    workflow_id: of.workflow_id.to_owned(),
                    run_id: of.run_id.to_owned(),
                },
            })
        });
        let wanted: Vec<Wanted> = wanted.collect();
        let events = wanted.iter().map(|of| of.last_event_id.max(0) as u64);
        self.progress.expect(events.sum());
        for of in &wanted {
            self.history(bundle, of).await?;
        }
        Ok(())
    }

    async fn history<W: Write, S: Read + Write + Seek>(
        &self,
        bundle: &mut BundleWriter<W, S>,
        wanted: &Wanted,
    ) -> Result<(), ExportError> {
        let run_id = &wanted.run.run_id;
        let gone = || ExportError::Gone(format!("run {run_id}"));
        let stored = self.store.load_run(&wanted.run).await?.ok_or_else(gone)?;
        let state = RunState::decode(stored.snapshot.as_slice()).map_err(|error| {
            RuntimeError::Internal(format!("the state of run {run_id} cannot be read: {error}"))
        })?;
        bundle.begin_history(run_id)?;
        let mut next = 1;
        // The events of a run that was reset are where the run that it was reset from has them.
        let branches = state.ancestors.iter();
        let branches = branches.map(|branch| (branch.run_id.as_str(), branch.last_event_id));
        for (owner, last) in branches.chain([(run_id.as_str(), i64::MAX)]) {
            let last = last.min(wanted.last_event_id);
            let salts = match owner == run_id {
                true => salts(&state),
                false => self.salts_of_base(wanted, owner).await?,
            };
            while next <= last {
                let read =
                    self.store
                        .read_history(self.namespace_id, owner, next, last, READ_BYTES);
                let page = read.await?;
                if page.is_empty() {
                    // Deleted, or damaged.
                    return Err(match self.store.load_run(&wanted.run).await? {
                        Some(_) => missing(format!("event {next} of run {owner}")),
                        None => gone(),
                    });
                }
                for (id, bytes) in &page {
                    let (event, secrets) = self.sealer.open(bytes, &salts, *id)?;
                    bundle.event(&event, &secrets)?;
                    next = id + 1;
                }
                self.progress.pass(page.len() as u64);
            }
        }
        Ok(())
    }
}

impl Source<'_> {
    /// The salts of a run that another one was reset from. An erased one has none, and needs none.
    async fn salts_of_base(&self, wanted: &Wanted, owner: &str) -> Result<SaltKey, ExportError> {
        let base = RunRef {
            run_id: owner.to_owned(),
            ..wanted.run.clone()
        };
        let stored = self.store.load_run(&base).await?;
        let state = stored.map(|stored| RunState::decode(stored.snapshot.as_slice()));
        let state = state.transpose().map_err(|error| {
            RuntimeError::Internal(format!("the state of run {owner} cannot be read: {error}"))
        })?;
        let salts = salts_of(self.store, &base, state.as_ref()).await?;
        Ok(salts.unwrap_or(SaltKey([0; 32])))
    }
}
