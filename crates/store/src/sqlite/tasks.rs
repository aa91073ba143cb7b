//! The index of tasks that wait for a poller.

use rusqlite::{Connection, params};

use super::connection::{error, execute};
use super::runs::run_ref;
use crate::{PendingTask, RunRef, StoreError, Time};

/// Adds the waiting tasks of a run that has none in the index.
pub(super) fn insert(
    connection: &Connection,
    namespace_key: i64,
    run_key: i64,
    tasks: &[PendingTask],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO pending_task (namespace_key, kind, task_queue, since, run_key, tasks)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks";
    for task in tasks {
        let row = params![
            namespace_key,
            task.kind,
            task.task_queue,
            task.since,
            run_key,
            task.count,
        ];
        execute(connection, sql, row).map_err(error)?;
    }
    Ok(())
}

/// Removes all tasks of a run from the index.
pub(super) fn delete(connection: &Connection, run_key: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM pending_task WHERE run_key = ?1";
    execute(connection, sql, [run_key]).map_err(error)?;
    Ok(())
}

/// Runs that wait in a queue, the longest waiting first.
pub(super) fn runs_waiting(
    connection: &Connection,
    namespace_key: i64,
    kind: i32,
    task_queue: &str,
    limit: i64,
) -> Result<Vec<RunRef>, StoreError> {
    let sql = "SELECT namespace_id, workflow_id, run_id
        FROM pending_task AS task
        JOIN run ON run.run_key = task.run_key
        JOIN namespace ON namespace.namespace_key = task.namespace_key
        WHERE task.namespace_key = ?1 AND task.kind = ?2 AND task.task_queue = ?3
        ORDER BY task.since, task.run_key LIMIT ?4";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let rows = statement
        .query_map(params![namespace_key, kind, task_queue, limit], run_ref)
        .map_err(error)?;
    rows.collect::<Result<_, _>>().map_err(error)
}

/// Namespace id, kind and name of a queue, its tasks, and when the oldest was scheduled.
type Queue = (String, i32, String, u64, Time);

/// All queues with waiting tasks.
pub(super) fn queues(connection: &Connection) -> Result<Vec<Queue>, StoreError> {
    let sql = "SELECT namespace_id, kind, task_queue, sum(tasks), min(since)
        FROM pending_task JOIN namespace USING (namespace_key)
        GROUP BY namespace_key, kind, task_queue";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let rows = statement
        .query_map([], |row| {
            let tasks: i64 = row.get(3)?;
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                u64::try_from(tasks).unwrap_or(0),
                row.get(4)?,
            ))
        })
        .map_err(error)?;
    rows.collect::<Result<_, _>>().map_err(error)
}
