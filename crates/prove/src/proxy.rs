//! Stands between the worker and the server: sees what passes, and disturbs it at one point.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::UnaryService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::ProveError;
use crate::children::{Server, Worker};
use crate::point::{Boundary, Fault, Point};
use crate::seen::{Call, Seen, Task, activities_in, as_first_attempt, tasks_in, without_cache};
use crate::twice::{Polled, Twice};

/// Largest message.
const MAX_BYTES: usize = 64 << 20;

/// How often time is skipped at most until an attempt is over.
const MAX_SKIPS: usize = 20;

/// What a fault needs.
pub struct Stage {
    /// The server.
    pub server: Server,
    /// The worker.
    pub worker: Worker,
}

/// The proxy. Cheap to clone.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    /// Held while processes are killed and started: calls meanwhile wait.
    stage: Mutex<Stage>,
    channel: Channel,
    state: std::sync::Mutex<State>,
    twice: Twice,
}

struct State {
    seen: Seen,
    point: Option<Point>,
    has_fired: bool,
    /// Tasks that the worker has, with the number of its process, and since when.
    tasks: HashMap<Vec<u8>, (Task, u64, Instant)>,
    /// Counts the worker's processes.
    worker: u64,
    polls: usize,
    last: Instant,
    wrong: Option<String>,
}

/// How the worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Business {
    /// It is not there yet.
    Absent,
    /// It has something to do.
    Busy,
    /// It asks for work, and has had none for so long.
    Idle(Duration),
}

