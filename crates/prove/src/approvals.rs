//! Tool calls and other commands that wait for people: the prover votes for them, as people would.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::ProveError;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A call that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingCall {
    workflow_id: String,
    run_id: String,
    /// The event that scheduled or initiated it.
    event_id: i64,
    /// What is called, or started, or sent.
    pub activity_type: String,
    digest: String,
    groups: Vec<String>,
    votes: Vec<Vote>,
}

/// A vote on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Vote {
    principal: String,
}

#[derive(Deserialize)]
struct Waiting {
    approvals: Vec<WaitingCall>,
}

/// What waits at a server, oldest first.
pub async fn waiting(server: SocketAddr) -> Result<Vec<WaitingCall>, ProveError> {
    let list = move || -> Result<Waiting, String> {
        let answer = agent().get(url(server)).call().map_err(text)?;
        serde_json::from_reader(answer.into_body().into_reader()).map_err(text)
    };
    Ok(blocking(list).await?.approvals)
}

/// Votes for a call, as somebody who has not voted on it yet and is in all groups that it needs.
pub async fn approve(server: SocketAddr, call: &WaitingCall) -> Result<(), ProveError> {
    let ballot = json!({
        "workflowId": call.workflow_id,
        "runId": call.run_id,
        "eventId": call.event_id,
        "digest": call.digest,
        "approve": true,
        "identity": format!("approver {}", call.votes.len() + 1),
        "groups": call.groups,
    });
    let vote = move || -> Result<(), String> {
        let request = agent()
            .post(url(server))
            .header("content-type", "application/json");
        let answer = request.send(ballot.to_string()).map_err(text)?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(answer.into_body().read_to_string().map_err(text)?),
        }
    };
    blocking(vote).await
}

/// What is different about a call that should still wait as it did. None: nothing is.
pub fn lost(before: &WaitingCall, now: &[WaitingCall]) -> Option<String> {
    let is_it = |of: &&WaitingCall| of.run_id == before.run_id && of.event_id == before.event_id;
    let name = &before.activity_type;
    match now.iter().find(is_it) {
        None => Some(format!("{name} does not wait for approval any more")),
        Some(of) if of.digest != before.digest => {
            Some(format!("{name} waits for the approval of another call"))
        }
        Some(of) if of.votes != before.votes => Some(format!(
            "{name} had {} votes, and has {}",
            before.votes.len(),
            of.votes.len()
        )),
        Some(_) => None,
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(PATIENCE)).build().into()
}

fn url(server: SocketAddr) -> String {
    format!("http://{server}/api/v1/namespaces/default/approvals")
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ProveError> {
    let failed = |error: String| ProveError::Server(format!("approvals: {}", error.trim()));
    let called = tokio::task::spawn_blocking(call).await;
    called
        .map_err(|error| failed(error.to_string()))?
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_told() {
        let call = WaitingCall {
            run_id: "r".into(),
            event_id: 5,
            activity_type: "pay".into(),
            digest: "d".into(),
            votes: vec![Vote::default()],
            ..WaitingCall::default()
        };
        let other = WaitingCall {
            digest: "e".into(),
            ..call.clone()
        };
        let without_votes = WaitingCall {
            votes: Vec::new(),
            ..call.clone()
        };
        for (now, told) in [
            (vec![call.clone()], None),
            (Vec::new(), Some("pay does not wait for approval any more")),
            (
                vec![other],
                Some("pay waits for the approval of another call"),
            ),
            (vec![without_votes], Some("pay had 1 votes, and has 0")),
        ] {
            assert_eq!(lost(&call, &now).as_deref(), told);
        }
    }
}
