//! Where payloads are in the messages of the API, read off its descriptors.

use std::sync::Arc;

use steadfast_ledger::skeleton::{FieldShape, Shapes};

/// Fields whose bytes are not hashed themselves, and can be erased: payloads, and what a failure
/// says, which often repeats them.
const ERASABLE: &[(&str, &str)] = &[
    ("temporal.api.common.v1.Payload", "data"),
    ("temporal.api.failure.v1.Failure", "message"),
    ("temporal.api.failure.v1.Failure", "stack_trace"),
];

/// The shapes of all messages of the API.
pub fn shapes() -> Arc<Shapes> {
    let fields = steadfast_api::MESSAGE_FIELDS.lines().filter_map(field);
    Arc::new(Shapes::new(fields))
}

fn field(line: &str) -> Option<FieldShape> {
    let mut words = line.split(' ');
    let (message, name, number) = (words.next()?, words.next()?, words.next()?);
    let holds = words.next().filter(|holds| !holds.is_empty());
    Some(FieldShape {
        message: message.to_owned(),
        number: number.parse().ok()?,
        holds: holds.map(str::to_owned),
        is_payload: ERASABLE.contains(&(message, name)),
    })
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use steadfast_engine::proto::common::{Payload, Payloads};
    use steadfast_engine::proto::failure::Failure;
    use steadfast_engine::proto::history::{
        ActivityTaskFailedEventAttributes, HistoryEvent, WorkflowExecutionSignaledEventAttributes,
        history_event::Attributes,
    };

    use super::*;

    fn erasable(event: &HistoryEvent) -> Vec<String> {
        let shapes = shapes();
        let shape = shapes.find("temporal.api.history.v1.HistoryEvent");
        let bytes = event.encode_to_vec();
        let mut spans = Vec::new();
        shapes.spans(&bytes, shape.expect("a message of the API"), &mut spans);
        spans
            .iter()
            .map(|span| {
                let text = &bytes[span.offset as usize..][..span.length as usize];
                String::from_utf8_lossy(text).into_owned()
            })
            .collect()
    }

    #[test]
    fn payloads_of_events_are_found() {
        let event = HistoryEvent {
            event_id: 7,
            attributes: Some(Attributes::WorkflowExecutionSignaledEventAttributes(
                WorkflowExecutionSignaledEventAttributes {
                    signal_name: "name".into(),
                    input: Some(Payloads {
                        payloads: ["one", "two"]
                            .map(|data| Payload {
                                data: data.into(),
                                ..Payload::default()
                            })
                            .into(),
                    }),
                    ..Default::default()
                },
            )),
            ..HistoryEvent::default()
        };
        assert_eq!(erasable(&event), ["one", "two"]);
    }

    #[test]
    fn what_failures_say_is_found_at_any_depth() {
        let failure = |message: &str, cause| Failure {
            message: message.into(),
            cause,
            ..Failure::default()
        };
        let inner = failure("inner", None);
        let event = HistoryEvent {
            attributes: Some(Attributes::ActivityTaskFailedEventAttributes(
                ActivityTaskFailedEventAttributes {
                    failure: Some(failure("outer", Some(Box::new(inner)))),
                    ..Default::default()
                },
            )),
            ..HistoryEvent::default()
        };
        assert_eq!(erasable(&event), ["outer", "inner"]);
    }
}
