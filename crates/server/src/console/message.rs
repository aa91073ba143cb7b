//! Messages of the API for people: every field that is set, with its name, whatever message it is; and
//! as canonical proto JSON.

use std::sync::LazyLock;

use maud::{Markup, html};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MapKey, ReflectMessage, Value};
use steadfast_engine::proto::common::Payload;
use steadfast_engine::proto::failure::{Failure, failure::FailureInfo};
use steadfast_engine::proto::history::{History, HistoryEvent};

use super::{payload, text, times};

/// How deep messages are looked into.
const MAX_DEPTH: usize = 12;

/// Most members of one list.
const MAX_MEMBERS: usize = 100;

/// Most characters of a text.
const MAX_TEXT: usize = 4000;

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(steadfast_api::FILE_DESCRIPTOR_SET).ok());

fn dynamic(name: &str, message: &impl Message) -> Option<DynamicMessage> {
    let descriptor = POOL.as_ref()?.get_message_by_name(name)?;
    DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()
}

/// A history as the `temporal` command has it in files: canonical proto JSON.
pub fn history_json(events: Vec<HistoryEvent>) -> Option<String> {
    let history = dynamic("temporal.api.history.v1.History", &History { events })?;
    serde_json::to_string_pretty(&history).ok()
}

/// The attributes of an event, field by field.
pub fn attributes(event: &HistoryEvent) -> Markup {
    let Some(event) = dynamic("temporal.api.history.v1.HistoryEvent", event) else {
        return html! { p.note { "this event cannot be read" } };
    };
    let oneof = event
        .descriptor()
        .oneofs()
        .find(|of| of.name() == "attributes");
    let fields = oneof.iter().flat_map(|of| of.fields());
    let set = fields.into_iter().find(|field| event.has_field(field));
    html! {
        @if let Some(field) = set {
            @if let Value::Message(attributes) = &*event.get_field(&field) { (fields_of(attributes, 0)) }
        }
        @if event.has_field_by_name("user_metadata") {
            @if let Some(metadata) = event.get_field_by_name("user_metadata") {
                @if let Value::Message(metadata) = &*metadata { (fields_of(metadata, 0)) }
            }
        }
    }
}

fn fields_of(message: &DynamicMessage, depth: usize) -> Markup {
    let fields = message.fields().filter(|(field, value)| {
        let is_empty = matches!(value, Value::Message(of) if of.fields().next().is_none());
        !is_empty && !value.is_default_for_field(field)
    });
    let mut fields: Vec<_> = fields.collect();
    // What was said comes before how it was sent.
    fields.sort_by_key(|(field, _)| !is_content(&field.kind()));
    html! {
        dl.fields {
            @for (field, value) in fields {
                dt { (field.name().replace('_', " ")) }
                dd { (shown(value, &field.kind(), depth)) }
            }
        }
    }
}

fn is_content(kind: &Kind) -> bool {
    let contents = [
        "temporal.api.common.v1.Payloads",
        "temporal.api.failure.v1.Failure",
        "temporal.api.update.v1.Outcome",
    ];
    matches!(kind, Kind::Message(of) if contents.contains(&of.full_name()))
}

fn shown(value: &Value, kind: &Kind, depth: usize) -> Markup {
    if depth > MAX_DEPTH {
        return html! { "…" };
    }
    match value {
        Value::Bool(yes) => html! { (if *yes { "yes" } else { "no" }) },
        Value::I32(number) => html! { (number) },
        Value::I64(number) => html! { (number) },
        Value::U32(number) => html! { (number) },
        Value::U64(number) => html! { (number) },
        Value::F32(number) => html! { (number) },
        Value::F64(number) => html! { (number) },
        Value::String(content) => text::prose(content, MAX_TEXT),
        Value::Bytes(bytes) => html! { (text::bytes(bytes.len())) },
        Value::EnumNumber(number) => html! { (enum_name(kind, *number)) },
        Value::Message(message) => message_of(message, depth),
        Value::List(members) => html! {
            @for member in members.iter().take(MAX_MEMBERS) { div.member { (shown(member, kind, depth + 1)) } }
            @if members.len() > MAX_MEMBERS { p.note { "and " (members.len() - MAX_MEMBERS) " more" } }
        },
        Value::Map(members) => map(members, kind, depth),
    }
}

