//! Talking to a server over HTTP.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use clap::Args;

/// How long a server may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same where it has to look through a whole log first.
const SEARCH_PATIENCE: Duration = Duration::from_secs(600);

/// Which server, and which namespace of it.
#[derive(Args, Clone)]
pub struct Target {
    /// Where the server serves HTTP.
    #[arg(long, default_value = "http://127.0.0.1:8233", value_name = "URL")]
    pub address: String,
    /// The namespace.
    #[arg(long, short = 'n', default_value = "default", value_name = "NAME")]
    pub namespace: String,
}

impl Target {
    /// Posts to a path below the namespace, and gives the body to read.
    pub fn post(&self, path: &str) -> Result<impl Read + use<>, String> {
        let url = self.url(path);
        let answer = agent(PATIENCE).post(&url).send_empty();
        Ok(accepted(&url, answer)?.into_body().into_reader())
    }

    /// Gets a path below the namespace. Gives the id of the export that the answer is of, and the body
    /// to read.
    pub fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<(String, impl Read + use<>), String> {
        let url = self.url(path);
        let mut request = agent(SEARCH_PATIENCE).get(&url);
        for (name, value) in query {
            request = request.query(name, value);
        }
        let answer = accepted(&url, request.call())?;
        let export = answer.headers().get("steadfast-export");
        let export = export.and_then(|id| id.to_str().ok()).unwrap_or_default();
        Ok((export.to_owned(), answer.into_body().into_reader()))
    }

    fn url(&self, path: &str) -> String {
        format!(
            "{}/api/v1/namespaces/{}/{path}",
            self.address.trim_end_matches('/'),
            escaped(&self.namespace)
        )
    }
}

fn agent(patience: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(patience))
        .http_status_as_error(false)
        .build()
        .into()
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
fn escaped(name: &str) -> String {
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
pub fn json_lines(body: impl Read) -> impl Iterator<Item = Result<serde_json::Value, String>> {
    BufReader::new(body).lines().map(|line| {
        let line = line.map_err(|error| format!("the answer broke off: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("not the answer of a server: {error}"))
    })
}
