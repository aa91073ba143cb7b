//! Starts and stops the server under test, and runs a worker beside a test. STEADFAST_BIN names the binary.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, Url, WorkflowHandle, WorkflowStartOptions,
};
use temporalio_common::HasWorkflowDefinition;
use temporalio_common::protos::temporal::api::enums::v1::EventType;
use temporalio_sdk::{Runtime, Worker, WorkerOptions};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::workflows::{self, Activities};

/// Far above what a test needs. What waits for ever fails.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a test with a server and a worker of its own, then stops both.
pub async fn run(test: impl AsyncFnOnce(&mut Setup)) {
    with_server(async |setup| beside(setup.worker(), test(setup)).await).await;
}

/// Runs a test with a server of its own, which has to end well when it is stopped.
pub async fn with_server(test: impl AsyncFnOnce(&mut Setup)) {
    let whole = async {
        let mut setup = Setup::new().await;
        test(&mut setup).await;
        setup.server.stop().await;
    };
    timeout(TEST_TIMEOUT, whole).await.expect("in time");
}

/// Runs `test` while `worker` works. A worker that ends by itself has failed.
pub async fn beside<T>(mut worker: Worker, test: impl Future<Output = T>) -> T {
    let shut_down = worker.shutdown_handle();
    let (answer, working) = match select(Box::pin(test), Box::pin(worker.run())).await {
        Either::Left(both) => both,
        Either::Right((ended, _)) => panic!("the worker ended: {ended:?}"),
    };
    shut_down();
    working
        .await
        .expect("a worker that ends when it is told to");
    answer
}

/// A server, a client of it, and what its workers share.
pub struct Setup {
    pub server: Server,
    pub client: Client,
    pub activities: Activities,
    pub task_queue: String,
    runtime: Runtime,
}

impl Setup {
    async fn new() -> Setup {
        let server = Server::start().await;
        let target = format!("http://127.0.0.1:{}", server.port.number);
        let connection = ConnectionOptions::new(Url::parse(&target).unwrap()).build();
        let connection = Connection::connect(connection).await.unwrap();
        Setup {
            server,
            client: Client::new(connection, ClientOptions::new("default").build()).unwrap(),
            activities: Activities::default(),
            task_queue: format!("rust-{}", Uuid::new_v4()),
            runtime: Runtime::from_current_tokio(Default::default()).unwrap(),
        }
    }

    /// A worker that has to be run: see `beside`.
    pub fn worker(&self) -> Worker {
        let options = WorkerOptions::new(self.task_queue.as_str())
            .register_activities(self.activities.clone());
        let options = workflows::register(options).unwrap().build();
        Worker::new(&self.runtime, self.client.clone(), options).unwrap()
    }

    pub fn options(&self) -> WorkflowStartOptions {
        WorkflowStartOptions::new(self.task_queue.as_str(), Uuid::new_v4()).build()
    }

    pub async fn start<W>(&self, workflow: W, input: W::Input) -> WorkflowHandle<Client, W>
    where
        W: HasWorkflowDefinition,
        W::Input: Send,
    {
        self.client
            .start_workflow(workflow, input, self.options())
            .await
            .unwrap()
    }
}

/// The types of a run's events, whose ids have to count up from 1.
pub async fn history<W: HasWorkflowDefinition>(
    handle: &WorkflowHandle<Client, W>,
) -> Vec<EventType> {
    let history = handle.fetch_history(Default::default());
    let events = history.into_events().await.unwrap();
    let ids = events.iter().map(|event| event.event_id);
    assert!(ids.eq(1..=events.len() as i64), "{events:#?}");
    events.iter().map(|event| event.event_type()).collect()
}

pub fn count(history: &[EventType], one: EventType) -> usize {
    history.iter().filter(|each| **each == one).count()
}

pub struct Server {
    port: Port,
    directory: TempDir,
    process: Child,
}

impl Server {
    async fn start() -> Server {
        let (port, directory) = (Port::claim(), TempDir::new().unwrap());
        let process = Server::spawn(&port, &directory).await;
        Server {
            port,
            directory,
            process,
        }
    }

    /// SIGKILL: the server cannot tidy up, nor say goodbye.
    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// The same files, the same port.
    pub async fn restart(&mut self) {
        self.process = Server::spawn(&self.port, &self.directory).await;
    }

    async fn stop(mut self) {
        let id = self.process.id().expect("a server that runs");
        kill_process(Pid::from_raw(id as i32).unwrap(), Signal::TERM).unwrap();
        let status = self.process.wait().await.unwrap();
        assert!(status.success(), "the server ended with {status}");
    }

    async fn spawn(port: &Port, directory: &TempDir) -> Child {
        let binary = std::env::var_os("STEADFAST_BIN").expect("STEADFAST_BIN names the binary");
        let mut process = Command::new(binary)
            .args(["server", "start-dev", "--headless", "--log-level", "warn"])
            .args(["--port", &port.number.to_string()])
            .arg("--db-filename")
            .arg(directory.path().join("steadfast.db"))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port.number))
            .await
            .is_err()
        {
            assert_eq!(process.try_wait().unwrap(), None, "the server ended");
            assert!(Instant::now() < deadline, "the server does not listen");
            sleep(Duration::from_millis(10)).await;
        }
        process
    }
}

/// A port for a server, also while that is killed: nobody else takes it, in this process or another one.
struct Port {
    number: u16,
    /// Whoever listens on the port after it has both.
    _claim: TcpListener,
}

impl Port {
    /// Not from the range of which the kernel takes ports for outgoing connections: one of them could get
    /// the port of a killed server.
    fn claim() -> Port {
        let free = (17300..17400).step_by(2).find_map(|number| {
            let claim = TcpListener::bind(("127.0.0.1", number + 1)).ok()?;
            TcpListener::bind(("127.0.0.1", number)).ok()?;
            Some(Port {
                number,
                _claim: claim,
            })
        });
        free.expect("a free port")
    }
}
