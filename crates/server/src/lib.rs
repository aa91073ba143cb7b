//! The server: gRPC and HTTP over the runtime. The only place that knows status codes.

mod access;
pub mod attestations;
pub mod authn;
pub mod config;
pub mod connections;
mod console;
pub mod credentials;
pub mod evidence;
pub mod gate;
pub mod governance;
pub mod grpc;
pub mod http;
mod offboarding;
mod private_file;
pub mod serve;
pub mod shapes;
pub mod telemetry;
pub mod tls;
pub mod webhooks;

pub use config::Config;
pub use serve::{Server, ServerError};
pub use steadfast_runtime::Runtime;