fn map(members: &std::collections::HashMap<MapKey, Value>, kind: &Kind, depth: usize) -> Markup {
    let value_kind = match kind {
        Kind::Message(entry) => entry.map_entry_value_field().kind(),
        other => other.clone(),
    };
    let key = |key: &MapKey| match key {
        MapKey::String(key) => key.clone(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        other => format!("{other:?}"),
    };
    let mut sorted: Vec<_> = members.iter().map(|(of, value)| (key(of), value)).collect();
    sorted.sort_by(|one, other| one.0.cmp(&other.0));
    html! {
        dl.fields {
            @for (key, value) in sorted.into_iter().take(MAX_MEMBERS) {
                dt { (text::name(&key)) }
                dd { (shown(value, &value_kind, depth + 1)) }
            }
        }
    }
}

fn message_of(message: &DynamicMessage, depth: usize) -> Markup {
    let descriptor = message.descriptor();
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => match message.transcode_to::<prost_types::Timestamp>() {
            Ok(time) => times::moment(times::nanos(&Some(time))),
            Err(_) => html! {},
        },
        "google.protobuf.Duration" => match message.transcode_to::<prost_types::Duration>() {
            Ok(span) => html! { (times::span(times::span_of(&Some(span)))) },
            Err(_) => html! {},
        },
        "temporal.api.common.v1.Payload" => match message.transcode_to::<Payload>() {
            Ok(of) => payload::show(&of),
            Err(_) => html! {},
        },
        "temporal.api.failure.v1.Failure" => match message.transcode_to::<Failure>() {
            Ok(of) => failure(&of),
            Err(_) => html! {},
        },
        _ => {
            // What has one text only, such as the name of a type, needs no table.
            let mut set = message.fields();
            match (set.next(), set.next()) {
                (Some((_, Value::String(only))), None) => text::prose(only, MAX_TEXT),
                (Some((field, only @ (Value::List(_) | Value::Map(_)))), None) => {
                    shown(only, &field.kind(), depth + 1)
                }
                _ => fields_of(message, depth + 1),
            }
        }
    }
}

/// `EVENT_TYPE_TIMER_STARTED` of the enum `EventType` is `timer started`.
fn enum_name(kind: &Kind, number: i32) -> String {
    let Kind::Enum(of) = kind else {
        return number.to_string();
    };
    let Some(value) = of.get_value(number) else {
        return number.to_string();
    };
    let squeezed = |name: &str| name.replace('_', "").to_lowercase();
    let prefix = squeezed(of.name());
    let mut words: Vec<&str> = value.name().split('_').collect();
    // The words that make up the name of the enum.
    for count in 1..words.len() {
        if squeezed(&words[..count].concat()) == prefix {
            words.drain(..count);
            break;
        }
    }
    words.join(" ").to_lowercase()
}

/// A failure and what caused it, outermost first.
pub fn failure(of: &Failure) -> Markup {
    let mut chain = Vec::new();
    let mut next = Some(of);
    while let Some(failure) = next {
        chain.push(failure);
        next = failure.cause.as_deref().filter(|_| chain.len() < MAX_DEPTH);
    }
    html! {
        ol.failure {
            @for failure in chain {
                li {
                    p.failure-kind { (text::name(&kind(failure))) }
                    @if !failure.message.is_empty() { p.failure-message { (text::prose(&failure.message, MAX_TEXT)) } }
                    @for details in details(failure) { (payload::payloads(details)) }
                    @if !failure.stack_trace.is_empty() {
                        details {
                            summary { "Stack trace" }
                            pre.payload tabindex="0" { (text::prose(&failure.stack_trace, 20_000)) }
                        }
                    }
                }
            }
        }
    }
}

/// What kind of failure it is, in few words.
fn kind(failure: &Failure) -> String {
    use FailureInfo::*;
    match &failure.failure_info {
        Some(ApplicationFailureInfo(info)) if info.r#type.is_empty() => {
            "application failure".into()
        }
        Some(ApplicationFailureInfo(info)) if info.non_retryable => {
            format!("{} (not retried)", info.r#type)
        }
        Some(ApplicationFailureInfo(info)) => info.r#type.clone(),
        Some(TimeoutFailureInfo(info)) => {
            let which = info.timeout_type().as_str_name();
            let which = which.trim_start_matches("TIMEOUT_TYPE_").replace('_', " ");
            format!("time-out, {}", which.to_lowercase())
        }
        Some(CanceledFailureInfo(_)) => "cancelled".into(),
        Some(TerminatedFailureInfo(_)) => "terminated".into(),
        Some(ServerFailureInfo(_)) => "server failure".into(),
        Some(ResetWorkflowFailureInfo(_)) => "reset".into(),
        Some(ActivityFailureInfo(info)) => {
            let name = info.activity_type.as_ref().map_or("", |of| &of.name);
            format!("tool call {name}")
        }
        Some(ChildWorkflowExecutionFailureInfo(info)) => {
            let name = info.workflow_type.as_ref().map_or("", |of| &of.name);
            format!("child {name}")
        }
        Some(NexusOperationExecutionFailureInfo(_)) => "Nexus operation".into(),
        Some(NexusHandlerFailureInfo(_)) => "Nexus handler".into(),
        None => "failure".into(),
    }
}

