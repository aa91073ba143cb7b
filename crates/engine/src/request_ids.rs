//! Requests attached to a run: which event each of them became.

use crate::proto::enums::EventType;
use crate::proto::history::WorkflowExecutionOptionsUpdatedEventAttributes;
use crate::run::Run;
use crate::state::RequestIdInfo;

impl Run {
    pub(crate) fn apply_options_updated(
        &mut self,
        id: i64,
        attributes: &WorkflowExecutionOptionsUpdatedEventAttributes,
    ) {
        let of_updates = attributes
            .workflow_update_options
            .iter()
            .map(|update| &update.attached_request_id);
        for request_id in std::iter::once(&attributes.attached_request_id).chain(of_updates) {
            self.attach_request(request_id, EventType::WorkflowExecutionOptionsUpdated, id);
        }
        if attributes.priority.is_some() {
            self.state.priority.clone_from(&attributes.priority);
        }
    }

    pub(crate) fn attach_request(
        &mut self,
        request_id: &str,
        event_type: EventType,
        event_id: i64,
    ) {
        if !request_id.is_empty() {
            self.state.request_ids.insert(
                request_id.to_owned(),
                RequestIdInfo {
                    event_type: event_type as i32,
                    event_id: event_id.max(0),
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attached_requests_are_remembered_with_their_event() {
        let mut run = Run::default();
        let attached = |request_id: &str| WorkflowExecutionOptionsUpdatedEventAttributes {
            attached_request_id: request_id.into(),
            ..Default::default()
        };
        run.apply_options_updated(7, &attached("seven"));
        run.apply_options_updated(crate::run::BUFFERED, &attached("buffered"));
        run.apply_options_updated(9, &attached(""));
        let event_type = EventType::WorkflowExecutionOptionsUpdated as i32;
        assert_eq!(run.state.request_ids.len(), 2);
        assert_eq!(
            run.state.request_ids["seven"],
            RequestIdInfo {
                event_type,
                event_id: 7
            }
        );
        assert_eq!(
            run.state.request_ids["buffered"],
            RequestIdInfo {
                event_type,
                event_id: 0
            }
        );
    }
}
