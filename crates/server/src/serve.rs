//! Starting and stopping a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use steadfast_api::operatorservice::operator_service_server::OperatorServiceServer;
use steadfast_api::workflowservice::workflow_service_server::WorkflowServiceServer;
use steadfast_runtime::Runtime;
use steadfast_runtime::namespaces::Namespace;
use steadfast_store::sqlite::{SqliteOptions, SqliteStore};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;

use crate::config::{Config, NamespaceConfig};
use crate::grpc::Service;

/// How long calls may take to end after the server was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Largest request, in bytes: beyond the limits of payloads, so that those give the better message.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// Why a server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// The store cannot be opened.
    #[error("the store {path} cannot be opened: {error}")]
    Store {
        /// Which one.
        path: String,
        /// Why.
        error: steadfast_store::StoreError,
    },
    /// A port is taken, or may not be used.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The runtime cannot be opened on the store.
    #[error("{0}")]
    Runtime(#[from] steadfast_runtime::RuntimeError),
    /// The transport failed.
    #[error("serving failed: {0}")]
    Transport(String),
}

/// A server that listens, and serves once [`Server::run`] is called.
pub struct Server {
    runtime: Runtime,
    grpc: TcpListener,
    http: Option<TcpListener>,
}

impl Server {
    /// Opens the store and the ports.
    pub async fn start(config: &Config) -> Result<Self, ServerError> {
        config.check().map_err(ServerError::Config)?;
        let grpc = listen(config.grpc).await?;
        let http = match config.http {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let store = open_store(config)?;
        let runtime = Runtime::open(Arc::new(store), config.settings()).await?;
        for namespace in &config.namespaces {
            ensure_namespace(&runtime, namespace).await?;
        }
        Ok(Self {
            runtime,
            grpc,
            http,
        })
    }

    /// Where gRPC is served: the configured address, with the port that the system chose for 0.
    pub fn grpc_address(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Serves until `stop` resolves: then polls are answered, calls end, and what is queued is
    /// written.
    pub async fn run(
        self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError> {
        let runtime = self.runtime;
        tokio::spawn({
            let runtime = runtime.clone();
            async move {
                stop.await;
                runtime.stop();
            }
        });
        let http = self
            .http
            .map(|listener| tokio::spawn(serve_http(listener, runtime.clone())));
        let mut grpc = tokio::spawn(serve_grpc(self.grpc, runtime.clone()));
        runtime.stopping().await;
        let served = match tokio::time::timeout(GRACE, &mut grpc).await {
            Ok(Ok(served)) => served,
            Ok(Err(error)) => Err(ServerError::Transport(error.to_string())),
            // Clients that keep their connections open do not keep the server from ending.
            Err(_) => {
                grpc.abort();
                Ok(())
            }
        };
        if let Some(http) = http {
            http.abort();
        }
        runtime.close().await?;
        served
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| ServerError::Listen { address, error })
}

fn open_store(config: &Config) -> Result<SqliteStore, ServerError> {
    let path = &config.store.path;
    let opened = match path.as_os_str() == ":memory:" {
        true => SqliteStore::open_in_memory(),
        false => SqliteStore::open(
            path,
            SqliteOptions {
                projection_pragmas: config.store.pragmas.clone().into_iter().collect(),
                ..SqliteOptions::default()
            },
        ),
    };
    opened.map_err(|error| ServerError::Store {
        path: path.display().to_string(),
        error,
    })
}

/// Makes a namespace if it is not there, and adds the search attributes that it lacks.
async fn ensure_namespace(runtime: &Runtime, config: &NamespaceConfig) -> Result<(), ServerError> {
    let mut namespace = match runtime.namespaces().by_name(&config.name) {
        Ok(namespace) => (*namespace).clone(),
        Err(_) => Namespace {
            retention: config.retention(),
            ..Namespace::new(&config.name)
        },
    };
    for (name, type_name) in &config.search_attributes {
        let Some(value_type) = steadfast_runtime::visibility::type_by_name(type_name) else {
            return Err(ServerError::Config(format!(
                "search attribute {name} has the unknown type {type_name:?}"
            )));
        };
        let number = value_type as i32;
        runtime
            .store()
            .add_search_attribute(&namespace.id, name, number)
            .await
            .map_err(steadfast_runtime::RuntimeError::from)?;
        namespace.search_attributes.insert(name.clone(), number);
    }
    runtime
        .namespaces()
        .put(&**runtime.store(), namespace)
        .await?;
    Ok(())
}

async fn serve_grpc(listener: TcpListener, runtime: Runtime) -> Result<(), ServerError> {
    let failed = |error: &dyn std::fmt::Display| ServerError::Transport(error.to_string());
    let service = Service::new(runtime.clone());
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_serving::<WorkflowServiceServer<Service>>()
        .await;
    reporter
        .set_serving::<OperatorServiceServer<Service>>()
        .await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(steadfast_api::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let gzip = CompressionEncoding::Gzip;
    tonic::transport::Server::builder()
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .tcp_nodelay(true)
        .add_service(health.accept_compressed(gzip))
        .add_service(
            reflection()
                .build_v1()
                .map_err(|e| failed(&e))?
                .accept_compressed(gzip),
        )
        .add_service(
            reflection()
                .build_v1alpha()
                .map_err(|e| failed(&e))?
                .accept_compressed(gzip),
        )
        .add_service(
            OperatorServiceServer::new(service.clone())
                .accept_compressed(gzip)
                .max_decoding_message_size(MAX_REQUEST_BYTES),
        )
        .add_service(
            WorkflowServiceServer::new(service)
                .accept_compressed(gzip)
                .max_decoding_message_size(MAX_REQUEST_BYTES),
        )
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async move { runtime.stopping().await },
        )
        .await
        .map_err(|error| failed(&error))
}

async fn serve_http(listener: TcpListener, runtime: Runtime) {
    let stopping = runtime.clone();
    let served = axum::serve(listener, crate::http::router(runtime))
        .with_graceful_shutdown(async move { stopping.stopping().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "serving HTTP failed");
    }
}
