//! The protocol messages about updates: what a worker says about one, and whether it may.

use std::collections::{BTreeMap, HashSet};

use prost::{Message, Name};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::proto::command::{Command, command};
use crate::proto::enums::WorkflowTaskFailedCause;
use crate::proto::protocol;
use crate::proto::update::{Acceptance, Rejection, Request, Response};
use crate::run::{Cx, Run};
use crate::update::{Stage, stage};

/// A worker's word about an update.
pub(crate) enum Answer {
    Acceptance(Acceptance),
    Rejection(Rejection),
    Response(Response),
}

impl Run {
    /// Whether a worker's messages, in the order in which they will be handled, fit the updates
    /// that there are.
    pub(crate) fn check_messages(
        &self,
        cx: &Cx<'_>,
        messages: &[protocol::Message],
        commands: &[Command],
    ) -> Result<()> {
        let mut check = Check {
            run: self,
            limits: cx.limits,
            stages: BTreeMap::new(),
        };
        let mut taken = HashSet::new();
        for command in commands {
            let Some(command::Attributes::ProtocolMessageCommandAttributes(attributes)) =
                &command.attributes
            else {
                continue;
            };
            let id = &attributes.message_id;
            if id.is_empty() {
                return bad("MessageID is not set on ProtocolMessageCommand.");
            }
            let found = messages
                .iter()
                .enumerate()
                .find(|(at, m)| m.id == *id && !taken.contains(at));
            let Some((at, message)) = found else {
                return bad(format!(
                    "ProtocolMessageCommand referenced absent message ID {id}"
                ));
            };
            taken.insert(at);
            check.message(message)?;
        }
        for (at, message) in messages.iter().enumerate() {
            if !taken.contains(&at) {
                check.message(message)?;
            }
        }
        Ok(())
    }
}

/// Goes through messages as they will be handled, and follows what they do to their updates.
struct Check<'a> {
    run: &'a Run,
    limits: &'a Limits,
    /// Updates that messages changed; none for rejected ones.
    stages: BTreeMap<&'a str, Option<Stage>>,
}

impl<'a> Check<'a> {
    fn message(&mut self, message: &'a protocol::Message) -> Result<()> {
        let answer = answer(message)?;
        let size = message.body.as_ref().map_or(0, |body| body.encoded_len());
        if size > self.limits.blob_bytes {
            return bad(format!(
                "Message type {} exceeds size limit.",
                answer.name()
            ));
        }
        let id = message.protocol_instance_id.as_str();
        let stage = self.stage(id, &answer)?;
        let next = match (&answer, stage) {
            (Answer::Acceptance(acceptance), Stage::Admitted) => {
                check_acceptance(acceptance)?;
                Some(Stage::Accepted)
            }
            (Answer::Rejection(_), Stage::Admitted) => None,
            (Answer::Response(response), Stage::Accepted) => {
                check_response(id, response)?;
                Some(Stage::Completed)
            }
            (_, stage) => {
                return bad(format!(
                    "invalid state transition attempted for Update {id}: received {} message while in state {stage:?}",
                    answer.name()
                ));
            }
        };
        self.stages.insert(id, next);
        Ok(())
    }

    fn stage(&self, id: &str, answer: &Answer) -> Result<Stage> {
        let known = match self.stages.get(id) {
            Some(changed) => *changed,
            None if self
                .run
                .admitted
                .iter()
                .any(|admitted| admitted.update_id == id) =>
            {
                Some(Stage::Admitted)
            }
            None => self.run.state.updates.get(id).map(stage),
        };
        if let Some(stage) = known {
            return Ok(stage);
        }
        // Admitted updates do not outlive the server, but the worker may have been at work on one:
        // where it says what was asked, that is as good as the original.
        if answer.request().is_none() {
            return bad(format!(
                "update {id} wasn't found on the server. This is most likely a transient error \
                 which will be resolved automatically by retries"
            ));
        }
        self.run.check_total_limit(self.limits)?;
        Ok(Stage::Admitted)
    }
}

impl Answer {
    fn name(&self) -> &'static str {
        match self {
            Self::Acceptance(_) => "Acceptance",
            Self::Rejection(_) => "Rejection",
            Self::Response(_) => "Response",
        }
    }

    fn request(&self) -> Option<&Request> {
        match self {
            Self::Acceptance(acceptance) => acceptance.accepted_request.as_ref(),
            Self::Rejection(rejection) => rejection.rejected_request.as_ref(),
            Self::Response(_) => None,
        }
    }
}

/// What a message says, if it is one about updates.
pub(crate) fn answer(message: &protocol::Message) -> Result<Answer> {
    let Some(body) = &message.body else {
        return bad(format!(
            "Update {} received message with nil body",
            message.protocol_instance_id
        ));
    };
    let name = body.type_url.rsplit('/').next().unwrap_or_default();
    let bytes = body.value.as_slice();
    let decoded = if name == Acceptance::full_name() {
        Acceptance::decode(bytes).map(Answer::Acceptance)
    } else if name == Rejection::full_name() {
        Rejection::decode(bytes).map(Answer::Rejection)
    } else if name == Response::full_name() {
        Response::decode(bytes).map(Answer::Response)
    } else {
        return bad(format!("Message type {name} not supported"));
    };
    decoded.or_else(|error| bad(format!("unable to unmarshal request: {error}")))
}

pub(crate) fn check_request(request: &Request) -> Result<()> {
    let missing = |what: &str| {
        Err(Error::InvalidArgument(format!(
            "invalid update request: {what} is not set"
        )))
    };
    if update_id(request).is_empty() {
        return missing("meta.update_id");
    }
    if request
        .input
        .as_ref()
        .is_none_or(|input| input.name.is_empty())
    {
        return missing("input.name");
    }
    if !request.completion_callbacks.is_empty() && request.request_id.is_empty() {
        return missing("request_id, which completion_callbacks need,");
    }
    Ok(())
}

fn check_acceptance(acceptance: &Acceptance) -> Result<()> {
    let missing = |what: &str| bad(format!("invalid Acceptance: {what} is not set"));
    if acceptance.accepted_request_sequencing_event_id == 0 {
        return missing("accepted_request_sequencing_event_id");
    }
    if acceptance.accepted_request_message_id.is_empty() {
        return missing("accepted_request_message_id");
    }
    Ok(())
}

fn check_response(update_id: &str, response: &Response) -> Result<()> {
    let id = response.meta.as_ref().map_or("", |meta| &meta.update_id);
    if id.is_empty() {
        return bad("invalid Response: meta.update_id is not set");
    }
    if id != update_id {
        return bad(format!(
            "invalid Response: meta.update_id {id} != {update_id}"
        ));
    }
    if response.outcome.is_none() {
        return bad("invalid Response: outcome is not set");
    }
    Ok(())
}

fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::bad_command(
        WorkflowTaskFailedCause::BadUpdateWorkflowExecutionMessage,
        message,
    ))
}

pub(crate) fn update_id(request: &Request) -> &str {
    request.meta.as_ref().map_or("", |meta| &meta.update_id)
}

pub(crate) fn request_message_id(update_id: &str) -> String {
    format!("{update_id}/request")
}

pub(crate) fn any<M: Name>(message: &M) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/{}", M::full_name()),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_messages_are_the_worker_s_fault() {
        let message = protocol::Message {
            protocol_instance_id: "u".into(),
            body: Some(prost_types::Any {
                value: vec![0xff],
                ..any(&Acceptance::default())
            }),
            ..Default::default()
        };
        assert!(matches!(answer(&message), Err(Error::BadCommand { .. })));
    }
}
