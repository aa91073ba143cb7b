//! Runs as traces, and their entries as events.

use std::time::Duration;

use serde_json::Value;
use steadfast_engine::proto::command::command::Attributes;
use steadfast_engine::proto::command::{
    CompleteWorkflowExecutionCommandAttributes, ContinueAsNewWorkflowExecutionCommandAttributes,
    FailWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
    StartChildWorkflowExecutionCommandAttributes, StartTimerCommandAttributes,
};
use steadfast_engine::proto::common::{ActivityType, Payload, Payloads, RetryPolicy, WorkflowType};
use steadfast_engine::proto::enums::EventType;
use steadfast_engine::proto::failure::{
    ActivityFailureInfo, ApplicationFailureInfo, Failure, failure::FailureInfo,
};
use steadfast_engine::proto::taskqueue::TaskQueue;
use steadfast_engine::proto::workflowservice::{
    PollActivityTaskQueueRequest, PollActivityTaskQueueResponse, ResetWorkflowExecutionRequest,
    RespondActivityTaskCompletedRequest, RespondActivityTaskFailedRequest,
};
use tokio::sync::mpsc;

use super::{Reader, Selection};
use crate::testing::{Bed, execution, start};
use crate::{Runtime, Settings};

const MILLISECOND: Option<prost_types::Duration> = Some(prost_types::Duration {
    seconds: 0,
    nanos: 1_000_000,
});

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn secret() -> Option<Payloads> {
    let data = b"a secret".to_vec();
    let payload = Payload {
        data,
        ..Payload::default()
    };
    Some(Payloads {
        payloads: vec![payload],
    })
}

fn tool_call(id: &str) -> Attributes {
    ScheduleActivityTaskCommandAttributes {
        activity_id: id.into(),
        activity_type: Some(ActivityType { name: "pay".into() }),
        task_queue: Some(TaskQueue {
            name: "default".into(),
            ..TaskQueue::default()
        }),
        input: secret(),
        start_to_close_timeout: seconds(10),
        retry_policy: Some(RetryPolicy {
            initial_interval: MILLISECOND,
            maximum_attempts: 2,
            ..RetryPolicy::default()
        }),
        ..Default::default()
    }
    .into()
}

fn complete() -> Attributes {
    CompleteWorkflowExecutionCommandAttributes { result: secret() }.into()
}

fn declined() -> Failure {
    Failure {
        message: "a secret".into(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(
            ApplicationFailureInfo {
                r#type: "Declined".into(),
                ..ApplicationFailureInfo::default()
            },
        )),
        ..Failure::default()
    }
}

async fn take_tool_call(bed: &Bed) -> PollActivityTaskQueueResponse {
    let request = PollActivityTaskQueueRequest {
        namespace: "default".into(),
        task_queue: Some(TaskQueue {
            name: "default".into(),
            ..TaskQueue::default()
        }),
        identity: "worker@desk".into(),
        ..Default::default()
    };
    let deadline = Some(Duration::from_secs(10));
    let polled = bed
        .runtime
        .poll_activity_task(&bed.permit, request, deadline);
    let task = polled.await.expect("polled");
    assert!(!task.task_token.is_empty(), "a tool call is there");
    task
}

async fn fail_tool_call(bed: &Bed) {
    let request = RespondActivityTaskFailedRequest {
        task_token: take_tool_call(bed).await.task_token,
        failure: Some(declined()),
        ..Default::default()
    };
    let failed = bed.runtime.fail_activity(&bed.permit, request).await;
    failed.expect("failed");
}

async fn complete_tool_call(bed: &Bed) {
    let request = RespondActivityTaskCompletedRequest {
        task_token: take_tool_call(bed).await.task_token,
        result: secret(),
        ..Default::default()
    };
    let completed = bed.runtime.complete_activity(&bed.permit, request).await;
    completed.expect("completed");
}