fn details(failure: &Failure) -> Vec<&steadfast_engine::proto::common::Payloads> {
    let found = match &failure.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(info)) => info.details.as_ref(),
        Some(FailureInfo::CanceledFailureInfo(info)) => info.details.as_ref(),
        Some(FailureInfo::TimeoutFailureInfo(info)) => info.last_heartbeat_details.as_ref(),
        _ => None,
    };
    found.into_iter().collect()
}

/// The innermost failure in one line.
pub fn reason(of: &Failure) -> String {
    let mut innermost = of;
    let mut depth = 0;
    while let Some(cause) = innermost.cause.as_deref().filter(|_| depth < MAX_DEPTH) {
        (innermost, depth) = (cause, depth + 1);
    }
    let kind = kind(innermost);
    match innermost.message.as_str() {
        "" => kind,
        message => format!("{kind}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use steadfast_engine::proto::common::{ActivityType, Payloads};
    use steadfast_engine::proto::failure::{ActivityFailureInfo, ApplicationFailureInfo};
    use steadfast_engine::proto::history::{
        ActivityTaskScheduledEventAttributes, history_event::Attributes,
    };

    use super::*;

    fn event() -> HistoryEvent {
        HistoryEvent {
            event_id: 5,
            event_type: 10,
            event_time: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 0,
            }),
            attributes: Some(Attributes::ActivityTaskScheduledEventAttributes(
                ActivityTaskScheduledEventAttributes {
                    activity_id: "<b>".into(),
                    activity_type: Some(ActivityType {
                        name: "refund".into(),
                    }),
                    input: Some(Payloads {
                        payloads: vec![Payload {
                            metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
                            data: b"{\"amount\":1200}".to_vec(),
                            ..Payload::default()
                        }],
                    }),
                    start_to_close_timeout: Some(prost_types::Duration {
                        seconds: 90,
                        nanos: 0,
                    }),
                    ..Default::default()
                },
            )),
            ..HistoryEvent::default()
        }
    }

    #[test]
    fn every_field_of_an_event_is_shown() {
        let shown = attributes(&event()).into_string();
        for part in [
            "&lt;b&gt;",
            "refund",
            "1200",
            "1 min 30 s",
            "start to close timeout",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("<b>"));
    }

    #[test]
    fn histories_are_proto_json() {
        let json = history_json(vec![event()]).expect("JSON");
        let json: serde_json::Value = serde_json::from_str(&json).expect("valid");
        let event = &json["events"][0];
        assert_eq!(event["eventId"], "5");
        assert_eq!(event["eventType"], "EVENT_TYPE_ACTIVITY_TASK_SCHEDULED");
        assert_eq!(event["eventTime"], "1970-01-01T00:00:01Z");
        let scheduled = &event["activityTaskScheduledEventAttributes"];
        assert_eq!(
            scheduled["input"]["payloads"][0]["data"],
            "eyJhbW91bnQiOjEyMDB9"
        );
    }

    #[test]
    fn failures_have_their_causes() {
        let application = |message: &str| Failure {
            message: message.into(),
            failure_info: Some(FailureInfo::ApplicationFailureInfo(
                ApplicationFailureInfo {
                    r#type: "ValueError".into(),
                    ..Default::default()
                },
            )),
            ..Failure::default()
        };
        let outer = Failure {
            message: "activity error".into(),
            cause: Some(Box::new(application("<i>no funds</i>"))),
            failure_info: Some(FailureInfo::ActivityFailureInfo(ActivityFailureInfo {
                activity_type: Some(ActivityType { name: "pay".into() }),
                ..Default::default()
            })),
            ..Failure::default()
        };
        assert_eq!(reason(&outer), "ValueError: <i>no funds</i>");
        let shown = failure(&outer).into_string();
        assert!(
            shown.contains("tool call pay") && shown.contains("&lt;i&gt;no funds"),
            "{shown}"
        );
    }
}
