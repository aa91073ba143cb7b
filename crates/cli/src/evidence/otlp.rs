//! `steadfast evidence otlp`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::Target;
use super::lines::Lines;

/// How long the next request may take to be made.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long a collector may take to answer.
const COLLECTOR_PATIENCE: Duration = Duration::from_secs(30);

/// How often a request is sent before the export fails.
const TRIES: u32 = 6;

/// The pause before the second try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause, also where a collector asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Characters of a collector's answer that are shown.
const SHOWN: usize = 500;

/// Send runs as traces to a collector, with OTLP over HTTP. Headers for it, such as credentials, are
/// taken from OTEL_EXPORTER_OTLP_HEADERS.
#[derive(Args)]
pub struct Otlp {
    #[command(flatten)]
    target: Target,
    /// The collector; requests are posted to <URL>/v1/traces.
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// Only the runs of this workflow, also open ones as far as they have come.
    #[arg(long, short, value_name = "ID")]
    workflow_id: Option<String>,
    /// Only runs that closed at this time (RFC 3339) or after it.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only runs that closed before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl Otlp {
    /// Runs the export. The code is 1 if the collector rejected spans.
    pub fn run(self) -> Result<ExitCode, String> {
        let headers = std::env::var("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default();
        let collector = Collector::new(&self.endpoint, &headers)?;
        let given = [
            ("workflow_id", &self.workflow_id),
            ("from", &self.from),
            ("to", &self.to),
        ];
        let query = given.iter().filter_map(|(name, value)| {
            let value = value.as_deref()?;
            Some((*name, value))
        });
        let query: Vec<_> = query.collect();
        let (_, body) = self.target.get("evidence/otlp", &query)?;
        let mut lines = Lines::new(body, PATIENCE);
        let (mut spans, mut requests, mut rejected) = (0, 0, 0);
        while let Some(line) = lines.next(|| Ok(()))? {
            let request = serde_json::from_slice(&line);
            let request =
                request.map_err(|error| format!("not the answer of a server: {error}"))?;
            rejected += collector.send(&line)?;
            spans += spans_in(&request);
            requests += 1;
        }
        eprintln!("sent {spans} spans in {requests} requests");
        if rejected > 0 {
            eprintln!("the collector rejected {rejected} of them");
        }
        Ok(ExitCode::from(u8::from(rejected > 0)))
    }
}

fn spans_in(request: &Value) -> usize {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let of_resources = list(&request["resourceSpans"]);
    let of_scopes = of_resources.iter().flat_map(|of| list(&of["scopeSpans"]));
    of_scopes
        .map(|of| of["spans"].as_array().map_or(0, Vec::len))
        .sum()
}

/// Where traces go.
struct Collector {
    agent: ureq::Agent,
    url: String,
    headers: Vec<(String, String)>,
}

/// Why a request was not taken.
struct Refused {
    why: String,
    /// Whether it may be taken later, and after which pause if the collector says so.
    retry: Option<Option<Duration>>,
}

impl Collector {
    fn new(endpoint: &str, headers: &str) -> Result<Self, String> {
        let endpoint = endpoint.trim_end_matches('/');
        let endpoint = endpoint.strip_suffix("/v1/traces").unwrap_or(endpoint);
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(COLLECTOR_PATIENCE))
            .http_status_as_error(false)
            .build()
            .into();
        Ok(Self {
            agent,
            url: format!("{endpoint}/v1/traces"),
            headers: parse_headers(headers)
                .ok_or("OTEL_EXPORTER_OTLP_HEADERS is not of the form name=value,name=value")?,
        })
    }

    /// Sends a request, again if need be. Gives how many spans the collector rejected for good.
    fn send(&self, request: &[u8]) -> Result<u64, String> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            let refused = match self.post(request) {
                Ok(rejected) => return Ok(rejected),
                Err(refused) => refused,
            };
            let Some(asked) = refused.retry.filter(|_| tries < TRIES) else {
                let url = &self.url;
                return Err(format!("{url}: {} (tried {tries} times)", refused.why));
            };
            std::thread::sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE));
            pause *= 2;
            tries += 1;
        }
    }

    fn post(&self, request: &[u8]) -> Result<u64, Refused> {
        let mut post = self.agent.post(&self.url).content_type("application/json");
        for (name, value) in &self.headers {
            post = post.header(name, value);
        }
        let answer = post.send(request).map_err(|error| Refused {
            why: error.to_string(),
            retry: Some(None),
        })?;
        let status = answer.status();
        let after = answer.headers().get("retry-after");
        let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = answer.into_body().read_to_string().unwrap_or_default();
        if status.is_success() {
            return Ok(rejected(&body));
        }
        // Those that the protocol names as worth another try.
        let is_temporary = matches!(status.as_u16(), 429 | 502 | 503 | 504);
        let shown: String = body.trim().chars().take(SHOWN).collect();
        Err(Refused {
            why: format!("{status}: {shown}"),
            retry: is_temporary.then(|| after.map(Duration::from_secs)),
        })
    }
}

/// How many spans an answer says were rejected. A number of 64 bits is a string in this JSON; some
/// collectors write a number.
fn rejected(answer: &str) -> u64 {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let rejected = &answer["partialSuccess"]["rejectedSpans"];
    let text = rejected.as_str().and_then(|text| text.parse().ok());
    rejected.as_u64().or(text).unwrap_or(0)
}

/// Headers as the variable has them: `name=value`, commas in between, values percent-encoded.
fn parse_headers(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let headers = parts.map(|part| {
        let (name, value) = part.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then(|| Some((name.to_owned(), decoded(value.trim())?)))?
    });
    headers.collect()
}

fn decoded(value: &str) -> Option<String> {
    let mut parts = value.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_the_variable_has_them() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(parse_headers(""), Some(Vec::new()));
        assert_eq!(
            parse_headers("authorization=Basic%20YWI=, x-tenant = one"),
            Some(vec![
                pair("authorization", "Basic YWI="),
                pair("x-tenant", "one")
            ])
        );
        for bad in ["authorization", "=value", "a=%2", "a=%zz", "a=%ff"] {
            assert_eq!(parse_headers(bad), None, "{bad}");
        }
    }

    #[test]
    fn rejected_spans_are_counted() {
        for (answer, expected) in [
            ("", 0),
            ("{}", 0),
            (r#"{"partialSuccess":{}}"#, 0),
            (r#"{"partialSuccess":{"rejectedSpans":"3"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":4}}"#, 4),
        ] {
            assert_eq!(rejected(answer), expected, "{answer}");
        }
    }

    #[test]
    fn an_endpoint_may_have_the_path_already() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            let collector = Collector::new(endpoint, "").expect("an endpoint");
            assert_eq!(collector.url, "http://c:4318/v1/traces");
        }
    }
}
