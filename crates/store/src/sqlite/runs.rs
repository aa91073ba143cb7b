//! Runs: their snapshots, when they are due, and which one is current.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::connection::{error, execute, from_position, to_position};
use super::names::Names;
use super::{history, record_pages, tasks, visibility};
use crate::{DuePlace, RunProjection, RunRef, StoreError, StoredRun, Time};

/// Values of `run.state`.
const EXISTS: i64 = 0;
const KEPT_FOR_HISTORY: i64 = 1;

/// A run's row.
pub(super) struct RunRow {
    pub(super) run_key: i64,
    state: i64,
    pub(super) has_pending_tasks: bool,
    wake_at: Option<Time>,
    delete_at: Option<Time>,
}

/// Finds a run's row.
pub(super) fn find(
    connection: &Connection,
    namespace_key: i64,
    run_id: &str,
) -> Result<Option<RunRow>, StoreError> {
    let sql = "SELECT run_key, state, pending, wake_at, delete_at FROM run
        WHERE namespace_key = ?1 AND run_id = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    statement
        .query_row(params![namespace_key, run_id], |row| {
            Ok(RunRow {
                run_key: row.get(0)?,
                state: row.get(1)?,
                has_pending_tasks: row.get(2)?,
                wake_at: row.get(3)?,
                delete_at: row.get(4)?,
            })
        })
        .optional()
        .map_err(error)
}

/// The key of a run whose history can be read, also when it was deleted otherwise.
pub(super) fn branch_key(
    connection: &Connection,
    namespace_key: i64,
    run_id: &str,
) -> Result<Option<i64>, StoreError> {
    Ok(find(connection, namespace_key, run_id)?.map(|row| row.run_key))
}

/// Adds a run's row with its snapshot.
pub(super) fn insert(
    connection: &Connection,
    namespace_key: i64,
    projection: &RunProjection,
    is_current: bool,
) -> Result<i64, StoreError> {
    let sql = "INSERT INTO run
        (namespace_key, slot, pending, wake_at, delete_at, is_current, run_id, workflow_id)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let row = params![
        namespace_key,
        projection.slot,
        !projection.pending_tasks.is_empty(),
        projection.wake_at,
        projection.delete_at,
        is_current,
        projection.run.run_id,
        projection.run.workflow_id,
    ];
    execute(connection, sql, row).map_err(error)?;
    let run_key = connection.last_insert_rowid();
    put_snapshot(connection, run_key, projection)?;
    Ok(run_key)
}

/// Brings a run's row and snapshot up to date. Columns that did not change are not named, which
/// spares their indexes.
pub(super) fn update(
    connection: &Connection,
    row: &RunRow,
    projection: &RunProjection,
) -> Result<(), StoreError> {
    let run_key = row.run_key;
    if row.wake_at != projection.wake_at {
        let sql = "UPDATE run SET wake_at = ?2 WHERE run_key = ?1";
        execute(connection, sql, params![run_key, projection.wake_at]).map_err(error)?;
    }
    if row.delete_at != projection.delete_at {
        let sql = "UPDATE run SET delete_at = ?2 WHERE run_key = ?1";
        execute(connection, sql, params![run_key, projection.delete_at]).map_err(error)?;
    }
    let has_pending_tasks = !projection.pending_tasks.is_empty();
    if row.has_pending_tasks != has_pending_tasks || row.state != EXISTS {
        let sql = "UPDATE run SET pending = ?2, state = ?3 WHERE run_key = ?1";
        execute(connection, sql, params![run_key, has_pending_tasks, EXISTS]).map_err(error)?;
    }
    put_snapshot(connection, run_key, projection)
}

fn put_snapshot(
    connection: &Connection,
    run_key: i64,
    projection: &RunProjection,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO snapshot (run_key, seq, bytes) VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET seq = excluded.seq, bytes = excluded.bytes";
    let row = params![
        run_key,
        from_position(projection.seq),
        projection.snapshot.as_slice()
    ];
    execute(connection, sql, row).map_err(error)?;
    Ok(())
}

