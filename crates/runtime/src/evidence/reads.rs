//! Entries for what changes nothing: reads, where the configuration asks for them.
//!
//! A read leaves one entry, which is durable before the answer is given. The pages that follow the
//! first one leave none: their token holds a seal, which nobody but this process can make.

use steadfast_ledger::Hash;
use steadfast_ledger::entry::Note;

use crate::error::Result;
use crate::permit::Permit;
use crate::runtime::Runtime;

/// Which reads leave entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reads {
    /// None.
    #[default]
    None,
    /// Those of histories, which hold payloads.
    History,
    /// Queries, descriptions, lists and counts as well.
    All,
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A history, forward or backward.
    History,
    /// Histories and entries, as an evidence bundle.
    Bundle,
    /// What the workflow's code says.
    Query,
    /// A run's state.
    Describe,
    /// Runs, by a filter.
    List,
    /// Their number.
    Count,
}

impl Read {
    /// From which setting on it leaves an entry.
    fn since(self) -> Reads {
        match self {
            Self::History | Self::Bundle => Reads::History,
            Self::Query | Self::Describe | Self::List | Self::Count => Reads::All,
        }
    }

    /// As entries name it.
    fn what(self) -> &'static str {
        match self {
            Self::History => "read/history",
            Self::Bundle => "read/bundle",
            Self::Query => "read/query",
            Self::Describe => "read/describe",
            Self::List => "read/list",
            Self::Count => "read/count",
        }
    }
}

/// What is read of: empty where it is not one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// Workflow id.
    pub workflow_id: &'a str,
    /// Run id.
    pub run_id: &'a str,
    /// More about it. No values: what is in a log stays there.
    pub detail: &'a str,
}

impl Runtime {
    /// Whether a read leaves an entry.
    pub(crate) fn is_noted(&self, read: Read) -> bool {
        self.0.settings.evidence && self.0.settings.reads >= read.since()
    }

    /// Leaves the entry of a read, if the configuration asks for it, and waits until it is durable.
    pub async fn note_read(
        &self,
        permit: &Permit,
        read: Read,
        namespace_id: &str,
        of: Subject<'_>,
    ) -> Result<()> {
        if !self.is_noted(read) {
            return Ok(());
        }
        self.wait_for_room().await?;
        let note = Note {
            what: read.what().into(),
            detail: of.detail.into(),
            workflow_id: of.workflow_id.into(),
            run_id: of.run_id.into(),
        };
        self.note(permit, namespace_id, note).await
    }

