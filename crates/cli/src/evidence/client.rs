//! Talking to a server over HTTP.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::RequestBuilder;
use ureq::typestate::WithoutBody;

/// How long a server may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same where it has to go through a whole log, or a whole store, first.
const SEARCH_PATIENCE: Duration = Duration::from_secs(600);

/// Which server, and how to reach it.
#[derive(Args, Clone)]
pub struct Server {
    /// Where the server serves HTTP.
    #[arg(long, default_value = "http://127.0.0.1:8233", value_name = "URL")]
    address: String,
    /// An API key, or a token of an issuer that the server knows. Better by the variable: others see the
    /// flags of a program that runs.
    #[arg(
        long,
        env = "STEADFAST_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    api_key: Option<String>,
    /// File with the certificates that the server is verified with (PEM); public ones by default.
    #[arg(long, env = "STEADFAST_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

impl Server {
    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address.trim_end_matches('/'))
    }

    /// Gets a path. Gives the body to read.
    pub fn get(&self, path: &str) -> Result<impl Read + use<>, String> {
        let url = self.url(path);
        let answer = accepted(&url, self.getting(&url, PATIENCE)?.call())?;
        Ok(answer.into_body().into_reader())
    }

    /// Gets a path that the server may search long for. Gives the JSON of the answer.
    pub fn search_json(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let url = self.url(path);
        let mut request = self.getting(&url, SEARCH_PATIENCE)?;
        for (name, value) in query {
            request = request.query(name, value);
        }
        json(&url, accepted(&url, request.call())?)
    }

    /// Posts JSON to a path. Gives the JSON of the answer.
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = self.url(path);
        let request = self.signed(self.agent(SEARCH_PATIENCE)?.post(&url));
        let answer = request
            .header("content-type", "application/json")
            .send(body.to_string());
        json(&url, accepted(&url, answer)?)
    }

    /// Puts JSON in place of what has a tag. Gives the JSON of the answer.
    pub fn put_json(&self, path: &str, tag: &str, body: &Value) -> Result<Value, String> {
        let url = self.url(path);
        let request = self.signed(self.agent(SEARCH_PATIENCE)?.put(&url));
        let answer = request
            .header("content-type", "application/json")
            .header("if-match", format!("\"{tag}\""))
            .send(body.to_string());
        json(&url, accepted(&url, answer)?)
    }

    /// Gets JSON.
    pub fn get_json(&self, path: &str) -> Result<Value, String> {
        let url = self.url(path);
        json(&url, accepted(&url, self.getting(&url, PATIENCE)?.call())?)
    }

    /// Posts bytes that are JSON already, as they are. Gives the JSON of the answer.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Result<Value, String> {
        let url = self.url(path);
        let request = self.signed(self.agent(PATIENCE)?.post(&url));
        let answer = request
            .header("content-type", "application/json")
            .send(body);
        json(&url, accepted(&url, answer)?)
    }

    /// Deletes what a path names. Gives the JSON of the answer.
    pub fn delete(&self, path: &str) -> Result<Value, String> {
        let url = self.url(path);
        let answer = self.signed(self.agent(PATIENCE)?.delete(&url)).call();
        json(&url, accepted(&url, answer)?)
    }

    fn getting(
        &self,
        url: &str,
        patience: Duration,
    ) -> Result<RequestBuilder<WithoutBody>, String> {
        Ok(self.signed(self.agent(patience)?.get(url)))
    }

    /// A request that says who asks.
    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.api_key {
            Some(key) => request.header("authorization", format!("Bearer {}", key.trim())),
            None => request,
        }
    }

    fn agent(&self, patience: Duration) -> Result<ureq::Agent, String> {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(patience))
            .http_status_as_error(false);
        let Some(path) = &self.tls_ca else {
            return Ok(config.build().into());
        };
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let pem = std::fs::read(path).map_err(|error| failed(&error))?;
        let mut certificates = Vec::new();
        for item in ureq::tls::parse_pem(&pem) {
            if let ureq::tls::PemItem::Certificate(certificate) =
                item.map_err(|error| failed(&error))?
            {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err(failed(&"no certificate"));
        }
        let roots = ureq::tls::RootCerts::Specific(Arc::new(certificates));
        let tls = ureq::tls::TlsConfig::builder().root_certs(roots).build();
        Ok(config.tls_config(tls).build().into())
    }
}

