//! Decides again what the policies in a bundle decided.

use std::cell::RefCell;
use std::collections::HashMap;

use super::tools::argument;
use prost::Message;
use serde_json::Value;
use steadfast_engine::proto::history::{HistoryEvent, history_event::Attributes};
use steadfast_ledger::Hash;
use steadfast_ledger::bundle::{AskedCall, Judge, Judged};
use steadfast_policy::{Argument, Arguments, Command, Policies, Recorded, Verdict};

/// Entries cut names to so many characters.
const MAX_NAME: usize = 200;

/// Knows the policies of one bundle.
#[derive(Default)]
pub struct PolicyJudge(RefCell<HashMap<Hash, Policies>>);

impl Judge for PolicyJudge {
    fn policies(&self, file: &[u8]) -> Result<Hash, String> {
        let policies = Policies::from_json(file)?;
        let hash = Hash(policies.hash());
        self.0.borrow_mut().insert(hash, policies);
        Ok(hash)
    }

    fn decide(&self, policies: &Hash, request: &str) -> Result<Judged, String> {
        let known = self.0.borrow();
        let policies = known.get(policies).ok_or("these policies are not there")?;
        let decision = policies.decide_recorded(&Recorded::parse(request)?)?;
        let answer = match decision.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::NeedsApproval(_) => "approval",
        };
        Ok(Judged {
            answer,
            policies: decision.policies,
        })
    }

    fn is_about(&self, request: &str, call: &AskedCall<'_>) -> Result<bool, String> {
        let command = match call.kind {
            "" => Command::Tool,
            "child" => Command::Child,
            "signal" => Command::Signal,
            "cancel" => Command::Cancel,
            "local" => Command::Local,
            "continue-as" => Command::ContinueAs,
            other => return Err(format!("there is no command {other:?}")),
        };
        let names = (call.activity_id, call.activity_type);
        let recorded = Recorded::parse(request)?;
        Ok(recorded.is_about(command, call.namespace, names, MAX_NAME))
    }

    fn arguments_of_request(&self, request: &str) -> Result<Hash, String> {
        Ok(hash(&Recorded::parse(request)?.arguments()))
    }

    fn arguments_of_event(&self, event: &[u8]) -> Option<Hash> {
        if event.is_empty() {
            let unseen = Arguments::new([Argument::Opaque]);
            return Some(hash(&unseen.recorded().ok()?));
        }
        let event = HistoryEvent::decode(event).ok()?;
        use Attributes as A;
        let input = match event.attributes? {
            A::ActivityTaskScheduledEventAttributes(of) => of.input,
            A::StartChildWorkflowExecutionInitiatedEventAttributes(of) => of.input,
            A::SignalExternalWorkflowExecutionInitiatedEventAttributes(of) => of.input,
            A::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(_) => None,
            _ => return None,
        };
        let payloads = input.iter().flat_map(|of| &of.payloads);
        let arguments = Arguments::new(payloads.map(argument)).recorded().ok()?;
        Some(hash(&arguments))
    }
}

/// Any hash will do: it is compared with those of this program only.
fn hash(value: &Value) -> Hash {
    Hash::leaf(value.to_string().as_bytes())
}