    /// What the tokens of a read's further pages hold, so that they leave no entry.
    pub(crate) fn read_seal(&self, namespace_id: &str, of: &str) -> Vec<u8> {
        let subject = Hash::of(format!("{namespace_id}\0{of}").as_bytes());
        // Of fixed length: nothing can be put behind it.
        let secret = &self.0.read_secret;
        Hash::of(&[secret.as_ref(), &subject.0].concat()).0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use steadfast_engine::proto::enums::HistoryEventFilterType;
    use steadfast_engine::proto::history::HistoryEvent;
    use steadfast_engine::proto::workflowservice::{
        DescribeWorkflowExecutionRequest, GetWorkflowExecutionHistoryRequest,
        GetWorkflowExecutionHistoryResponse, GetWorkflowExecutionHistoryReverseRequest,
        TerminateWorkflowExecutionRequest,
    };
    use steadfast_ledger::Entry;

    use super::*;
    use crate::Settings;
    use crate::testing::{Bed, execution, start};

    async fn bed(reads: Reads) -> Bed {
        let settings = Settings {
            reads,
            ..Settings::default()
        };
        Bed::open(settings).await
    }

    /// The notes of the log: what, workflow id, run id, call.
    async fn notes(bed: &Bed) -> Vec<(String, String, String, String)> {
        let id = bed.key("").namespace_id;
        let size = bed.runtime.log_size(&id).await.expect("a size");
        let size = usize::try_from(size).expect("a small log");
        let entries = bed.store.log_entries(&id, 0, size, usize::MAX).await;
        let mut notes = Vec::new();
        for entry in entries.expect("entries") {
            let entry = Entry::parse(&entry).expect("an entry");
            if let Some(note) = entry.note {
                notes.push((
                    note.what.into_owned(),
                    note.workflow_id.into_owned(),
                    note.run_id.into_owned(),
                    entry.cause.call.into_owned(),
                ));
            }
        }
        notes
    }

    fn request(page_size: i32, token: &[u8]) -> GetWorkflowExecutionHistoryRequest {
        GetWorkflowExecutionHistoryRequest {
            namespace: start("").namespace,
            execution: execution("flow", ""),
            maximum_page_size: page_size,
            next_page_token: token.to_vec(),
            ..Default::default()
        }
    }

    async fn read(
        bed: &Bed,
        request: GetWorkflowExecutionHistoryRequest,
        patience: Duration,
    ) -> GetWorkflowExecutionHistoryResponse {
        let patience = Some(patience + Duration::from_millis(500));
        let answer = bed.runtime.get_history(&bed.permit, request, patience);
        answer.await.expect("a history")
    }

    fn events(answer: &GetWorkflowExecutionHistoryResponse) -> &[HistoryEvent] {
        answer.history.as_ref().map_or(&[], |of| &of.events)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_noted_unless_it_is_asked_for() {
        let bed = bed(Reads::None).await;
        bed.start(start("flow")).await;
        bed.history("flow", "").await;
        assert_eq!(notes(&bed).await, []);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_pages_of_a_history_leave_one_entry_before_the_first_is_given() {
        let bed = bed(Reads::History).await;
        let run_id = bed.start(start("flow")).await;
        bed.signal("flow", 1).await.expect("signalled");
        bed.signal("flow", 1).await.expect("signalled");
        let first = read(&bed, request(1, &[]), Duration::ZERO).await;
        let of = |call: &str| {
            (
                "read/history".into(),
                "flow".into(),
                run_id.clone(),
                call.into(),
            )
        };
        assert_eq!(notes(&bed).await, [of("Test")]);
        let mut token = first.next_page_token;
        let mut pages = 1;
        while !token.is_empty() {
            let page = read(&bed, request(1, &token), Duration::ZERO).await;
            assert_eq!(events(&page).len(), 1);
            token = page.next_page_token;
            pages += 1;
        }
        assert_eq!(pages, 4);
        assert_eq!(notes(&bed).await.len(), 1);
        // Another read is another entry.
        bed.history("flow", "").await;
        assert_eq!(notes(&bed).await.len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pages_from_the_end_leave_one_entry() {
        let bed = bed(Reads::History).await;
        bed.start(start("flow")).await;
        bed.signal("flow", 1).await.expect("signalled");
        let mut next_page_token = Vec::new();
        loop {
            let request = GetWorkflowExecutionHistoryReverseRequest {
                namespace: start("").namespace,
                execution: execution("flow", ""),
                maximum_page_size: 1,
                next_page_token,
            };
            let page = bed.runtime.get_history_reverse(&bed.permit, request).await;
            next_page_token = page.expect("a page").next_page_token;
            if next_page_token.is_empty() {
                break;
            }
        }
        assert_eq!(notes(&bed).await.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_poll_leaves_an_entry_when_there_is_something_to_tell() {
        let bed = bed(Reads::History).await;
        bed.start(start("flow")).await;
        let poll = |token: &[u8]| GetWorkflowExecutionHistoryRequest {
            wait_new_event: true,
            history_event_filter_type: HistoryEventFilterType::CloseEvent as i32,
            ..request(0, token)
        };
        let empty = read(&bed, poll(&[]), Duration::from_millis(50)).await;
        assert!(events(&empty).is_empty() && !empty.next_page_token.is_empty());
        assert_eq!(notes(&bed).await, []);
        let terminate = TerminateWorkflowExecutionRequest {
            namespace: start("").namespace,
            workflow_execution: execution("flow", ""),
            ..Default::default()
        };
        let terminated = bed.runtime.terminate_workflow(&bed.permit, terminate).await;
        terminated.expect("terminated");
        let closed = read(&bed, poll(&empty.next_page_token), Duration::from_secs(1)).await;
        assert_eq!(events(&closed).len(), 1);
        assert_eq!(notes(&bed).await.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_of_ones_own_making_hides_nothing() {
        use prost::Message;

        let bed = bed(Reads::History).await;
        let run_id = bed.start(start("flow")).await;
        let forged = crate::token::HistoryToken {
            run_id,
            next_event_id: 1,
            noted: vec![7; 32],
            ..Default::default()
        };
        let page = read(&bed, request(0, &forged.encode_to_vec()), Duration::ZERO).await;
        assert!(!events(&page).is_empty());
        assert_eq!(notes(&bed).await.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everything_means_descriptions_lists_and_counts() {
        for (reads, expected) in [
            (Reads::History, vec![]),
            (Reads::All, vec!["read/describe", "read/list", "read/count"]),
        ] {
            let bed = bed(reads).await;
            for id in ["flow", "other"] {
                bed.start(start(id)).await;
            }
            let request = DescribeWorkflowExecutionRequest {
                namespace: start("").namespace,
                execution: execution("flow", ""),
            };
            let described = bed.runtime.describe_workflow(&bed.permit, request).await;
            described.expect("described");
            let namespace = bed.runtime.namespaces().by_name("default").expect("there");
            let mut token = Vec::new();
            for _ in 0..2 {
                let page = bed
                    .runtime
                    .list_runs(&bed.permit, &namespace, "", 1, &token)
                    .await;
                let (infos, next) = page.expect("a page");
                assert_eq!(infos.len(), 1);
                token = next;
            }
            let count = bed.runtime.count_runs(&bed.permit, &namespace, "").await;
            assert_eq!(count.expect("a count").total, 2);
            let notes: Vec<_> = notes(&bed).await.into_iter().map(|note| note.0).collect();
            assert_eq!(notes, expected);
        }
    }
}