/// Makes a run current for its workflow id, or none. The run must be stored.
pub(super) fn set_current(
    connection: &Connection,
    namespace_key: i64,
    workflow_id: &str,
    run_id: Option<&str>,
) -> Result<(), StoreError> {
    let sql = "SELECT run_key, run_id FROM run
        WHERE namespace_key = ?1 AND workflow_id = ?2 AND is_current = 1";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let mut rows = statement
        .query(params![namespace_key, workflow_id])
        .map_err(error)?;
    let mut is_done = run_id.is_none();
    let mut former: Vec<i64> = Vec::new();
    while let Some(row) = rows.next().map_err(error)? {
        let found = row.get_ref(1).and_then(|it| Ok(it.as_str()?));
        if Some(found.map_err(error)?) == run_id {
            is_done = true;
        } else {
            former.push(row.get(0).map_err(error)?);
        }
    }
    for run_key in former {
        let sql = "UPDATE run SET is_current = 0 WHERE run_key = ?1";
        execute(connection, sql, [run_key]).map_err(error)?;
    }
    if is_done {
        return Ok(());
    }
    let sql = "UPDATE run SET is_current = 1
        WHERE namespace_key = ?1 AND run_id = ?2 AND workflow_id = ?3";
    let updated = execute(connection, sql, params![namespace_key, run_id, workflow_id]);
    match updated.map_err(error)? {
        0 => Err(StoreError::Invalid(format!(
            "the current run of {workflow_id} is not stored: {}",
            run_id.unwrap_or_default()
        ))),
        _ => Ok(()),
    }
}

/// Keeps the history of `parents` for as long as the run exists. A parent that is not stored has
/// no history to keep.
pub(super) fn add_history_parents(
    connection: &Connection,
    namespace_key: i64,
    run_key: i64,
    parents: &[String],
) -> Result<(), StoreError> {
    for parent in parents {
        if let Some(parent_key) = branch_key(connection, namespace_key, parent)? {
            let sql = "INSERT INTO history_parent (run_key, parent_key) VALUES (?1, ?2)
                ON CONFLICT DO NOTHING";
            execute(connection, sql, [run_key, parent_key]).map_err(error)?;
        }
    }
    Ok(())
}

/// Deletes a run with all that belongs to it. Its history stays while another run's begins with it.
pub(super) fn delete(
    connection: &Connection,
    names: &Names,
    run: &RunRef,
) -> Result<(), StoreError> {
    let Some(namespace) = names.namespace(&run.namespace_id) else {
        return Ok(());
    };
    let Some(row) = find(connection, namespace.key, &run.run_id)? else {
        return Ok(());
    };
    let sql = "DELETE FROM snapshot WHERE run_key = ?1";
    execute(connection, sql, [row.run_key]).map_err(error)?;
    visibility::delete(connection, namespace, row.run_key)?;
    if row.has_pending_tasks {
        tasks::delete(connection, row.run_key)?;
    }
    let sql = "UPDATE run
        SET state = ?2, pending = 0, wake_at = NULL, delete_at = NULL, is_current = 0
        WHERE run_key = ?1";
    execute(connection, sql, [row.run_key, KEPT_FOR_HISTORY]).map_err(error)?;
    purge_unused(connection, row.run_key)
}

/// Removes the history of deleted runs that no run begins with any more, from `run_key` on through
/// the runs that its own history begins with.
fn purge_unused(connection: &Connection, run_key: i64) -> Result<(), StoreError> {
    let mut candidates = vec![run_key];
    while let Some(run_key) = candidates.pop() {
        let sql = "SELECT state = ?2
                AND NOT EXISTS (SELECT 1 FROM history_parent WHERE parent_key = ?1)
            FROM run WHERE run_key = ?1";
        let mut statement = connection.prepare_cached(sql).map_err(error)?;
        let unused = statement
            .query_row([run_key, KEPT_FOR_HISTORY], |row| row.get(0))
            .optional()
            .map_err(error)?;
        if unused != Some(true) {
            continue;
        }
        let sql = "DELETE FROM history_parent WHERE run_key = ?1 RETURNING parent_key";
        let mut statement = connection.prepare_cached(sql).map_err(error)?;
        let parents = statement
            .query_map([run_key], |row| row.get(0))
            .map_err(error)?;
        for parent in parents {
            candidates.push(parent.map_err(error)?);
        }
        history::delete(connection, run_key)?;
        record_pages::delete(connection, run_key)?;
        execute(connection, "DELETE FROM run WHERE run_key = ?1", [run_key]).map_err(error)?;
    }
    Ok(())
}

