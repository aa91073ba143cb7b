//! Group commit: one thread appends whatever is waiting in one transaction with one fsync.

use std::{path::Path, sync::mpsc, thread};

use rusqlite::Connection;
use tokio::sync::oneshot;

/// Larger groups would only make the first in them wait.
const MAX_GROUP: usize = 1024;

/// Hands rows to the committing thread.
#[derive(Clone)]
pub struct Journal {
    sender: mpsc::Sender<Append>,
}

struct Append {
    run: i64,
    body: Vec<u8>,
    durable: oneshot::Sender<()>,
}

/// The row is not durable: the committing thread has ended.
#[derive(Debug, thiserror::Error)]
#[error("the journal is closed")]
pub struct Closed;

impl Journal {
    /// Creates the table and starts the thread, which ends at the first error of SQLite.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS journal (
                sequence INTEGER PRIMARY KEY,
                run INTEGER NOT NULL,
                body BLOB NOT NULL
            )",
        )?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            if let Err(error) = commit_groups(connection, &receiver) {
                eprintln!("floor: the journal failed: {error}");
            }
        });
        Ok(Self { sender })
    }

    /// Returns once the row is durable.
    pub async fn append(&self, run: i64, body: Vec<u8>) -> Result<(), Closed> {
        let (durable, committed) = oneshot::channel();
        self.sender
            .send(Append { run, body, durable })
            .map_err(|_| Closed)?;
        committed.await.map_err(|_| Closed)
    }
}

fn commit_groups(
    mut connection: Connection,
    receiver: &mpsc::Receiver<Append>,
) -> rusqlite::Result<()> {
    while let Ok(first) = receiver.recv() {
        let mut group = vec![first];
        group.extend(receiver.try_iter().take(MAX_GROUP - 1));
        let transaction = connection.transaction()?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO journal (run, body) VALUES (?1, ?2)")?;
            for append in &group {
                insert.execute((append.run, &append.body))?;
            }
        }
        // Durable here; only now may anybody hear of it.
        transaction.commit()?;
        for append in group {
            // A caller that went away does not need the answer.
            let _ = append.durable.send(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_appended_row_is_in_the_file() {
        let path = std::env::temp_dir().join(format!("floor-{}.db", std::process::id()));
        let journal = Journal::open(&path).expect("a journal");
        journal
            .append(7, vec![1; 1100])
            .await
            .expect("a durable row");
        let reader = Connection::open(&path).expect("a second connection");
        let row: (i64, i64) = reader
            .query_row("SELECT run, length(body) FROM journal", (), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .expect("the row");
        assert_eq!(row, (7, 1100));
        for suffix in ["", "-wal", "-shm"] {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            let _ = std::fs::remove_file(name);
        }
    }
}
