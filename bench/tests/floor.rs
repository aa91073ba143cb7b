//! The load generator and the floor, together: what one sends the other must answer.

use std::path::PathBuf;

use clap::Parser;
use steadfast_api::workflowservice::workflow_service_server::WorkflowServiceServer;
use steadfast_bench::{
    closed_loop,
    floor::{journal::Journal, service::Floor},
    idle,
    options::Options,
};
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};

struct RunningFloor {
    address: String,
    path: PathBuf,
}

impl RunningFloor {
    async fn start(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}.db", std::process::id()));
        let journal = Journal::open(&path).expect("a journal");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let service = WorkflowServiceServer::new(Floor::new(journal, 1100));
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Self { address, path }
    }

    fn options(&self, more: &[&str]) -> Options {
        let always = [
            "loadgen",
            "--address",
            &self.address,
            "--in-flight",
            "8",
            "--warmup",
            "0.1",
        ];
        Options::parse_from(always.iter().chain(more))
    }

    fn rows(&self) -> u64 {
        let reader = rusqlite::Connection::open(&self.path).expect("the journal's file");
        let count = reader.query_row("SELECT count(*) FROM journal", (), |row| {
            row.get::<_, i64>(0)
        });
        count.expect("a count").unsigned_abs()
    }
}

impl Drop for RunningFloor {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            let _ = std::fs::remove_file(name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_complete_with_any_number_of_activities() {
    let floor = RunningFloor::start("floor-loop").await;
    let mut rows_before = 0;
    for activities in ["0", "1", "3"] {
        let options = floor.options(&["--duration", "0.5", "--activities", activities]);
        let report = closed_loop::run(&options).await.expect("a report");
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        assert!(report.workflows > 0);
        // A start, two for each activity, and the task that ends it.
        let per_workflow = 2 + 2 * u64::from(options.activities);
        let rows = floor.rows() - rows_before;
        assert!(
            rows >= report.workflows as u64 * per_workflow,
            "{rows} rows"
        );
        assert_eq!(
            rows % per_workflow,
            0,
            "a workflow that was drained left all its rows"
        );
        rows_before += rows;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_as_many_idle_workflows_as_asked_for() {
    let floor = RunningFloor::start("floor-idle").await;
    let report = idle::run(&floor.options(&["--idle", "100"]), 100)
        .await
        .expect("a report");
    assert_eq!(report.workflows, 100);
    // Each start, and each first task.
    assert_eq!(floor.rows(), 200);
}
