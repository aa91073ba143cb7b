//! The Restate side of the comparison: a service whose one handler does one durable step.
//!
//! `bench-restate-step [ADDRESS]` serves it, by default on 127.0.0.1:9080.

use std::net::SocketAddr;

use restate_sdk::prelude::*;

struct Bench;

#[service]
impl Bench {
    /// Journals one step whose result is as large as its input, then returns that result.
    #[handler]
    async fn step(&self, context: Context<'_>, input: String) -> Result<String, HandlerError> {
        let result = context
            .run(|| async move { Ok(input) })
            .name("step")
            .await?;
        Ok(result)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), std::net::AddrParseError> {
    let address: SocketAddr = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9080".to_owned())
        .parse()?;
    HttpServer::new(Endpoint::builder().bind(Bench).build())
        .listen_and_serve(address)
        .await;
    Ok(())
}
