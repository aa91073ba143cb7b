//! Exports of evidence bundles: a few at a time, each written while it is read.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use parking_lot::Mutex;
use steadfast_ledger::Hash;
use steadfast_ledger::checkpoint::Checkpoint;
use steadfast_ledger::entry::Time;
use steadfast_ledger::note::Note;
use steadfast_runtime::evidence::export::{About, ExportError, Progress, Selection, Signed};
use steadfast_runtime::evidence::reads::{Read, Subject};
use steadfast_runtime::{Permit, Runtime, RuntimeError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::publisher::PublishedLog;
use super::reader::consistency_proof;
use super::{Logs, Witnesses};

/// So many exports at a time: each reads the whole log.
const MAX_EXPORTS: usize = 4;

/// How long to wait until what has happened is signed, and as long again until it is cosigned.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a reader may take for a chunk.
const STALL: Duration = Duration::from_secs(60);

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);

const CHUNK: usize = 64 << 10;

/// Chunks that wait for the reader.
const WAITING_CHUNKS: usize = 8;

/// A chunk of a bundle, or why there are no more.
pub type Chunk = io::Result<Bytes>;

/// Why an export does not begin.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such namespace, or nothing of it is signed.
    #[error("there is no log of namespace {0:?}")]
    NoLog(String),
    /// Too many exports are under way.
    #[error("{MAX_EXPORTS} exports are under way: try again later")]
    Busy,
    /// What the log has is not signed yet.
    #[error("the log's newest entries are not signed yet: try again")]
    NotSigned,
    /// The checkpoint cannot be read.
    #[error("the checkpoint cannot be read: {0}")]
    Checkpoint(String),
    /// The log is not as long as it was.
    #[error("the log has {now} entries, and had {before}: it was rolled back, or is another log")]
    Shorter {
        /// Its size.
        now: u64,
        /// What was asked for.
        before: u64,
    },
    /// The runtime is not ready.
    #[error(transparent)]
    Runtime(#[from] steadfast_runtime::RuntimeError),
    /// The entries cannot be found.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// The exports of a server. Cheap to clone.
#[derive(Clone)]
pub struct Exports {
    runtime: Runtime,
    logs: Logs,
    witnesses: Witnesses,
    permits: Arc<Semaphore>,
    running: Arc<Running>,
}

#[derive(Default)]
struct Running {
    next_id: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<Progress>>>,
}

/// An export that is under way.
pub struct Export {
    /// Asks for its progress.
    pub id: u64,
    /// The bundle. It is whole if no chunk is an error.
    pub chunks: mpsc::Receiver<Chunk>,
}

/// Ends an export, however it ends.
struct Registration {
    id: u64,
    progress: Arc<Progress>,
    running: Arc<Running>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.running.all.lock().remove(&self.id);
    }
}

/// What is exported, and what it is signed with.
struct Job {
    namespace_id: String,
    namespace: String,
    selection: Selection,
    checkpoint: String,
    log: PublishedLog,
    consistency: Option<(u64, Vec<Hash>)>,
}

impl Exports {
    /// The exports of a server.
    pub fn new(runtime: Runtime, logs: Logs, witnesses: Witnesses) -> Self {
        Self {
            runtime,
            logs,
            witnesses,
            permits: Arc::new(Semaphore::new(MAX_EXPORTS)),
            running: Arc::default(),
        }
    }

    /// How far an export is: what is done, and what there is to do as far as is known.
    pub fn progress(&self, id: u64) -> Option<(u64, u64)> {
        let running = self.running.all.lock();
        running.get(&id).map(|progress| progress.get())
    }