/// Which server, and which namespace of it.
#[derive(Args, Clone)]
pub struct Target {
    #[command(flatten)]
    server: Server,
    /// The namespace.
    #[arg(long, short = 'n', default_value = "default", value_name = "NAME")]
    pub namespace: String,
}

impl Target {
    /// Posts to a path below the namespace, and gives the body to read.
    pub fn post(&self, path: &str) -> Result<impl Read + use<>, String> {
        let (server, url) = (&self.server, self.server.url(&self.path(path)));
        let request = server.signed(server.agent(PATIENCE)?.post(&url));
        Ok(accepted(&url, request.send_empty())?
            .into_body()
            .into_reader())
    }

    /// Posts JSON to a path below the namespace. Gives the JSON of the answer.
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.server.post_json(&self.path(path), body)
    }

    /// Posts JSON to a path below the namespace, and gives the body to read.
    pub fn post_for_lines(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<impl Read + Send + use<>, String> {
        let (server, url) = (&self.server, self.server.url(&self.path(path)));
        let request = server.signed(server.agent(SEARCH_PATIENCE)?.post(&url));
        let answer = request
            .header("content-type", "application/json")
            .send(body.to_string());
        Ok(accepted(&url, answer)?.into_body().into_reader())
    }

    /// Posts bytes that are JSON to a path below the namespace. Gives the JSON of the answer.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Result<Value, String> {
        self.server.post_bytes(&self.path(path), body)
    }

    /// Gets a path below the namespace. Gives the id of the export that the answer is of, and the body
    /// to read.
    pub fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<(String, impl Read + use<>), String> {
        let url = self.server.url(&self.path(path));
        let mut request = self.server.getting(&url, SEARCH_PATIENCE)?;
        for (name, value) in query {
            request = request.query(name, value);
        }
        let answer = accepted(&url, request.call())?;
        let export = answer.headers().get("steadfast-export");
        let export = export.and_then(|id| id.to_str().ok()).unwrap_or_default();
        Ok((export.to_owned(), answer.into_body().into_reader()))
    }

    /// Gets a text of the namespace's log.
    pub fn log(&self, path: &str) -> Result<String, String> {
        let path = format!("/log/{}/{path}", escaped(&self.namespace));
        let mut text = String::new();
        let read = self.server.get(&path)?.read_to_string(&mut text);
        read.map_err(|error| format!("{}: {error}", self.server.url(&path)))?;
        Ok(text)
    }

    fn path(&self, path: &str) -> String {
        format!("/api/v1/namespaces/{}/{path}", escaped(&self.namespace))
    }
}

fn json(url: &str, answer: ureq::http::Response<ureq::Body>) -> Result<Value, String> {
    serde_json::from_reader(answer.into_body().into_reader())
        .map_err(|error| format!("{url}: not the answer of a server: {error}"))
}

/// An answer that is none of an error.
fn accepted(
    url: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<ureq::http::Response<ureq::Body>, String> {
    let answer = answer.map_err(|error| format!("{url}: {error}"))?;
    let status = answer.status();
    if !status.is_success() {
        let message = answer.into_body().read_to_string().unwrap_or_default();
        return Err(format!("{url}: {status}: {}", message.trim()));
    }
    Ok(answer)
}

/// A name as one segment of a path (RFC 3986, section 2.1).
pub fn escaped(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The lines of an answer, each a JSON value.
pub fn json_lines(body: impl Read) -> impl Iterator<Item = Result<Value, String>> {
    BufReader::new(body).lines().map(|line| {
        let line = line.map_err(|error| format!("the answer broke off: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("not the answer of a server: {error}"))
    })
}