impl Proxy {
    /// Serves at a port until the returned task is dropped or aborted.
    pub async fn serve(
        listener: TcpListener,
        stage: Stage,
        point: Option<Point>,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), ProveError> {
        let address = format!("http://{}", stage.server.address());
        let channel = Endpoint::from_shared(address)
            .map_err(|error| ProveError::Server(error.to_string()))?
            .connect_timeout(Duration::from_secs(5))
            .connect_lazy();
        let proxy = Self(Arc::new(Inner {
            stage: Mutex::new(stage),
            channel,
            state: std::sync::Mutex::new(State {
                seen: Seen::default(),
                point,
                has_fired: false,
                tasks: HashMap::new(),
                worker: 0,
                polls: 0,
                last: Instant::now(),
                wrong: None,
            }),
            twice: Twice::default(),
        }));
        let handler = proxy.clone();
        let router =
            axum::Router::new().fallback(move |request: http::Request<axum::body::Body>| {
                let proxy = handler.clone();
                async move { proxy.handle(request).await }
            });
        let served = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .add_routes(tonic::service::Routes::from(router))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let task = tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::warn!(%error, "the proxy ended");
            }
        });
        Ok((proxy, task))
    }

    async fn handle(
        &self,
        request: http::Request<axum::body::Body>,
    ) -> http::Response<tonic::body::Body> {
        let path = request.uri().path().to_owned();
        let mut grpc = tonic::server::Grpc::new(Raw)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_BYTES)
            .max_encoding_message_size(MAX_BYTES);
        let service = Forward {
            proxy: self.clone(),
            path,
        };
        grpc.unary(service, request).await
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What was seen.
    pub fn seen(&self) -> Seen {
        self.state().seen.clone()
    }

    /// How many workflow tasks the worker failed, and how long ago it did anything.
    pub fn failed_tasks(&self) -> (usize, Duration) {
        let state = self.state();
        (state.seen.failed_tasks.len(), state.last.elapsed())
    }

    /// How long the worker has had a workflow task that it does not answer.
    pub fn unanswered(&self) -> Duration {
        let state = self.state();
        let tasks = state.tasks.values();
        let tasks = tasks
            .filter(|(task, of, _)| *of == state.worker && matches!(task, Task::Workflow { .. }));
        tasks
            .map(|(_, _, since)| since.elapsed())
            .max()
            .unwrap_or_default()
    }

    /// Whether the point was reached.
    pub fn has_fired(&self) -> bool {
        self.state().has_fired
    }

    /// What went wrong with a fault itself.
    pub fn wrong(&self) -> Option<String> {
        self.state().wrong.clone()
    }

    /// How the worker is.
    pub fn business(&self) -> Business {
        let state = self.state();
        let has_task = state.tasks.values().any(|(_, of, _)| *of == state.worker);
        match (has_task, state.polls) {
            (true, _) => Business::Busy,
            (false, 0) => Business::Absent,
            (false, _) => Business::Idle(state.last.elapsed()),
        }
    }

    /// Server and worker, for whoever starts and ends them.
    pub async fn stage(&self) -> tokio::sync::MutexGuard<'_, Stage> {
        self.0.stage.lock().await
    }

    /// A channel to the server itself.
    pub fn channel(&self) -> Channel {
        self.0.channel.clone()
    }

    /// Somebody else has done something: the worker may have something to do.
    pub fn stirred(&self) {
        self.state().last = Instant::now();
    }

    /// Everybody waits, for the vote on a tool call or for something else. Disturbs that, if this is the
    /// point. Says whether it did.
    pub async fn idle(
        &self,
        workflow_id: &str,
        waiting_call: Option<&str>,
    ) -> Result<bool, ProveError> {
        let boundary = {
            let seen = &mut self.state().seen;
            match waiting_call {
                Some(activity_type) => seen.waits_for_vote(activity_type),
                None => seen.idle(),
            }
        };
        match self.fires(&boundary) {
            Some(Fault::Restart) => {
                let mut stage = self.stage().await;
                stage.worker.kill().await;
                self.forget_worker();
                stage.server.kill().await;
                stage.server.start().await?;
                stage.worker.start()?;
                Ok(true)
            }
            Some(Fault::ClockJump) => {
                let hour = Duration::from_secs(3600);
                self.stage().await.server.skip_by(hour).await?;
                Ok(true)
            }
            Some(Fault::Cancel) => {
                crate::client::cancel(self.channel(), workflow_id).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The fault that is to happen at a boundary, once.
    fn fires(&self, boundary: &Boundary) -> Option<Fault> {
        let mut state = self.state();
        let fault = match &state.point {
            Some(point) if point.boundary == *boundary && !state.has_fired => point.fault,
            _ => return None,
        };
        state.has_fired = true;
        Some(fault)
    }

    fn forget_worker(&self) {
        let mut state = self.state();
        state.worker += 1;
        state.last = Instant::now();
    }

    async fn call(&self, path: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let call = Call::of(path, request.get_ref());
        let worker = self.state().worker;
        let result = match &call {
            Call::Answer(token, answer) => {
                let (task, boundary) = {
                    let mut state = self.state();
                    state.last = Instant::now();
                    let task = state.tasks.get(token).map(|(task, ..)| task.clone());
                    let boundary = task
                        .as_ref()
                        .and_then(|task| state.seen.answers(task, answer));
                    (task, boundary)
                };
                let fault = boundary.and_then(|boundary| self.fires(&boundary));
                if fault == Some(Fault::Twice) {
                    self.0.twice.give_again(token).await;
                }
                let result = self.answer(path, request, fault, task.as_ref()).await;
                let mut state = self.state();
                if let (Ok(_), Some(task)) = (&result, &task) {
                    state.seen.taken(task, answer);
                }
                // Others are sent again.
                let is_over = result
                    .as_ref()
                    .map_or_else(|status| status.code() != tonic::Code::Unavailable, |_| true);
                if is_over || state.worker != worker {
                    state.tasks.remove(token);
                }
                state.last = Instant::now();
                drop(state);
                result
            }
            Call::Poll | Call::PollActivities(_) => {
                let poll = Poll::begin(self);
                let result = match &call {
                    Call::PollActivities(queue) if self.is_point_of(Fault::Twice) => {
                        self.poll_or_again(path, request, queue).await
                    }
                    _ => self.forward(path, request).await,
                };
                drop(poll);
                result.map(|response| {
                    response.map(|bytes| as_first_attempt(path, &bytes).map_or(bytes, Bytes::from))
                })
            }
            Call::Other => self.forward(path, request).await,
        };
        if let Ok(response) = &result {
            if self.is_point_of(Fault::Twice) {
                let queue = match &call {
                    Call::PollActivities(queue) => queue.as_str(),
                    _ => "",
                };
                for (token, task) in activities_in(path, response.get_ref()) {
                    self.0.twice.given(queue, token, task);
                }
            }
            let mut state = self.state();
            for (token, task) in tasks_in(path, response.get_ref()) {
                state.last = Instant::now();
                // A task that was given to a worker which is dead is nobody's.
                if state.worker == worker {
                    state.seen.given(&task);
                    state.tasks.insert(token, (task, worker, Instant::now()));
                }
            }
        }
        result
    }

    /// Whether this fault is to happen in this run.
    pub fn is_point_of(&self, fault: Fault) -> bool {
        let state = self.state();
        state.point.as_ref().is_some_and(|of| of.fault == fault)
    }

    /// Forwards a poll for activities, or answers it with a task that is to be given again. The poll that was
    /// forwarded then waits for the next one.
    async fn poll_or_again(
        &self,
        path: &str,
        request: Request<Bytes>,
        queue: &str,
    ) -> Result<Response<Bytes>, Status> {
        let mut polled = self.0.twice.parked(queue).unwrap_or_else(|| {
            let (proxy, path) = (self.clone(), path.to_owned());
            Polled(tokio::spawn(
                async move { proxy.forward(&path, request).await },
            ))
        });
        tokio::select! {
            answer = &mut polled.0 => {
                answer.unwrap_or_else(|_| Err(Status::internal("the proxy failed")))
            }
            task = self.0.twice.again(queue) => {
                self.0.twice.park(queue, polled);
                Ok(Response::new(task))
            }
        }
    }

    /// Forwards an answer, and does what is to happen to it.
    async fn answer(
        &self,
        path: &str,
        request: Request<Bytes>,
        fault: Option<Fault>,
        task: Option<&Task>,
    ) -> Result<Response<Bytes>, Status> {
        let lost = || Status::unavailable("the connection is gone");
        match fault {
            Some(Fault::WorkerBefore) => {
                self.replace_worker().await;
                Err(lost())
            }
            Some(Fault::WorkerAfter) => {
                let result = self.forward(path, request).await;
                if let (Ok(_), Some(task)) = (&result, task) {
                    let mut state = self.state();
                    state.seen.taken(task, &crate::seen::Answer::Done);
                }
                self.replace_worker().await;
                result.and(Err(lost()))
            }
            Some(Fault::ServerBefore) => {
                self.replace_server().await;
                Err(lost())
            }
            Some(Fault::ServerAfter) => {
                let result = self.forward(path, request).await;
                if let (Ok(_), Some(task)) = (&result, task) {
                    let mut state = self.state();
                    state.seen.taken(task, &crate::seen::Answer::Done);
                }
                self.replace_server().await;
                result.and(Err(lost()))
            }
            Some(Fault::AnswerLost) => {
                let result = self.forward(path, request).await;
                if let (Ok(_), Some(task)) = (&result, task) {
                    let mut state = self.state();
                    state.seen.taken(task, &crate::seen::Answer::Done);
                }
                result.and(Err(lost()))
            }
            Some(Fault::Late) => {
                self.wait_until_late(task).await;
                self.forward(path, request).await
            }
            _ => self.forward(path, request).await,
        }
    }

    async fn replace_worker(&self) {
        let mut stage = self.stage().await;
        stage.worker.kill().await;
        self.forget_worker();
        self.note(stage.worker.start());
    }

    async fn replace_server(&self) {
        let mut stage = self.stage().await;
        stage.server.kill().await;
        let started = stage.server.start().await;
        self.note(started);
    }

    /// Skips time until the attempt is over.
    async fn wait_until_late(&self, task: Option<&Task>) {
        let Some(Task::Activity {
            run, id, attempt, ..
        }) = task
        else {
            return;
        };
        for _ in 0..MAX_SKIPS {
            let skipped = self
                .stage()
                .await
                .server
                .skip(Duration::from_millis(1))
                .await;
            if !matches!(skipped, Ok(true)) {
                self.note(skipped.map(|_| ()));
                return;
            }
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                match crate::client::is_current(self.channel(), run, id, *attempt).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => return self.note(Err(error)),
                }
            }
        }
    }

    fn note(&self, result: Result<(), ProveError>) {
        if let Err(error) = result {
            self.state().wrong.get_or_insert(error.to_string());
        }
    }

    async fn forward(
        &self,
        path: &str,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        let has_cache = !matches!(
            &self.state().point,
            Some(Point {
                fault: Fault::NoCache,
                ..
            })
        );
        let (metadata, extensions, message) = request.into_parts();
        let message = match has_cache {
            true => message,
            false => match without_cache(path, &message) {
                Some(changed) => {
                    self.state().has_fired = true;
                    changed.into()
                }
                None => message,
            },
        };
        let request = Request::from_parts(metadata, extensions, message);
        let path = PathAndQuery::from_maybe_shared(path.to_owned().into_bytes())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut grpc = tonic::client::Grpc::new(self.channel())
            .max_decoding_message_size(MAX_BYTES)
            .max_encoding_message_size(MAX_BYTES);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.unary(request, path, Raw).await
    }
}

/// A poll that is under way.
struct Poll<'a>(&'a Proxy);

impl<'a> Poll<'a> {
    fn begin(proxy: &'a Proxy) -> Self {
        proxy.state().polls += 1;
        Self(proxy)
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.0.state().polls -= 1;
    }
}

struct Forward {
    proxy: Proxy,
    path: String,
}

impl UnaryService<Bytes> for Forward {
    type Response = Bytes;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send + 'static>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (proxy, path) = (self.proxy.clone(), self.path.clone());
        Box::pin(async move {
            if !matches!(Call::of(&path, request.get_ref()), Call::Answer(..)) {
                return proxy.call(&path, request).await;
            }
            // What is done to an answer goes on when the worker that sent it is dead.
            let done = tokio::spawn(async move { proxy.call(&path, request).await }).await;
            done.unwrap_or_else(|_| Err(Status::internal("the proxy failed")))
        })
    }
}

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

/// A free port of this machine.
pub async fn listen(address: Option<SocketAddr>) -> Result<TcpListener, ProveError> {
    let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| ProveError::Listen(address, error))
}
