//! Starting and stopping a server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use steadfast_api::operatorservice::operator_service_server::OperatorServiceServer;
use steadfast_api::workflowservice::workflow_service_server::WorkflowServiceServer;
use steadfast_engine::proto::enums::IndexedValueType;
use steadfast_runtime::namespaces::Namespace;
use steadfast_runtime::{Permit, Runtime};
use steadfast_store::sqlite::{SqliteOptions, SqliteStore};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;

use crate::attestations::Attestations;
use crate::authn::{AuthLayer, Authenticator, Peer};
use crate::config::{Config, NamespaceConfig, WitnessConfig};
use crate::connections::Connections;
use crate::credentials::Credentials;
use crate::evidence::{self, Publisher, Witnesses};
use crate::gate::{Gate, Refusals, Target};
use crate::governance;
use crate::grpc::Service;
use crate::tls::{Protocol, Tls};
use crate::webhooks::Webhooks;

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
    /// The logs cannot be opened.
    #[error("the log of evidence cannot be opened: {0}")]
    Evidence(String),
    /// A certificate or its key cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// Tool calls cannot be given credentials.
    #[error("credentials: {0}")]
    Credentials(String),
    /// Callers cannot be authenticated.
    #[error("authentication: {0}")]
    Auth(String),
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
    /// None where evidence is off.
    publisher: Option<Publisher>,
    witnesses: Vec<WitnessConfig>,
    policies: governance::InForce,
    policy_files: Option<governance::Watch>,
    /// None where nobody is authenticated.
    authenticator: Option<Authenticator>,
    /// None where tool calls get no credentials.
    credentials: Option<Credentials>,
    webhooks: Webhooks,
    tls: Option<Tls>,
    grpc: TcpListener,
    http: Option<TcpListener>,
}

impl Server {
    /// Opens the store and the ports.
    pub async fn start(config: &Config) -> Result<Self, ServerError> {
        config.check().map_err(ServerError::Config)?;
        let mtls = config.auth.mtls.as_ref();
        let tls = config.tls.as_ref().map(|tls| Tls::open(tls, mtls));
        let tls = tls.transpose().map_err(ServerError::Tls)?;
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
        evidence::settings::note_changes(&runtime, config)
            .await
            .map_err(ServerError::Evidence)?;
        let attestations = Attestations::open(&runtime, &config.prove)
            .await
            .map_err(ServerError::Config)?;
        let path = config.policy.path.as_deref();
        let (policies, policy_files) =
            governance::start(&runtime, path, config.auth.is_on(), attestations)
                .await
                .map_err(ServerError::Config)?;
        let webhooks = Webhooks::open(&runtime, config)
            .await
            .map_err(|error| ServerError::Config(format!("webhook {error}")))?;
        let publisher = match config.evidence.off_for_benchmarks {
            true => None,
            false => {
                let opened = evidence::open(&runtime, config).await;
                Some(opened.map_err(ServerError::Evidence)?)
            }
        };
        let authenticator = Authenticator::open(&runtime, config)
            .await
            .map_err(ServerError::Auth)?;
        let logs = publisher.as_ref().map(Publisher::logs);
        let address = http.as_ref().and_then(|of| of.local_addr().ok());
        let logs = &logs.unwrap_or_default();
        let credentials = Credentials::open(&runtime, config, address, logs)
            .await
            .map_err(ServerError::Credentials)?;
        Ok(Self {
            runtime,
            authenticator,
            credentials,
            webhooks,
            tls,
            publisher,
            witnesses: config.evidence.witnesses.clone(),
            policies,
            policy_files,
            grpc,
            http,
        })
    }