/// The current run of a workflow id.
pub(super) fn current(
    connection: &Connection,
    namespace_key: i64,
    workflow_id: &str,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT run_id FROM run
        WHERE namespace_key = ?1 AND workflow_id = ?2 AND is_current = 1";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    statement
        .query_row(params![namespace_key, workflow_id], |row| row.get(0))
        .optional()
        .map_err(error)
}

/// A run's snapshot.
pub(super) fn load(
    connection: &Connection,
    namespace_key: i64,
    run: &RunRef,
) -> Result<Option<StoredRun>, StoreError> {
    let sql = "SELECT seq, bytes FROM run JOIN snapshot USING (run_key)
        WHERE namespace_key = ?1 AND run_id = ?2 AND workflow_id = ?3";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    statement
        .query_row(params![namespace_key, run.run_id, run.workflow_id], |row| {
            Ok(StoredRun {
                seq: to_position(row.get(0)?),
                snapshot: row.get(1)?,
            })
        })
        .optional()
        .map_err(error)
}

/// Runs that are due, earliest first.
pub(super) fn due(
    connection: &Connection,
    after: Option<DuePlace>,
    before: Time,
    limit: i64,
) -> Result<Vec<(DuePlace, RunRef)>, StoreError> {
    let after = after.unwrap_or(DuePlace {
        at: Time::MIN,
        tie: i64::MIN,
    });
    let sql = "SELECT namespace_id, workflow_id, run_id, wake_at, run_key
        FROM run JOIN namespace USING (namespace_key)
        WHERE wake_at <= ?1 AND (wake_at, run_key) > (?2, ?3)
        ORDER BY wake_at, run_key LIMIT ?4";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let place = |row: &Row<'_>| -> rusqlite::Result<DuePlace> {
        Ok(DuePlace {
            at: row.get(3)?,
            tie: row.get(4)?,
        })
    };
    let rows = statement
        .query_map([before, after.at, after.tie, limit], |row| {
            Ok((place(row)?, run_ref(row)?))
        })
        .map_err(error)?;
    rows.collect::<Result<_, _>>().map_err(error)
}

/// The earliest time after `after` at which a run is due.
pub(super) fn next_wake(connection: &Connection, after: Time) -> Result<Option<Time>, StoreError> {
    let sql = "SELECT min(wake_at) FROM run WHERE wake_at > ?1";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    statement
        .query_row([after], |row| row.get(0))
        .map_err(error)
}

/// Runs whose retention is over, the longest over first.
pub(super) fn expired(
    connection: &Connection,
    before: Time,
    limit: i64,
) -> Result<Vec<RunRef>, StoreError> {
    let sql = "SELECT namespace_id, workflow_id, run_id
        FROM run JOIN namespace USING (namespace_key)
        WHERE delete_at <= ?1 ORDER BY delete_at LIMIT ?2";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let rows = statement
        .query_map([before, limit], run_ref)
        .map_err(error)?;
    rows.collect::<Result<_, _>>().map_err(error)
}

/// Runs of a namespace, in no order that means anything.
pub(super) fn of_namespace(
    connection: &Connection,
    namespace_key: i64,
    limit: i64,
) -> Result<Vec<RunRef>, StoreError> {
    let sql = "SELECT namespace_id, workflow_id, run_id
        FROM run JOIN namespace USING (namespace_key)
        WHERE namespace_key = ?1 AND state = ?2 ORDER BY run_id LIMIT ?3";
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let rows = statement
        .query_map([namespace_key, EXISTS, limit], run_ref)
        .map_err(error)?;
    rows.collect::<Result<_, _>>().map_err(error)
}

/// Takes a run's name from a row that begins with namespace id, workflow id and run id.
pub(super) fn run_ref(row: &Row<'_>) -> rusqlite::Result<RunRef> {
    Ok(RunRef {
        namespace_id: row.get(0)?,
        workflow_id: row.get(1)?,
        run_id: row.get(2)?,
    })
}