    /// Begins an export of all that has happened until now, with the proof that the log extends its tree
    /// of the size `since`. It goes on while its chunks are read.
    pub async fn begin(
        &self,
        caller: &Permit,
        namespace: &str,
        about: About,
        since: Option<u64>,
    ) -> Result<Export, Refusal> {
        let permit = self.permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::Busy)?;
        let registration = self.register(permit);
        let (checkpoint, log) = self.checkpoint(namespace).await?;
        let namespace_id = log.namespace_id.clone();
        let size = size_of(&checkpoint)?;
        let consistency = match since {
            Some(since) => Some((since, self.consistency(&namespace_id, since, size).await?)),
            None => None,
        };
        let progress = registration.progress.clone();
        let source = self
            .runtime
            .export_source(&namespace_id, namespace, &progress);
        let workflow_id = match &about {
            About::Session { workflow_id } => workflow_id.clone(),
            _ => String::new(),
        };
        let selection = source.select(about, size).await?;
        let subject = Subject {
            workflow_id: &workflow_id,
            ..Subject::default()
        };
        self.runtime
            .note_read(caller, Read::Bundle, &namespace_id, subject)
            .await?;
        let job = Job {
            namespace_id,
            namespace: namespace.to_owned(),
            selection,
            checkpoint,
            log,
            consistency,
        };
        let (sender, chunks) = mpsc::channel(WAITING_CHUNKS);
        let id = registration.id;
        let exports = self.clone();
        let handle = tokio::runtime::Handle::current();
        // Compressing and writing to a reader that may be slow: on a thread of its own.
        tokio::task::spawn_blocking(move || {
            let written = handle.block_on(exports.write(job, &registration.progress, &sender));
            if let Err(error) = written {
                tracing::warn!(%error, "an evidence bundle was not finished");
                let _ = sender.try_send(Err(io::Error::other(error)));
            }
        });
        Ok(Export { id, chunks })
    }

    async fn consistency(
        &self,
        namespace_id: &str,
        before: u64,
        now: u64,
    ) -> Result<Vec<Hash>, Refusal> {
        if before > now {
            return Err(Refusal::Shorter { now, before });
        }
        let proof = consistency_proof(&**self.runtime.store(), namespace_id, before, now).await;
        let proof = proof.map_err(RuntimeError::from)?;
        proof.ok_or_else(|| Refusal::Checkpoint("the tree has gaps".to_owned()))
    }

    fn register(&self, permit: OwnedSemaphorePermit) -> Registration {
        let id = self.running.next_id.fetch_add(1, Ordering::Relaxed);
        let progress = Arc::new(Progress::default());
        let mut all = self.running.all.lock();
        all.insert(id, progress.clone());
        Registration {
            id,
            progress,
            running: self.running.clone(),
            _permit: permit,
        }
    }

    /// A checkpoint that covers all that has happened until now: one that a witness cosigned, if there
    /// are witnesses and they answer.
    async fn checkpoint(&self, namespace: &str) -> Result<(String, PublishedLog), Refusal> {
        let no_log = || Refusal::NoLog(namespace.to_owned());
        let found = self.runtime.namespaces().by_name(namespace);
        let namespace_id = found.map_err(|_| no_log())?.id.clone();
        let size = self.runtime.log_size(&namespace_id).await?;
        let has_witnesses = !self.witnesses.status().is_empty();
        let begun = Instant::now();
        loop {
            if let Some(log) = self.logs.get(namespace)
                && log.head.size >= size
            {
                match &log.cosigned {
                    Some((of, text)) if *of >= size => return Ok((text.clone(), log)),
                    _ if !has_witnesses || begun.elapsed() > 2 * PATIENCE => {
                        return Ok((log.checkpoint.clone(), log));
                    }
                    _ => {}
                }
            } else if begun.elapsed() > PATIENCE {
                return Err(match self.logs.get(namespace) {
                    Some(_) => Refusal::NotSigned,
                    None => no_log(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn write(
        &self,
        job: Job,
        progress: &Progress,
        chunks: &mpsc::Sender<Chunk>,
    ) -> Result<(), ExportError> {
        let witnesses = self.witnesses.keys();
        let rotations = job.log.rotations.iter().map(|of| of.proof.clone());
        let rotations: Vec<String> = rotations.collect();
        let consistency = job.consistency.as_ref();
        let signed = Signed {
            checkpoint: &job.checkpoint,
            consistency: consistency.map(|(size, hashes)| (*size, hashes.as_slice())),
            rotations: &rotations,
            key: &job.log.signer,
            witnesses: &witnesses,
            made: Time(steadfast_runtime::clock::now()),
        };
        let spool = || tempfile::tempfile().map_err(steadfast_ledger::bundle::BundleError::from);
        let spools = [spool()?, spool()?].map(std::io::BufWriter::new);
        let spools = spools.map(Spool);
        let out = Chunks {
            sender: chunks,
            chunk: Vec::with_capacity(CHUNK),
        };
        let source = self
            .runtime
            .export_source(&job.namespace_id, &job.namespace, progress);
        source.write(&job.selection, signed, out, spools).await?;
        Ok(())
    }
}

fn size_of(checkpoint: &str) -> Result<u64, Refusal> {
    let parsed = Note::parse(checkpoint)
        .map_err(|error| error.to_string())
        .and_then(|note| Checkpoint::parse(note.text()).map_err(|error| error.to_string()));
    Ok(parsed.map_err(Refusal::Checkpoint)?.size)
}

/// A file that is written in large pieces.
struct Spool(io::BufWriter<std::fs::File>);

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl io::Read for Spool {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.flush()?;
        self.0.get_mut().read(bytes)
    }
}

impl io::Seek for Spool {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Sends what is written in chunks.
struct Chunks<'a> {
    sender: &'a mpsc::Sender<Chunk>,
    chunk: Vec<u8>,
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let mut chunk = Ok(Bytes::from(std::mem::replace(
            &mut self.chunk,
            Vec::with_capacity(CHUNK),
        )));
        let begun = Instant::now();
        loop {
            chunk = match self.sender.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Err(mpsc::error::TrySendError::Full(chunk)) => chunk,
            };
            if begun.elapsed() > STALL {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // This thread is there for nothing else.
            std::thread::sleep(LOOK);
        }
    }
}
