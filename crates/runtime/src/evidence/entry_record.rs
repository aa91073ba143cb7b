//! The record of an entry, as long as its run is there.

use prost::Message;
use steadfast_engine::RunRecord;
use steadfast_ledger::entry::{ApprovalItem, DecisionItem};
use steadfast_store::{RunRef, Store};

use super::seal;
use crate::error::{Result, RuntimeError};

/// A record.
pub struct EntryRecord(RunRecord);

impl EntryRecord {
    pub(super) async fn read(store: &dyn Store, run: &RunRef, n: u64) -> Result<Option<Self>> {
        let Some(page) = store.record_page(run, n).await? else {
            return Ok(None);
        };
        let place = n.checked_sub(page.first_n);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let Some(bytes) = place.and_then(|place| page.records.get(place)) else {
            return Ok(None);
        };
        let record = RunRecord::decode(bytes.as_slice()).map_err(|error| {
            RuntimeError::Internal(format!("record {n} of run {}: {error}", run.run_id))
        })?;
        Ok(Some(Self(record)))
    }

    /// What it says of approvals and decisions, all of it.
    pub fn items(&self) -> (Vec<ApprovalItem<'_>>, Vec<DecisionItem<'_>>) {
        seal::items(&self.0)
    }
}
