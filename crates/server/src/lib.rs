//! The server: gRPC and HTTP over the runtime. The only place that knows status codes.

pub mod config;
pub mod evidence;
pub mod grpc;
pub mod http;
pub mod serve;
pub mod shapes;
pub mod telemetry;

pub use config::Config;
pub use serve::{Server, ServerError};
