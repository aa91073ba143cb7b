//! Reading histories: pages, long polls, the closing event alone, and backwards.

use std::time::Duration;

use prost::Message;
use steadfast_engine::proto::enums::HistoryEventFilterType;
use steadfast_engine::proto::history::{History, HistoryEvent};
use steadfast_engine::proto::workflowservice::{
    GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryResponse,
    GetWorkflowExecutionHistoryReverseRequest, GetWorkflowExecutionHistoryReverseResponse,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::aggregate::WorkflowKey;
use crate::error::{Result, RuntimeError};
use crate::evidence::reads::{Read, Subject};
use crate::handout::{HISTORY_PAGE_BYTES, HistoryPart};
use crate::permit::Permit;
use crate::runtime::Runtime;
use crate::token::HistoryToken;

/// How long a long poll waits for the next event.
const LONG_POLL: Duration = Duration::from_secs(20);

/// Events of a page where the request does not say.
const PAGE_EVENTS: usize = 1000;

/// A run's history at a moment.
struct View {
    run_id: String,
    part: HistoryPart,
    running: bool,
    changed: watch::Receiver<u64>,
}

impl Runtime {
    /// A page of history, or a wait for it.
    pub async fn get_history(
        &self,
        permit: &Permit,
        request: GetWorkflowExecutionHistoryRequest,
        deadline: Option<Duration>,
    ) -> Result<GetWorkflowExecutionHistoryResponse> {
        let (key, mut run_id) = self.target(&request.namespace, &request.execution)?;
        let token = HistoryToken::read(&request.next_page_token)?;
        if let Some(token) = &token {
            if !run_id.is_empty() && run_id != token.run_id {
                return Err(RuntimeError::invalid(
                    "NextPageToken and RunId are of different runs.",
                ));
            }
            run_id.clone_from(&token.run_id);
        }
        let only_close = request.history_event_filter_type() == HistoryEventFilterType::CloseEvent;
        let max_events = page_size(request.maximum_page_size);
        let patience = deadline.map_or(LONG_POLL, |deadline| {
            LONG_POLL.min(deadline.saturating_sub(Duration::from_millis(500)))
        });
        let until = Instant::now() + patience;
        let first = token.as_ref().map_or(1, |token| token.next_event_id);
        let noted = token.as_ref().map(|token| token.noted.clone());
        let (events, next) = loop {
            let mut view = self.view(&key, &run_id, first).await?;
            run_id.clone_from(&view.run_id);
            let may_wait = request.wait_new_event && view.running && !self.is_stopping();
            let nothing_yet = match only_close {
                true => view.running,
                false => first > view.part.last,
            };
            if may_wait && nothing_yet && Instant::now() < until {
                tokio::select! {
                    // An error says that the run was let go of: look again.
                    _ = view.changed.changed() => {}
                    () = tokio::time::sleep_until(until) => {}
                    () = self.stopping() => {}
                }
                continue;
            }
            break match (only_close, view.running) {
                (true, true) if request.wait_new_event => {
                    (Vec::new(), Some(next_token(&run_id, first)))
                }
                (true, true) => (Vec::new(), None),
                (true, false) => (self.last_event(&key, view).await?, None),
                (false, _) => {
                    self.page(&key, view, token, request.wait_new_event, max_events)
                        .await?
                }
            };
        };
        let token = self
            .note_page(permit, &key, &run_id, noted, events.is_empty(), next)
            .await?;
        Ok(GetWorkflowExecutionHistoryResponse {
            history: Some(History { events }),
            next_page_token: token,
            ..Default::default()
        })
    }

    /// Leaves the entry of a read with its first page that is not empty. Gives the token of the page
    /// that follows.
    async fn note_page(
        &self,
        permit: &Permit,
        key: &WorkflowKey,
        run_id: &str,
        noted: Option<Vec<u8>>,
        is_empty: bool,
        next: Option<HistoryToken>,
    ) -> Result<Vec<u8>> {
        let seal = self.read_seal(&key.namespace_id, run_id);
        let mut is_noted = noted.is_some_and(|noted| noted == seal);
        if !is_noted && !is_empty {
            let subject = Subject {
                workflow_id: &key.workflow_id,
                run_id,
                ..Subject::default()
            };
            self.note_read(permit, Read::History, &key.namespace_id, subject)
                .await?;
            is_noted = true;
        }
        let next = next.map(|mut next| {
            next.noted = match is_noted {
                true => seal,
                false => Vec::new(),
            };
            next.encode_to_vec()
        });
        Ok(next.unwrap_or_default())
    }

    /// A page of history from the end.
    pub async fn get_history_reverse(
        &self,
        permit: &Permit,
        request: GetWorkflowExecutionHistoryReverseRequest,
    ) -> Result<GetWorkflowExecutionHistoryReverseResponse> {
        let (key, mut run_id) = self.target(&request.namespace, &request.execution)?;
        let token = HistoryToken::read(&request.next_page_token)?;
        if let Some(token) = &token {
            run_id.clone_from(&token.run_id);
        }
        let noted = token.as_ref().map(|token| token.noted.clone());
        let max_events = page_size(request.maximum_page_size);
        let View {
            run_id, mut part, ..
        } = self.view(&key, &run_id, 1).await?;
        if let Some(token) = token {
            part.last = part.last.min(token.next_event_id);
        }
        let (events, next) = part
            .read_reverse(self, &key, &run_id, HISTORY_PAGE_BYTES, max_events)
            .await?;
        let next = (next > 0).then(|| next_token(&run_id, next));
        let next_page_token = self
            .note_page(permit, &key, &run_id, noted, events.is_empty(), next)
            .await?;
        Ok(GetWorkflowExecutionHistoryReverseResponse {
            history: Some(History { events }),
            next_page_token,
        })
    }

    async fn view(&self, key: &WorkflowKey, run_id: &str, first: i64) -> Result<View> {
        self.inspect(key, run_id, |workflow| {
            let live = workflow.named_live(run_id)?;
            Ok(View {
                run_id: live.run.state.run_id.clone(),
                part: HistoryPart::of(live, first),
                running: live.run.state.is_running(),
                changed: live.watch(),
            })
        })
        .await
    }

    async fn page(
        &self,
        key: &WorkflowKey,
        view: View,
        token: Option<HistoryToken>,
        wait: bool,
        max_events: usize,
    ) -> Result<(Vec<HistoryEvent>, Option<HistoryToken>)> {
        let View {
            run_id,
            mut part,
            running,
            ..
        } = view;
        let with_task = token.as_ref().is_some_and(|token| token.with_task);
        let virtual_events = std::mem::take(&mut part.virtual_events);
        // Pages that follow end where the history ended when the first was read, unless the caller
        // wants to be told what is new.
        if let Some(token) = token.filter(|token| token.last_event_id > 0 && !wait) {
            part.last = part.last.min(token.last_event_id);
        }
        let (first, last) = (part.first, part.last);
        let (mut events, next) = match first > last {
            true => (Vec::new(), first),
            false => {
                part.read(self, key, &run_id, HISTORY_PAGE_BYTES, max_events)
                    .await?
            }
        };
        if next > last && with_task {
            events.extend(virtual_events);
        }
        let more = next <= last || (wait && running);
        let next_token = more.then(|| HistoryToken {
            last_event_id: if wait { 0 } else { last },
            with_task,
            ..next_token(&run_id, next)
        });
        Ok((events, next_token))
    }

    async fn last_event(&self, key: &WorkflowKey, mut view: View) -> Result<Vec<HistoryEvent>> {
        let last = view.part.last;
        if view.part.memory_from > last || view.part.first < last {
            view = self.view(key, &view.run_id, last).await?;
            view.part.last = last;
        }
        let run_id = view.run_id.clone();
        let (events, _) = view
            .part
            .read(self, key, &run_id, HISTORY_PAGE_BYTES, 1)
            .await?;
        Ok(events)
    }
}

fn next_token(run_id: &str, next_event_id: i64) -> HistoryToken {
    HistoryToken {
        run_id: run_id.to_owned(),
        next_event_id,
        ..HistoryToken::default()
    }
}

fn page_size(asked: i32) -> usize {
    match usize::try_from(asked) {
        Ok(0) | Err(_) => PAGE_EVENTS,
        Ok(asked) => asked.min(PAGE_EVENTS),
    }
}

#[cfg(test)]
mod tests {
    use steadfast_engine::proto::workflowservice::TerminateWorkflowExecutionRequest;

    use super::*;
    use crate::Settings;
    use crate::testing::{Bed, execution, start};

    /// The pages of a history from the end.
    async fn pages(bed: &Bed, maximum_page_size: i32) -> Vec<Vec<HistoryEvent>> {
        let mut pages = Vec::new();
        let mut next_page_token = Vec::new();
        loop {
            let request = GetWorkflowExecutionHistoryReverseRequest {
                namespace: start("").namespace,
                execution: execution("flow", ""),
                maximum_page_size,
                next_page_token,
            };
            let page = bed.runtime.get_history_reverse(&bed.permit, request).await;
            let page = page.expect("a page");
            pages.push(page.history.expect("events").events);
            next_page_token = page.next_page_token;
            if next_page_token.is_empty() {
                return pages;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pages_from_the_end_have_a_bound_in_bytes_and_in_events() {
        const EVENT_BYTES: usize = 1024 * 1024;
        let bed = Bed::open(Settings::default()).await;
        bed.start(start("flow")).await;
        for _ in 0..6 {
            bed.signal("flow", EVENT_BYTES).await.expect("signalled");
        }
        // From memory, from the store, and from both.
        for round in 0..3 {
            if round == 1 {
                let request = TerminateWorkflowExecutionRequest {
                    namespace: start("").namespace,
                    workflow_execution: execution("flow", ""),
                    ..Default::default()
                };
                let terminated = bed.runtime.terminate_workflow(&bed.permit, request).await;
                terminated.expect("terminated");
            } else {
                bed.runtime.project_all().await.expect("projected");
            }
            let mut expected = bed.history("flow", "").await;
            expected.reverse();
            for (size, count) in [(0, 4), (1, expected.len()), (3, 4)] {
                let pages = pages(&bed, size).await;
                assert_eq!(pages.concat(), expected, "{round} {size}");
                assert!(pages.len() >= count.min(3), "{round} {size}");
                for page in pages {
                    let bytes: usize = page.iter().map(Message::encoded_len).sum();
                    assert!(bytes < HISTORY_PAGE_BYTES + EVENT_BYTES + 1024, "{bytes}");
                    assert!(size == 0 || page.len() <= size as usize, "{round} {size}");
                }
            }
        }
    }
}
