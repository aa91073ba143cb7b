//! Spans, and requests that carry them, as OTLP over HTTP has them in JSON.
//!
//! In this JSON ids are hexadecimal, integers of 64 bits are strings, and enumerations are numbers
//! (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding").

use serde_json::{Value, json};
use steadfast_ledger::Hash;

/// `SPAN_KIND_INTERNAL`
const KIND_INTERNAL: u8 = 1;

/// `STATUS_CODE_ERROR`
const STATUS_ERROR: u8 = 2;

/// Names a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// Names a span within its trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// The trace of a session: the first run's id, which is a UUID, so that people find it by that.
    pub fn of_session(first_run_id: &str) -> Self {
        Self(match uuid::Uuid::parse_str(first_run_id) {
            Ok(uuid) => uuid.into_bytes(),
            Err(_) => beginning(&format!("steadfast/trace/{first_run_id}")),
        })
    }
}

impl SpanId {
    /// The span of a run.
    pub fn of_run(run_id: &str) -> Self {
        Self::new(run_id, 0, 0)
    }

    /// The span of what an event of a run began. Only activities have attempts.
    pub fn new(run_id: &str, event_id: i64, attempt: i32) -> Self {
        let name = format!("steadfast/span/{run_id}/{event_id}/{attempt}");
        Self(beginning(&name))
    }
}

/// The same text gives the same id, so that what is exported twice is the same.
fn beginning<const N: usize>(text: &str) -> [u8; N] {
    let mut id = [0; N];
    id.copy_from_slice(&Hash::of(text.as_bytes()).0[..N]);
    id
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A text.
    Text(String),
    /// An integer.
    Number(i64),
}

/// Attributes in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(&'static str, AttributeValue)>);

impl Attributes {
    /// Adds a text, unless it is empty.
    pub fn text(&mut self, key: &'static str, value: &str) -> &mut Self {
        if !value.is_empty() {
            self.0.push((key, AttributeValue::Text(value.to_owned())));
        }
        self
    }

    /// Adds an integer.
    pub fn number(&mut self, key: &'static str, value: i64) -> &mut Self {
        self.0.push((key, AttributeValue::Number(value)));
        self
    }

