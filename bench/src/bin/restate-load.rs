//! Calls a Restate service in a closed loop, and reports as `loadgen` does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use steadfast_bench::{
    closed_loop::{measure, resident_mib},
    report::Report,
    stats::Recorder,
};
use tokio::{net::TcpStream, task::JoinSet};

/// Generates load on Restate's ingress: each call is one invocation with one durable step.
#[derive(Parser)]
#[command(name = "restate-load")]
struct Options {
    /// The handler's address at the ingress.
    #[arg(long, default_value = "http://127.0.0.1:8080/Bench/step")]
    url: Uri,
    /// Calls kept in flight.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Measured seconds.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Seconds of load before the measurement.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Bytes of the call's input, of the step's result and of the answer.
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Process whose processor time and memory are the server's; may be repeated.
    #[arg(long)]
    pid: Vec<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// HTTP/2 connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
}

type Connection = SendRequest<Full<Bytes>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut connections = Vec::new();
    for _ in 0..options.connections.max(1) {
        connections.push(connect(&options.url).await?);
    }
    let body = Bytes::from(format!(
        "\"{}\"",
        "x".repeat(options.payload.saturating_sub(2))
    ));
    let recorder = Arc::new(Recorder::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut calls = JoinSet::new();
    for index in 0..options.in_flight.max(1) {
        let connection = connections[index % connections.len()].clone();
        let (url, body) = (options.url.clone(), body.clone());
        calls.spawn(keep_busy(
            connection,
            url,
            body,
            recorder.clone(),
            stop.clone(),
        ));
    }
    let warmup = Duration::try_from_secs_f64(options.warmup)?;
    let duration = Duration::try_from_secs_f64(options.duration)?;
    let window = measure(warmup, duration, &options.pid, &recorder).await?;
    let rss = resident_mib(&options.pid)?;
    stop.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while calls.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        recorder.failed("calls still open at the end");
    }
    let report = Report {
        mode: "restate",
        activities: 1,
        payload_bytes: options.payload,
        server_rss_mib: rss,
        ..window.report(options.in_flight, &recorder)
    };
    report.print(options.json)?;
    Ok(())
}

async fn connect(url: &Uri) -> Result<Connection> {
    let authority = url.authority().context("the URL names no host")?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80)))
        .await
        .with_context(|| format!("connecting to {authority}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // An error here also fails the calls on this connection, which are counted.
    tokio::spawn(connection);
    Ok(sender)
}

async fn keep_busy(
    mut connection: Connection,
    url: Uri,
    body: Bytes,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match call(&mut connection, url.clone(), body.clone()).await {
            Ok(()) => recorder.completed(begun.elapsed()),
            Err(error) => {
                recorder.failed(error.to_string());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn call(connection: &mut Connection, url: Uri, body: Bytes) -> Result<()> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.clone()))?;
    connection.ready().await?;
    let answer = connection.send_request(request).await?;
    let status = answer.status();
    let result = answer.into_body().collect().await?.to_bytes();
    ensure!(
        status.is_success(),
        "{status}: {}",
        String::from_utf8_lossy(&result)
    );
    ensure!(result == body, "the answer is not what the step returned");
    Ok(())
}
