//! A store whose writes fail as planned. What is read is always right: a process that dies reads
//! nothing any more, and one that goes on reads what is there.

use std::sync::Arc;

use async_trait::async_trait;
use steadfast_store::*;

use super::{Fault, Plan};

/// A view of a store that outlives the processes that use it.
pub(super) struct Faulty {
    pub(super) store: Arc<dyn Store>,
    pub(super) plan: Arc<Plan>,
}

impl Faulty {
    /// Does a write, unless the plan says otherwise.
    async fn write<T>(
        &self,
        places: [&'static str; 2],
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let [before, after] = places;
        if !self.plan.goes_on(before) {
            return Err(StoreError::Full(before.into()));
        }
        let written = write.await;
        match self.plan.goes_on(after) {
            true => written,
            // A dead process never hears it; one that lives must not take it for a write that failed.
            false if self.plan.fault == Fault::Death => Err(StoreError::Full(after.into())),
            false => Err(StoreError::Unknown(after.into())),
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn append(&self, rows: &[JournalRow]) -> Result<(), StoreError> {
        let places = ["append: before", "append: done"];
        self.write(places, self.store.append(rows)).await
    }

    async fn journal_head(&self) -> Result<u64, StoreError> {
        self.store.journal_head().await
    }

    async fn journal_rows(&self, after: u64, limit: usize) -> Result<Vec<JournalRow>, StoreError> {
        self.store.journal_rows(after, limit).await
    }

    async fn project(&self, batch: ProjectionBatch) -> Result<(), StoreError> {
        let places = ["project: before", "project: done"];
        self.write(places, self.store.project(batch)).await
    }

    async fn overwrite_remains(&self) -> Result<(), StoreError> {
        let places = ["overwrite_remains: before", "overwrite_remains: done"];
        self.write(places, self.store.overwrite_remains()).await
    }

    async fn projected_position(&self) -> Result<u64, StoreError> {
        self.store.projected_position().await
    }

    async fn current_run(
        &self,
        namespace_id: &str,
        workflow_id: &str,
    ) -> Result<Option<String>, StoreError> {
        self.store.current_run(namespace_id, workflow_id).await
    }

    async fn load_run(&self, run: &RunRef) -> Result<Option<StoredRun>, StoreError> {
        self.store.load_run(run).await
    }

    async fn read_history(
        &self,
        namespace_id: &str,
        run_id: &str,
        first: i64,
        last: i64,
        max_bytes: usize,
    ) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        self.store
            .read_history(namespace_id, run_id, first, last, max_bytes)
            .await
    }

    async fn read_history_reverse(
        &self,
        namespace_id: &str,
        run_id: &str,
        first: i64,
        last: i64,
        max_bytes: usize,
    ) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        self.store
            .read_history_reverse(namespace_id, run_id, first, last, max_bytes)
            .await
    }

    async fn record_page(&self, run: &RunRef, n: u64) -> Result<Option<RecordPage>, StoreError> {
        self.store.record_page(run, n).await
    }

    async fn logs(&self) -> Result<Vec<LogState>, StoreError> {
        self.store.logs().await
    }

    async fn log_entries(
        &self,
        namespace_id: &str,
        first: u64,
        count: usize,
        max_bytes: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        self.store
            .log_entries(namespace_id, first, count, max_bytes)
            .await
    }

    async fn log_tile(
        &self,
        namespace_id: &str,
        level: u8,
        index: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.log_tile(namespace_id, level, index).await
    }

    async fn due_runs(
        &self,
        after: Option<DuePlace>,
        before: Time,
        limit: usize,
    ) -> Result<Vec<(DuePlace, RunRef)>, StoreError> {
        self.store.due_runs(after, before, limit).await
    }

    async fn next_wake(&self, after: Time) -> Result<Option<Time>, StoreError> {
        self.store.next_wake(after).await
    }

    async fn expired_runs(&self, before: Time, limit: usize) -> Result<Vec<RunRef>, StoreError> {
        self.store.expired_runs(before, limit).await
    }

    async fn runs_of_namespace(
        &self,
        namespace_id: &str,
        limit: usize,
    ) -> Result<Vec<RunRef>, StoreError> {
        self.store.runs_of_namespace(namespace_id, limit).await
    }

    async fn runs_with_pending_tasks(
        &self,
        namespace_id: &str,
        kind: i32,
        task_queue: &str,
        limit: usize,
    ) -> Result<Vec<RunRef>, StoreError> {
        self.store
            .runs_with_pending_tasks(namespace_id, kind, task_queue, limit)
            .await
    }

    async fn pending_queues(&self) -> Result<Vec<(String, i32, String, u64, Time)>, StoreError> {
        self.store.pending_queues().await
    }

    async fn list_visibility(&self, query: VisibilityQuery) -> Result<VisibilityPage, StoreError> {
        self.store.list_visibility(query).await
    }

    async fn count_visibility(
        &self,
        namespace_id: &str,
        filter: steadfast_store::filter::Filter,
    ) -> Result<VisibilityCount, StoreError> {
        self.store.count_visibility(namespace_id, filter).await
    }

    async fn add_search_attribute(
        &self,
        namespace_id: &str,
        name: &str,
        value_type: i32,
    ) -> Result<(), StoreError> {
        let places = ["add_search_attribute: before", "add_search_attribute: done"];
        self.write(
            places,
            self.store
                .add_search_attribute(namespace_id, name, value_type),
        )
        .await
    }

    async fn put_record(&self, kind: &str, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        let places = ["put_record: before", "put_record: done"];
        self.write(places, self.store.put_record(kind, key, value))
            .await
    }

    async fn delete_record(&self, kind: &str, key: &str) -> Result<(), StoreError> {
        let places = ["delete_record: before", "delete_record: done"];
        self.write(places, self.store.delete_record(kind, key))
            .await
    }

    async fn records(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.store.records(kind).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        // Others use it after this process.
        Ok(())
    }
}