    /// What it runs on.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Who issues the credentials of tool calls, if they get some.
    pub fn issuer(&self) -> Option<&str> {
        self.credentials.as_ref().map(Credentials::issuer)
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
        let logs = self
            .publisher
            .as_ref()
            .map(Publisher::logs)
            .unwrap_or_default();
        let witnesses = Witnesses::default();
        let mut tasks = witnesses
            .start(&runtime, &logs, &self.witnesses)
            .map_err(ServerError::Config)?;
        if let Some(publisher) = self.publisher {
            tasks.push(tokio::spawn(publisher.run()));
        }
        tasks.extend(self.webhooks.start(&runtime, &logs));
        if let Some(watch) = self.policy_files {
            tasks.push(tokio::spawn(watch.run()));
        }
        let authenticator = self.authenticator;
        tasks.extend(authenticator.iter().flat_map(Authenticator::start));
        let unauthenticated = authenticator.as_ref().map(Authenticator::refused);
        let (refusals, writing) = Refusals::new(&runtime, unauthenticated.unwrap_or_default());
        tasks.push(tokio::spawn(writing));
        let gate = Gate::new(authenticator.is_some(), self.policies, refusals)
            .without(runtime.disabled().clone())
            .with_runtime(runtime.clone());
        if let Some(credentials) = self.credentials.clone() {
            tasks.push(tokio::spawn(credentials.rotate_keys()));
        }
        if let Some(tls) = &self.tls {
            tasks.push(tokio::spawn(tls.clone().follow_files()));
        }
        if let Some(listener) = self.http {
            let authenticator = authenticator.clone();
            let credentials = self.credentials.clone();
            let router = crate::http::router(
                runtime.clone(),
                logs,
                witnesses,
                authenticator,
                credentials,
                gate.clone(),
                self.webhooks.clone(),
            );
            let http = serve_http(listener, runtime.clone(), self.tls.clone(), router);
            tasks.push(tokio::spawn(http));
        }
        let grpc = serve_grpc(self.grpc, runtime.clone(), self.tls, authenticator, gate);
        let mut grpc = tokio::spawn(grpc);
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
        for task in tasks {
            task.abort();
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
        false => {
            let (options, warnings) = sqlite_options(&config.store.pragmas);
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            SqliteStore::open(path, options)
        }
    };
    opened.map_err(|error| ServerError::Store {
        path: path.display().to_string(),
        error,
    })
}

/// The store's options with pragmas for both of its files, and what whoever set them must know.
fn sqlite_options(pragmas: &BTreeMap<String, String>) -> (SqliteOptions, Vec<String>) {
    let mut kept = Vec::new();
    let mut warnings = Vec::new();
    for (name, value) in pragmas {
        let (name, value) = (name.trim().to_lowercase(), value.trim());
        let is_one_of = |values: &[&str]| values.iter().any(|of| of.eq_ignore_ascii_case(value));
        match name.as_str() {
            "journal_mode" if !is_one_of(&["wal"]) => {
                warnings.push(format!(
                    "the pragma journal_mode={value} is IGNORED: the store works with a \
                     write-ahead log only"
                ));
                continue;
            }
            "synchronous" if !is_one_of(&["full", "2", "extra", "3"]) => {
                warnings.push(format!(
                    "the pragma synchronous={value} makes the journal UNSAFE: a power failure may \
                     lose, or damage, what was acknowledged"
                ));
            }
            _ => {}
        }
        kept.push((name, value.to_owned()));
    }
    let options = SqliteOptions {
        journal_pragmas: kept.clone(),
        projection_pragmas: kept,
        ..SqliteOptions::default()
    };
    (options, warnings)
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
    let wanted = search_attributes(&namespace, config).map_err(ServerError::Config)?;
    for (name, number) in wanted {
        runtime
            .store()
            .add_search_attribute(&namespace.id, &name, number)
            .await
            .map_err(steadfast_runtime::RuntimeError::from)?;
        namespace.search_attributes.insert(name, number);
    }
    let permit = Permit::internal("configuration");
    runtime.put_namespace(&permit, namespace).await?;
    Ok(())
}

/// The search attributes that a namespace is to have, with their types as numbers.
fn search_attributes(
    namespace: &Namespace,
    config: &NamespaceConfig,
) -> Result<Vec<(String, i32)>, String> {
    let mut wanted = Vec::new();
    for (name, type_name) in &config.search_attributes {
        let Some(value_type) = steadfast_runtime::visibility::type_by_name(type_name) else {
            return Err(format!(
                "search attribute {name} has the unknown type {type_name:?}"
            ));
        };
        let number = value_type as i32;
        // Runs have values of the type that is there, and their index is for that type.
        if let Some(present) = namespace.search_attributes.get(name)
            && *present != number
        {
            let present = IndexedValueType::try_from(*present)
                .map_or("of another type", steadfast_runtime::visibility::type_name);
            return Err(format!(
                "search attribute {name} of namespace {} is {present} and cannot become \
                 {type_name}: give the new one another name",
                config.name
            ));
        }
        wanted.push((name.clone(), number));
    }
    Ok(wanted)
}

async fn serve_grpc(
    listener: TcpListener,
    runtime: Runtime,
    tls: Option<Tls>,
    authenticator: Option<Authenticator>,
    gate: Gate,
) -> Result<(), ServerError> {
    let failed = |error: &dyn std::fmt::Display| ServerError::Transport(error.to_string());
    let service = Service::new(runtime.clone(), gate.clone());
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
    let reflects = move |request: tonic::Request<()>| {
        let about = Target::of("");
        gate.admit("ServerReflectionInfo", request.extensions(), &about)?;
        Ok(request)
    };
    let gzip = CompressionEncoding::Gzip;
    let router = tonic::transport::Server::builder()
        .layer(AuthLayer(authenticator))
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .tcp_nodelay(true)
        .add_service(health.accept_compressed(gzip))
        .add_service(InterceptedService::new(
            reflection()
                .build_v1()
                .map_err(|e| failed(&e))?
                .accept_compressed(gzip),
            reflects.clone(),
        ))
        .add_service(InterceptedService::new(
            reflection()
                .build_v1alpha()
                .map_err(|e| failed(&e))?
                .accept_compressed(gzip),
            reflects,
        ))
        .add_service(
            OperatorServiceServer::new(service.clone())
                .accept_compressed(gzip)
                .max_decoding_message_size(MAX_REQUEST_BYTES),
        )
        .add_service(
            WorkflowServiceServer::new(service)
                .accept_compressed(gzip)
                .max_decoding_message_size(MAX_REQUEST_BYTES),
        );
    let stopping = async move { runtime.stopping().await };
    let served = match tls {
        None => {
            let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
            router
                .serve_with_incoming_shutdown(connections, stopping)
                .await
        }
        Some(tls) => {
            let connections = Connections::accept(listener, tls, Protocol::Grpc);
            let connections = connections.map_err(|error| failed(&error))?;
            router
                .serve_with_incoming_shutdown(connections, stopping)
                .await
        }
    };
    served.map_err(|error| failed(&error))
}

async fn serve_http(
    listener: TcpListener,
    runtime: Runtime,
    tls: Option<Tls>,
    router: axum::Router,
) {
    let stopping = async move { runtime.stopping().await };
    let served = match tls {
        None => {
            axum::serve(listener, router)
                .with_graceful_shutdown(stopping)
                .await
        }
        Some(tls) => match Connections::accept(listener, tls, Protocol::Http) {
            Ok(connections) => {
                let router = router.into_make_service_with_connect_info::<Peer>();
                axum::serve(connections, router)
                    .with_graceful_shutdown(stopping)
                    .await
            }
            Err(error) => Err(error),
        },
    };
    if let Err(error) = served {
        tracing::error!(%error, "serving HTTP failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pragmas_reach_both_files_and_none_weakens_the_journal_silently() {
        let table: [(&str, &str, bool, bool); 9] = [
            ("mmap_size", "1048576", true, false),
            ("journal_mode", "WAL", true, false),
            ("journal_mode", "delete", false, true),
            ("Journal_Mode", "off", false, true),
            ("synchronous", "FULL", true, false),
            ("synchronous", "3", true, false),
            ("synchronous", "normal", true, true),
            ("SYNCHRONOUS", " off ", true, true),
            ("synchronous", "0", true, true),
        ];
        for (name, value, applied, warned) in table {
            let pragmas = [(name.to_owned(), value.to_owned())].into();
            let (options, warnings) = sqlite_options(&pragmas);
            let expected: Vec<_> = [(name.to_lowercase(), value.trim().to_owned())]
                .into_iter()
                .filter(|_| applied)
                .collect();
            assert_eq!(options.journal_pragmas, expected, "{name}={value}");
            assert_eq!(options.projection_pragmas, expected, "{name}={value}");
            assert_eq!(!warnings.is_empty(), warned, "{name}={value}");
        }
    }

    #[tokio::test]
    async fn a_search_attribute_keeps_its_type() {
        let store = SqliteStore::open_in_memory().expect("a store");
        let runtime = Runtime::open(Arc::new(store), Default::default())
            .await
            .expect("a runtime");
        let with = |attributes: &[(&str, &str)]| NamespaceConfig {
            search_attributes: attributes
                .iter()
                .map(|(name, of)| ((*name).to_owned(), (*of).to_owned()))
                .collect(),
            ..NamespaceConfig::named("default")
        };
        let first = with(&[("Customer", "Keyword")]);
        ensure_namespace(&runtime, &first).await.expect("made");
        ensure_namespace(&runtime, &first).await.expect("there");
        let changed = with(&[("Amount", "Int"), ("Customer", "Int")]);
        let refused = ensure_namespace(&runtime, &changed).await;
        let message = refused.expect_err("refused").to_string();
        assert!(
            message.contains("Customer of namespace default is Keyword and cannot become Int"),
            "{message}"
        );
        let namespace = runtime.namespaces().by_name("default").expect("there");
        let expected = [("Customer".to_owned(), IndexedValueType::Keyword as i32)];
        assert_eq!(namespace.search_attributes, expected.into());
    }
}