async fn lines<F>(export: impl FnOnce(mpsc::Sender<bytes::Bytes>) -> F) -> Vec<Value>
where
    F: Future<Output = crate::error::Result<Reader>>,
{
    let (sender, mut receiver) = mpsc::channel(1000);
    assert_eq!(export(sender).await.expect("is exported"), Reader::Present);
    let mut text = Vec::new();
    while let Some(piece) = receiver.recv().await {
        text.extend_from_slice(&piece);
    }
    let text = String::from_utf8(text).expect("text");
    assert!(!text.contains("secret") && !text.contains("YSBzZWNyZXQ"));
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

async fn spans(runtime: &Runtime, selection: Selection) -> Vec<Value> {
    let namespace = runtime.namespaces().by_name("default").expect("there");
    let requests = lines(async |lines| runtime.export_traces(&namespace, &selection, &lines).await);
    let requests = requests.await;
    let of = |request: &Value| request["resourceSpans"][0]["scopeSpans"][0]["spans"].clone();
    let spans = requests.iter().map(of);
    spans
        .flat_map(|spans| spans.as_array().cloned().unwrap_or_default())
        .collect()
}

async fn of_workflow(bed: &Bed, workflow_id: &str) -> Vec<Value> {
    let selection = Selection {
        workflow_id: Some(workflow_id.into()),
        ..Selection::default()
    };
    spans(&bed.runtime, selection).await
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a str {
    let attributes = span["attributes"].as_array().expect("attributes");
    let found = attributes.iter().find(|of| of["key"] == key);
    found.map_or("", |found| {
        let value = &found["value"];
        let text = value["stringValue"].as_str();
        text.or(value["intValue"].as_str()).unwrap_or_default()
    })
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_of_a_tool_call_is_a_span() {
    let bed = Bed::open(Settings::default()).await;
    let run_id = bed.start(start("paying")).await;
    bed.answer([tool_call("1")]).await;
    fail_tool_call(&bed).await;
    bed.signal("paying", 10).await.expect("signalled");
    complete_tool_call(&bed).await;
    let open = of_workflow(&bed, "paying").await;
    assert_eq!(named(&open, "execute_tool pay").len(), 2);
    assert!(named(&open, "invoke_agent Flow").is_empty(), "it is open");
    bed.answer([complete()]).await;

    let spans = of_workflow(&bed, "paying").await;
    assert_eq!(spans, of_workflow(&bed, "paying").await, "the same again");
    assert_eq!(spans[..open.len()], open, "and what was there before");
    let trace_id = run_id.replace('-', "");
    assert!(
        spans
            .iter()
            .all(|span| span["traceId"] == trace_id.as_str())
    );
    let [root] = named(&spans, "invoke_agent Flow")[..] else {
        panic!("one run: {spans:#?}");
    };
    assert!(root.get("parentSpanId").is_none() && root.get("status").is_none());
    assert_eq!(attribute(root, "gen_ai.operation.name"), "invoke_agent");
    assert_eq!(attribute(root, "gen_ai.conversation.id"), "paying");
    assert_eq!(attribute(root, "steadfast.outcome"), "completed");
    assert_eq!(attribute(root, "steadfast.principal"), "tester");
    assert_eq!(root["events"][0]["name"], "signal");
    let [first, second] = named(&spans, "execute_tool pay")[..] else {
        panic!("two attempts: {spans:#?}");
    };
    for (span, attempt, outcome, error) in [
        (first, "1", "failed", "application/Declined"),
        (second, "2", "completed", ""),
    ] {
        assert_eq!(span["parentSpanId"], root["spanId"]);
        assert_eq!(attribute(span, "gen_ai.operation.name"), "execute_tool");
        assert_eq!(attribute(span, "gen_ai.tool.name"), "pay");
        assert_eq!(attribute(span, "gen_ai.tool.call.id"), "1");
        assert_eq!(attribute(span, "steadfast.attempt"), attempt);
        assert_eq!(attribute(span, "steadfast.worker"), "worker@desk");
        assert_eq!(attribute(span, "steadfast.outcome"), outcome);
        assert_eq!(attribute(span, "error.type"), error);
        assert_eq!(span.get("status").is_some(), !error.is_empty());
    }
    let time = |span: &Value, key: &str| -> i64 {
        let time = span[key].as_str().expect("a time");
        time.parse().expect("a number")
    };
    assert!(time(root, "startTimeUnixNano") < time(first, "startTimeUnixNano"));
    assert!(time(first, "startTimeUnixNano") < time(first, "endTimeUnixNano"));
    assert!(time(first, "endTimeUnixNano") <= time(second, "startTimeUnixNano"));
    assert!(time(second, "endTimeUnixNano") < time(root, "endTimeUnixNano"));
    assert!(named(&spans, "workflow_task").len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_chain_are_one_trace_with_links() {
    let bed = Bed::open(Settings::default()).await;
    let first = bed.start(start("chain")).await;
    let again = ContinueAsNewWorkflowExecutionCommandAttributes {
        workflow_type: Some(WorkflowType {
            name: "Flow".into(),
        }),
        ..Default::default()
    };
    bed.answer([again.into()]).await;
    let timer = StartTimerCommandAttributes {
        timer_id: "t".into(),
        start_to_fire_timeout: seconds(600),
    };
    bed.answer([timer.into(), tool_call("1")]).await;
    let task = take_tool_call(&bed).await;
    let second = task.workflow_execution.expect("a run").run_id;
    // The task before the tool call is done again: the attempt under way is not part of it.
    let reset = ResetWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_execution: execution("chain", &second),
        workflow_task_finish_event_id: 4,
        request_id: "reset".into(),
        ..Default::default()
    };
    let reset = bed.runtime.reset_workflow(&bed.permit, reset).await;
    let third = reset.expect("reset").run_id;
    let cause = Some(Box::new(declined()));
    let failed = FailWorkflowExecutionCommandAttributes {
        failure: Some(Failure {
            failure_info: Some(FailureInfo::ActivityFailureInfo(
                ActivityFailureInfo::default(),
            )),
            cause,
            ..Failure::default()
        }),
    };
    bed.answer([failed.into()]).await;

    let spans = of_workflow(&bed, "chain").await;
    let trace_id = first.replace('-', "");
    assert!(
        spans
            .iter()
            .all(|span| span["traceId"] == trace_id.as_str())
    );
    let roots = named(&spans, "invoke_agent Flow");
    let root = |run_id: &str| -> &Value {
        let of_run = |root: &&&Value| attribute(root, "temporalRunID") == run_id;
        roots.iter().find(of_run).expect("a span of the run")
    };
    assert_eq!(roots.len(), 3);
    assert!(root(&first).get("links").is_none());
    for (run_id, before) in [(&second, &first), (&third, &second)] {
        let links = root(run_id)["links"].as_array().expect("links");
        assert_eq!(links[0]["traceId"], trace_id.as_str());
        assert_eq!(links[0]["spanId"], root(before)["spanId"]);
        assert_eq!(links.len(), 1);
    }
    assert_eq!(
        attribute(root(&first), "steadfast.outcome"),
        "continued_as_new"
    );
    assert_eq!(attribute(root(&second), "error.type"), "terminated");
    assert_eq!(
        attribute(root(&third), "error.type"),
        "application/Declined"
    );
    assert_eq!(root(&third)["status"]["code"], 2);
    for name in ["timer", "execute_tool pay"] {
        let [span] = named(&spans, name)[..] else {
            panic!("one {name}: {spans:#?}");
        };
        assert_eq!(span["parentSpanId"], root(&second)["spanId"]);
        assert_eq!(attribute(span, "steadfast.outcome"), "abandoned");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_part_of_the_trace_of_its_parent() {
    let bed = Bed::open(Settings::default()).await;
    let parent_run = bed.start(start("parent")).await;
    let child = StartChildWorkflowExecutionCommandAttributes {
        workflow_id: "child".into(),
        workflow_type: Some(WorkflowType {
            name: "Helper".into(),
        }),
        ..Default::default()
    };
    bed.answer([child.into()]).await;
    // The child's task, and those of the parent about its start and its end, or about both at once.
    loop {
        let task = bed.take().await;
        let is_child = task.workflow_type.expect("a type").name == "Helper";
        let ended = EventType::ChildWorkflowExecutionCompleted;
        let is_last = !is_child && bed.count("parent", ended).await == 1;
        let commands = (is_child || is_last).then(complete);
        bed.answer_task(task.task_token, commands).await;
        if is_last {
            break;
        }
    }
    let parents = of_workflow(&bed, "parent").await;
    let children = of_workflow(&bed, "child").await;
    let trace_id = parent_run.replace('-', "");
    let [started] = named(&parents, "child Helper")[..] else {
        panic!("a child: {parents:#?}");
    };
    let [child] = named(&children, "invoke_agent Helper")[..] else {
        panic!("one run: {children:#?}");
    };
    assert_eq!(child["traceId"], trace_id.as_str());
    assert_eq!(child["parentSpanId"], started["spanId"]);
    assert_eq!(attribute(started, "steadfast.outcome"), "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_chosen_by_when_they_closed() {
    let bed = Bed::open(Settings::default()).await;
    bed.start(start("it's \\ closed")).await;
    bed.answer([complete()]).await;
    bed.start(start("open")).await;
    let agents = async |selection| {
        let spans = spans(&bed.runtime, selection).await;
        named(&spans, "invoke_agent Flow").len()
    };
    let between = |from: &str, to: &str| Selection {
        from: Some(from.into()),
        to: Some(to.into()),
        ..Selection::default()
    };
    let (past, future) = ("2020-01-01T00:00:00Z", "2120-01-01T00:00:00Z");
    assert_eq!(agents(Selection::default()).await, 1);
    assert_eq!(agents(between(past, future)).await, 1);
    assert_eq!(agents(between(future, "2121-01-01T00:00:00Z")).await, 0);
    assert_eq!(of_workflow(&bed, "open").await, Vec::<Value>::new());
    assert!(!of_workflow(&bed, "it's \\ closed").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_is_several_requests_and_its_events_are_limited() {
    let bed = Bed::open(Settings::default()).await;
    bed.start(start("long")).await;
    for _ in 0..130 {
        bed.signal("long", 10).await.expect("signalled");
    }
    let timer = |n: usize| {
        let timer = StartTimerCommandAttributes {
            timer_id: n.to_string(),
            start_to_fire_timeout: seconds(600),
        };
        timer.into()
    };
    bed.answer((0..250).map(timer).chain([complete()])).await;
    let namespace = bed.runtime.namespaces().by_name("default").expect("there");
    let requests = lines(async |lines| {
        let all = Selection::default();
        bed.runtime.export_traces(&namespace, &all, &lines).await
    });
    let requests = requests.await;
    let counts = requests.iter().map(|request| {
        let spans = &request["resourceSpans"][0]["scopeSpans"][0]["spans"];
        spans.as_array().map_or(0, Vec::len)
    });
    assert_eq!(counts.collect::<Vec<_>>(), [200, 52]);
    let spans = of_workflow(&bed, "long").await;
    let root = named(&spans, "invoke_agent Flow")[0];
    assert_eq!(root["events"].as_array().map(Vec::len), Some(128));
    assert_eq!(root["droppedEventsCount"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_events_in_the_order_of_the_log() {
    let bed = Bed::open(Settings::default()).await;
    bed.start(start("paying")).await;
    bed.answer([complete()]).await;
    bed.runtime.project_all().await.expect("projected");
    let namespace_id = bed.key("paying").namespace_id;
    let size = bed.runtime.log_heads().borrow()[&namespace_id].size;
    let export = async |from| {
        let exported = lines(async |lines| {
            let runtime = &bed.runtime;
            runtime
                .export_ocsf(&namespace_id, "example.com/default", from..size, &lines)
                .await
        });
        exported.await
    };
    let events = export(0).await;
    assert_eq!(events.len() as u64, size);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["metadata"]["sequence"], index);
        assert_eq!(event["metadata"]["log_name"], "example.com/default");
    }
    let started = |event: &&Value| event["api"]["operation"] == "Test";
    assert!(events.iter().any(|event| started(&event)));
    assert_eq!(export(1).await, events[1..]);
    assert_eq!(export(size).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_when_its_reader_is_gone() {
    let bed = Bed::open(Settings::default()).await;
    bed.start(start("paying")).await;
    bed.answer([complete()]).await;
    bed.runtime.project_all().await.expect("projected");
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    let namespace = bed.runtime.namespaces().by_name("default").expect("there");
    let all = Selection::default();
    let traces = bed.runtime.export_traces(&namespace, &all, &sender).await;
    assert_eq!(traces.expect("ends"), Reader::Gone);
    let events = bed
        .runtime
        .export_ocsf(&namespace.id, "origin", 0..2, &sender)
        .await;
    assert_eq!(events.expect("ends"), Reader::Gone);
}