    fn json(&self) -> Value {
        let value = |value: &AttributeValue| match value {
            AttributeValue::Text(text) => json!({ "stringValue": text }),
            AttributeValue::Number(number) => json!({ "intValue": number.to_string() }),
        };
        let attributes = self.0.iter();
        attributes
            .map(|(key, of)| json!({ "key": key, "value": value(of) }))
            .collect()
    }
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanEvent {
    /// When.
    pub time: i64,
    /// What.
    pub name: &'static str,
    /// More about it.
    pub attributes: Attributes,
}

/// One span. Times are nanoseconds since the epoch.
#[derive(Clone)]
pub struct Span {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The span that it is part of.
    pub parent: Option<SpanId>,
    /// Spans of other runs that it follows.
    pub links: Vec<(TraceId, SpanId)>,
    /// Its name.
    pub name: String,
    /// When it began.
    pub start: i64,
    /// When it ended.
    pub end: i64,
    /// More about it.
    pub attributes: Attributes,
    /// What happened meanwhile.
    pub events: Vec<SpanEvent>,
    /// Events that there was no room for.
    pub dropped_events: u32,
    /// Whether it failed.
    pub failed: bool,
}

impl Span {
    fn json(&self) -> Value {
        let mut span = json!({
            "traceId": hex(&self.trace_id.0),
            "spanId": hex(&self.span_id.0),
            "name": self.name,
            "kind": KIND_INTERNAL,
            "startTimeUnixNano": self.start.max(0).to_string(),
            "endTimeUnixNano": self.end.max(self.start).max(0).to_string(),
            "attributes": self.attributes.json(),
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = hex(&parent.0).into();
        }
        if !self.events.is_empty() {
            span["events"] = self.events.iter().map(SpanEvent::json).collect();
        }
        if self.dropped_events > 0 {
            span["droppedEventsCount"] = self.dropped_events.into();
        }
        if !self.links.is_empty() {
            let link = |(trace_id, span_id): &(TraceId, SpanId)| json!({ "traceId": hex(&trace_id.0), "spanId": hex(&span_id.0) });
            span["links"] = self.links.iter().map(link).collect();
        }
        if self.failed {
            span["status"] = json!({ "code": STATUS_ERROR });
        }
        span
    }
}

impl SpanEvent {
    fn json(&self) -> Value {
        json!({
            "timeUnixNano": self.time.max(0).to_string(),
            "name": self.name,
            "attributes": self.attributes.json(),
        })
    }
}

/// An `ExportTraceServiceRequest` with spans of one namespace.
pub fn request(namespace: &str, spans: &[Span]) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let mut resource = Attributes::default();
    resource
        .text("service.name", "steadfast")
        .text("service.version", version)
        .text("steadfast.namespace", namespace);
    json!({
        "resourceSpans": [{
            "resource": { "attributes": resource.json() },
            "scopeSpans": [{
                "scope": { "name": "steadfast", "version": version },
                "spans": spans.iter().map(Span::json).collect::<Vec<_>>(),
            }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_as_the_specification_has_it() {
        let run_id = "0820fb2f-84c2-4e76-b3b1-61bff1b2d2f6";
        let mut attributes = Attributes::default();
        attributes
            .text("gen_ai.tool.name", "pay")
            .text("left.out", "")
            .number("steadfast.attempt", 2);
        let trace_id = TraceId::of_session(run_id);
        let span = Span {
            trace_id,
            span_id: SpanId::new(run_id, 9, 2),
            parent: Some(SpanId::of_run(run_id)),
            links: vec![(trace_id, SpanId::of_run("before"))],
            name: "execute_tool pay".into(),
            start: 1_700_000_000_123_456_789,
            end: 1_700_000_001_000_000_000,
            attributes,
            events: vec![SpanEvent {
                time: 1_700_000_000_500_000_000,
                name: "signal",
                attributes: Attributes::default(),
            }],
            dropped_events: 3,
            failed: true,
        };
        let request = request("default", &[span]);
        let of_scope = &request["resourceSpans"][0]["scopeSpans"][0];
        let id = |text: &str| hex(&Hash::of(text.as_bytes()).0[..8]);
        let expected = json!({
            "traceId": "0820fb2f84c24e76b3b161bff1b2d2f6",
            "spanId": id(&format!("steadfast/span/{run_id}/9/2")),
            "parentSpanId": id(&format!("steadfast/span/{run_id}/0/0")),
            "links": [{
                "traceId": "0820fb2f84c24e76b3b161bff1b2d2f6",
                "spanId": id("steadfast/span/before/0/0"),
            }],
            "name": "execute_tool pay",
            "kind": 1,
            "startTimeUnixNano": "1700000000123456789",
            "endTimeUnixNano": "1700000001000000000",
            "attributes": [
                { "key": "gen_ai.tool.name", "value": { "stringValue": "pay" } },
                { "key": "steadfast.attempt", "value": { "intValue": "2" } },
            ],
            "events": [
                { "timeUnixNano": "1700000000500000000", "name": "signal", "attributes": [] },
            ],
            "droppedEventsCount": 3,
            "status": { "code": 2 },
        });
        assert_eq!(of_scope["spans"], json!([expected]));
        let resource = &request["resourceSpans"][0]["resource"]["attributes"];
        assert_eq!(resource[0]["value"]["stringValue"], "steadfast");
        assert_eq!(resource[2]["value"]["stringValue"], "default");
    }

    #[test]
    fn a_run_id_that_is_no_uuid_has_a_trace_too() {
        let odd = TraceId::of_session("odd");
        assert!(odd == TraceId::of_session("odd") && odd != TraceId::of_session("other"));
    }
}
