"""Bad input: what is refused, with which status code, and with which detail.

A row is (what there is before, the mistake, status code, detail, the call). The call gets the raw API and
whatever the preparation answered: an execution for RUNNING and CLOSED, a task for WORKFLOW_TASK and
ACTIVITY_TASK.
"""

from __future__ import annotations

import pytest
from raw import NO_SUCH_RUN, Raw, command, complete, payload, payloads, refusal, seconds

NOTHING, RUNNING, CLOSED, WORKFLOW_TASK, ACTIVITY_TASK = (
    "nothing",
    "running",
    "closed",
    "workflow_task",
    "activity_task",
)
LONG = "x" * 1001
MEBIBYTE = 1024 * 1024
BIG = payloads("x" * (2 * MEBIBYTE + 1))


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


def execution(**fields):
    return {"workflow_id": "no-such-workflow", **fields}


def attributes(**fields):
    return {"indexed_fields": fields}


def retry(**fields):
    return {"initial_interval": seconds(1), "backoff_coefficient": 2, **fields}


CASES = [
    # Starting a workflow.
    (NOTHING, "start: no namespace", "?", None, lambda r, _: r.start(namespace="")),
    (NOTHING, "start: unknown namespace", "?", None, lambda r, _: r.start(namespace="no-such-namespace")),
    (NOTHING, "start: no workflow id", "?", None, lambda r, _: r.start(workflow_id="")),
    (NOTHING, "start: workflow id too long", "?", None, lambda r, _: r.start(workflow_id=LONG)),
    (NOTHING, "start: longest workflow id", "?", None, lambda r, _: r.start(workflow_id=r.unique + "x" * 988)),
    (NOTHING, "start: no workflow type", "?", None, lambda r, _: r.start(workflow_type=None)),
    (NOTHING, "start: empty workflow type", "?", None, lambda r, _: r.start(workflow_type={"name": ""})),
    (NOTHING, "start: workflow type too long", "?", None, lambda r, _: r.start(workflow_type={"name": LONG})),
    (NOTHING, "start: no task queue", "?", None, lambda r, _: r.start(task_queue=None)),
    (NOTHING, "start: empty task queue", "?", None, lambda r, _: r.start(task_queue={"name": ""})),
    (NOTHING, "start: task queue too long", "?", None, lambda r, _: r.start(task_queue={"name": LONG})),
    (NOTHING, "start: reserved task queue", "?", None, lambda r, _: r.start(task_queue={"name": "/_sys/mine"})),
    (NOTHING, "start: request id too long", "?", None, lambda r, _: r.start(request_id=LONG)),
    (NOTHING, "start: no request id", "?", None, lambda r, _: r.start(request_id="")),
    (NOTHING, "start: negative execution timeout", "?", None, lambda r, _: r.start(workflow_execution_timeout=seconds(-1))),
    (NOTHING, "start: negative run timeout", "?", None, lambda r, _: r.start(workflow_run_timeout=seconds(-1))),
    (NOTHING, "start: negative task timeout", "?", None, lambda r, _: r.start(workflow_task_timeout=seconds(-1))),
    (NOTHING, "start: negative delay", "?", None, lambda r, _: r.start(workflow_start_delay=seconds(-1))),
    (NOTHING, "start: delay and cron", "?", None, lambda r, _: r.start(workflow_start_delay=seconds(1), cron_schedule="* * * * *")),
    (NOTHING, "start: bad cron", "?", None, lambda r, _: r.start(cron_schedule="every now and then")),
    (NOTHING, "start: cron field out of range", "?", None, lambda r, _: r.start(cron_schedule="61 * * * *")),
    (NOTHING, "start: cron too long", "?", None, lambda r, _: r.start(cron_schedule="1," * 1000 + "1 * * * *")),
    (NOTHING, "start: retry with negative attempts", "?", None, lambda r, _: r.start(retry_policy=retry(maximum_attempts=-1))),
    (NOTHING, "start: retry with negative interval", "?", None, lambda r, _: r.start(retry_policy=retry(initial_interval=seconds(-1)))),
    (NOTHING, "start: retry with shrinking backoff", "?", None, lambda r, _: r.start(retry_policy=retry(backoff_coefficient=0.5))),
    (NOTHING, "start: retry with negative maximum", "?", None, lambda r, _: r.start(retry_policy=retry(maximum_interval=seconds(-1)))),
    (NOTHING, "start: retry with maximum below initial", "?", None, lambda r, _: r.start(retry_policy=retry(initial_interval=seconds(5), maximum_interval=seconds(1)))),
    (NOTHING, "start: retry with unknown timeout type", "?", None, lambda r, _: r.start(retry_policy=retry(non_retryable_error_types=["TemporalTimeout:Lunch"]))),
    (NOTHING, "start: unknown search attribute", "?", None, lambda r, _: r.start(search_attributes=attributes(NoSuchAttribute=payload(1)))),
    (NOTHING, "start: search attribute of the wrong type", "?", None, lambda r, _: r.start(search_attributes=attributes(BuildIds=payload(17)))),
    (NOTHING, "start: search attribute that the server sets", "?", None, lambda r, _: r.start(search_attributes=attributes(WorkflowType=payload("Raw")))),
    (NOTHING, "start: input too large", "?", None, lambda r, _: r.start(input=BIG)),
    (NOTHING, "start: memo too large", "?", None, lambda r, _: r.start(memo={"fields": {"big": BIG.payloads[0]}})),
    (NOTHING, "start: request beyond the message limit", "?", None, lambda r, _: r.start(input=payloads(*["x" * MEBIBYTE] * 5))),
    (NOTHING, "start: negative priority", "?", None, lambda r, _: r.start(priority={"priority_key": -1})),
    (NOTHING, "start: priority out of range", "?", None, lambda r, _: r.start(priority={"priority_key": 6})),
    (NOTHING, "start: fairness key too long", "?", None, lambda r, _: r.start(priority={"fairness_key": "x" * 65})),
    (NOTHING, "start: conflict policy against reuse policy", "?", None, lambda r, _: r.start(
        workflow_id_conflict_policy="WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING",
        workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING",
    )),
    (NOTHING, "start: terminate existing but reject duplicates", "?", None, lambda r, _: r.start(
        workflow_id_conflict_policy="WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING",
        workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE",
    )),
    (RUNNING, "start: already running", "?", None, lambda r, _: r.start(request_id="another")),
    (RUNNING, "start: the same request again", "?", None, lambda r, _: r.start()),
    (RUNNING, "start: already running, reject duplicates", "?", None, lambda r, _: r.start(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE")),
    (CLOSED, "start: closed, reject duplicates", "?", None, lambda r, _: r.start(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE")),
    (CLOSED, "start: terminated, again only if failed", "?", None, lambda r, _: r.start(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY")),
    ("completed", "start: completed, again only if failed", "?", None, lambda r, _: r.start(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY")),
    # Signalling.
    (NOTHING, "signal: unknown namespace", "?", None, lambda r, _: r.call("signal_workflow_execution", namespace="no-such-namespace", workflow_execution=execution(), signal_name="s")),
    (NOTHING, "signal: unknown workflow", "?", None, lambda r, _: r.call("signal_workflow_execution", workflow_execution=execution(), signal_name="s")),
    (NOTHING, "signal: no execution", "?", None, lambda r, _: r.call("signal_workflow_execution", signal_name="s")),
    (NOTHING, "signal: no workflow id", "?", None, lambda r, _: r.call("signal_workflow_execution", workflow_execution=execution(workflow_id=""), signal_name="s")),
    (NOTHING, "signal: malformed run id", "?", None, lambda r, _: r.call("signal_workflow_execution", workflow_execution=execution(run_id="run"), signal_name="s")),
    (RUNNING, "signal: wrong run id", "?", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution={**x, "run_id": NO_SUCH_RUN}, signal_name="s")),
    (RUNNING, "signal: no name", "?", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution=x)),
    (RUNNING, "signal: name too long", "?", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution=x, signal_name=LONG)),
    (RUNNING, "signal: request id too long", "?", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution=x, signal_name="s", request_id=LONG)),
    (RUNNING, "signal: input too large", "?", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution=x, signal_name="s", input=BIG)),
    (CLOSED, "signal: closed", "?", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution=x, signal_name="s")),
    (NOTHING, "signal with start: no signal name", "?", None, lambda r, _: r.call("signal_with_start_workflow_execution", **r.start_fields())),
    (NOTHING, "signal with start: no workflow id", "?", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(workflow_id=""))),
    (NOTHING, "signal with start: no task queue", "?", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(task_queue=None))),
    (NOTHING, "signal with start: negative timeout", "?", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(workflow_run_timeout=seconds(-1)))),
    (NOTHING, "signal with start: signal too large", "?", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", signal_input=BIG, **r.start_fields())),
    (CLOSED, "signal with start: closed, reject duplicates", "?", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE"))),
    (RUNNING, "signal with start: conflict policy fail", "?", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(request_id="another", workflow_id_conflict_policy="WORKFLOW_ID_CONFLICT_POLICY_FAIL"))),
    # Ending.
    (NOTHING, "terminate: unknown workflow", "?", None, lambda r, _: r.call("terminate_workflow_execution", workflow_execution=execution())),
    (NOTHING, "terminate: no execution", "?", None, lambda r, _: r.call("terminate_workflow_execution")),
    (NOTHING, "terminate: malformed run id", "?", None, lambda r, _: r.call("terminate_workflow_execution", workflow_execution=execution(run_id="run"))),
    (RUNNING, "terminate: wrong run id", "?", None, lambda r, x: r.call("terminate_workflow_execution", workflow_execution={**x, "run_id": NO_SUCH_RUN})),
    (RUNNING, "terminate: wrong first run id", "?", None, lambda r, x: r.call("terminate_workflow_execution", workflow_execution=x, first_execution_run_id=NO_SUCH_RUN)),
    (RUNNING, "terminate: reason too long", "?", None, lambda r, x: r.call("terminate_workflow_execution", workflow_execution=x, reason=LONG)),
    (CLOSED, "terminate: closed", "?", None, lambda r, x: r.call("terminate_workflow_execution", workflow_execution=x)),
    (NOTHING, "cancel: unknown workflow", "?", None, lambda r, _: r.call("request_cancel_workflow_execution", workflow_execution=execution())),
    (NOTHING, "cancel: no execution", "?", None, lambda r, _: r.call("request_cancel_workflow_execution")),
    (NOTHING, "cancel: malformed run id", "?", None, lambda r, _: r.call("request_cancel_workflow_execution", workflow_execution=execution(run_id="run"))),
    (RUNNING, "cancel: wrong run id", "?", None, lambda r, x: r.call("request_cancel_workflow_execution", workflow_execution={**x, "run_id": NO_SUCH_RUN})),
    (RUNNING, "cancel: wrong first run id", "?", None, lambda r, x: r.call("request_cancel_workflow_execution", workflow_execution=x, first_execution_run_id=NO_SUCH_RUN)),
    (CLOSED, "cancel: closed", "?", None, lambda r, x: r.call("request_cancel_workflow_execution", workflow_execution=x)),
    # Looking.
    (NOTHING, "describe: unknown workflow", "?", None, lambda r, _: r.call("describe_workflow_execution", execution=execution())),
    (NOTHING, "describe: no execution", "?", None, lambda r, _: r.call("describe_workflow_execution")),
    (NOTHING, "describe: malformed run id", "?", None, lambda r, _: r.call("describe_workflow_execution", execution=execution(run_id="run"))),
    (NOTHING, "describe: unknown namespace", "?", None, lambda r, _: r.call("describe_workflow_execution", namespace="no-such-namespace", execution=execution())),
    (RUNNING, "describe: wrong run id", "?", None, lambda r, x: r.call("describe_workflow_execution", execution={**x, "run_id": NO_SUCH_RUN})),
    (NOTHING, "history: unknown workflow", "?", None, lambda r, _: r.call("get_workflow_execution_history", execution=execution())),
    (NOTHING, "history: no execution", "?", None, lambda r, _: r.call("get_workflow_execution_history")),
    (NOTHING, "history: malformed run id", "?", None, lambda r, _: r.call("get_workflow_execution_history", execution=execution(run_id="run"))),
    (RUNNING, "history: wrong run id", "?", None, lambda r, x: r.call("get_workflow_execution_history", execution={**x, "run_id": NO_SUCH_RUN})),
    (RUNNING, "history: garbage page token", "?", None, lambda r, x: r.call("get_workflow_execution_history", execution=x, next_page_token=b"garbage")),
    (NOTHING, "history reverse: unknown workflow", "?", None, lambda r, _: r.call("get_workflow_execution_history_reverse", execution=execution())),
    (RUNNING, "history reverse: garbage page token", "?", None, lambda r, x: r.call("get_workflow_execution_history_reverse", execution=x, next_page_token=b"garbage")),
    # Queries.
    (NOTHING, "query: unknown workflow", "?", None, lambda r, _: r.call("query_workflow", execution=execution(), query={"query_type": "q"})),
    (NOTHING, "query: no execution", "?", None, lambda r, _: r.call("query_workflow", query={"query_type": "q"})),
    (NOTHING, "query: malformed run id", "?", None, lambda r, _: r.call("query_workflow", execution=execution(run_id="run"), query={"query_type": "q"})),
    (RUNNING, "query: no query", "?", None, lambda r, x: r.call("query_workflow", execution=x)),
    (RUNNING, "query: wrong run id", "?", None, lambda r, x: r.call("query_workflow", execution={**x, "run_id": NO_SUCH_RUN}, query={"query_type": "q"})),
    (RUNNING, "query: arguments too large", "?", None, lambda r, x: r.call("query_workflow", execution=x, query={"query_type": "q", "query_args": BIG})),
    (RUNNING, "query: before the first workflow task", "?", None, lambda r, x: r.call("query_workflow", execution=x, query={"query_type": "q"}, timeout=3)),
    (CLOSED, "query: closed before the first workflow task", "?", None, lambda r, x: r.call("query_workflow", execution=x, query={"query_type": "q"}, timeout=3)),
    ("completed", "query: closed and no worker", "?", None, lambda r, x: r.call("query_workflow", execution=x, query={"query_type": "q"}, timeout=3)),
    (NOTHING, "answer to a query: no token", "?", None, lambda r, _: r.call("respond_query_task_completed", completed_type="QUERY_RESULT_TYPE_ANSWERED")),
    (NOTHING, "answer to a query: garbage token", "?", None, lambda r, _: r.call("respond_query_task_completed", task_token=b"garbage", completed_type="QUERY_RESULT_TYPE_ANSWERED")),
    # Updates.
    (NOTHING, "update: unknown workflow", "?", None, lambda r, _: r.update(workflow_execution=execution())),
    (NOTHING, "update: no execution", "?", None, lambda r, _: r.update(workflow_execution=None)),
    (NOTHING, "update: malformed run id", "?", None, lambda r, _: r.update(workflow_execution=execution(run_id="run"))),
    (RUNNING, "update: no request", "?", None, lambda r, x: r.update(request=None)),
    (RUNNING, "update: no input", "?", None, lambda r, x: r.update(request={"meta": {"update_id": "u"}})),
    (RUNNING, "update: no meta", "?", None, lambda r, x: r.update(request={"input": {"name": "u"}})),
    (RUNNING, "update: no name", "?", None, lambda r, x: r.update(request={"meta": {"update_id": "u"}, "input": {"name": ""}})),
    (RUNNING, "update: id too long", "?", None, lambda r, x: r.update(request={"meta": {"update_id": LONG}, "input": {"name": "u"}})),
    (RUNNING, "update: wrong run id", "?", None, lambda r, x: r.update(workflow_execution={**x, "run_id": NO_SUCH_RUN})),
    (RUNNING, "update: wrong first run id", "?", None, lambda r, x: r.update(first_execution_run_id=NO_SUCH_RUN)),
    (RUNNING, "update: no worker", "?", None, lambda r, x: r.update(timeout=2)),
    (CLOSED, "update: closed", "?", None, lambda r, x: r.update()),
    (RUNNING, "poll update: no reference", "?", None, lambda r, x: r.call("poll_workflow_execution_update")),
    (RUNNING, "poll update: unknown update", "?", None, lambda r, x: r.call("poll_workflow_execution_update", update_ref={"workflow_execution": x, "update_id": "no-such-update"})),
    (NOTHING, "poll update: unknown workflow", "?", None, lambda r, _: r.call("poll_workflow_execution_update", update_ref={"workflow_execution": execution(), "update_id": "u"})),
    (CLOSED, "poll update: closed, unknown update", "?", None, lambda r, x: r.call("poll_workflow_execution_update", update_ref={"workflow_execution": x, "update_id": "no-such-update"})),
    # Several operations at once.
    (NOTHING, "multi: no operations", "?", None, lambda r, _: r.call("execute_multi_operation")),
    (NOTHING, "multi: only a start", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation()])),
    (NOTHING, "multi: two starts", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(), r.start_operation()])),
    (NOTHING, "multi: update before start", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.update_operation(), r.start_operation()])),
    (NOTHING, "multi: two workflow ids", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(workflow_id="another"), r.update_operation()])),
    (NOTHING, "multi: cron", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(cron_schedule="* * * * *"), r.update_operation()])),
    (NOTHING, "multi: start delay", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(workflow_start_delay=seconds(1)), r.update_operation()])),
    (NOTHING, "multi: eager start", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(request_eager_execution=True), r.update_operation()])),
    (NOTHING, "multi: bad start", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(task_queue=None), r.update_operation()])),
    (NOTHING, "multi: bad update", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(), r.update_operation(request=None)])),
    (RUNNING, "multi: already running, conflict policy fail", "?", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(request_id="another", workflow_id_conflict_policy="WORKFLOW_ID_CONFLICT_POLICY_FAIL"), r.update_operation()])),
    # Resetting and deleting.
    (NOTHING, "reset: unknown workflow", "?", None, lambda r, _: r.reset(workflow_execution=execution())),
    (NOTHING, "reset: no execution", "?", None, lambda r, _: r.reset(workflow_execution=None)),
    (NOTHING, "reset: malformed run id", "?", None, lambda r, _: r.reset(workflow_execution=execution(run_id="run"))),
    (RUNNING, "reset: no event id", "?", None, lambda r, _: r.reset(workflow_task_finish_event_id=0)),
    (RUNNING, "reset: negative event id", "?", None, lambda r, _: r.reset(workflow_task_finish_event_id=-1)),
    (RUNNING, "reset: first event", "?", None, lambda r, _: r.reset(workflow_task_finish_event_id=1)),
    (RUNNING, "reset: before any task completed", "?", None, lambda r, _: r.reset(workflow_task_finish_event_id=3)),
    (RUNNING, "reset: no request id", "?", None, lambda r, _: r.reset(request_id="")),
    ("completed", "reset: beyond the end", "?", None, lambda r, _: r.reset(workflow_task_finish_event_id=99)),
    ("completed", "reset: not a workflow task", "?", None, lambda r, _: r.reset(workflow_task_finish_event_id=5)),
    ("completed", "reset: a scheduled workflow task", "?", None, lambda r, _: r.reset(workflow_task_finish_event_id=2)),
    ("completed", "reset: a started workflow task", "?", None, lambda r, _: r.reset(workflow_task_finish_event_id=3)),
    ("completed", "reset: reapply type and exclusions", "?", None, lambda r, _: r.reset(reset_reapply_type="RESET_REAPPLY_TYPE_NONE", reset_reapply_exclude_types=["RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL"])),
    (NOTHING, "delete: unknown workflow", "?", None, lambda r, _: r.call("delete_workflow_execution", workflow_execution=execution())),
    (NOTHING, "delete: no execution", "?", None, lambda r, _: r.call("delete_workflow_execution")),
    (NOTHING, "delete: malformed run id", "?", None, lambda r, _: r.call("delete_workflow_execution", workflow_execution=execution(run_id="run"))),
    (RUNNING, "delete: wrong run id", "?", None, lambda r, x: r.call("delete_workflow_execution", workflow_execution={**x, "run_id": NO_SUCH_RUN})),
    # Polling.
    (NOTHING, "poll workflow task: no task queue", "?", None, lambda r, _: r.poll_workflow_task(task_queue=None)),
    (NOTHING, "poll workflow task: empty task queue", "?", None, lambda r, _: r.poll_workflow_task(task_queue={"name": ""})),
    (NOTHING, "poll workflow task: task queue too long", "?", None, lambda r, _: r.poll_workflow_task(task_queue={"name": LONG})),
    (NOTHING, "poll workflow task: unknown namespace", "?", None, lambda r, _: r.poll_workflow_task(namespace="no-such-namespace")),
    (NOTHING, "poll workflow task: no namespace", "?", None, lambda r, _: r.poll_workflow_task(namespace="")),
    (NOTHING, "poll workflow task: identity too long", "?", None, lambda r, _: r.call("poll_workflow_task_queue", task_queue={"name": r.queue}, identity=LONG)),
    (NOTHING, "poll workflow task: deadline too near", "?", None, lambda r, _: r.poll_workflow_task(timeout=0.5)),
    (NOTHING, "poll activity task: no task queue", "?", None, lambda r, _: r.poll_activity_task(task_queue=None)),
    (NOTHING, "poll activity task: empty task queue", "?", None, lambda r, _: r.poll_activity_task(task_queue={"name": ""})),
    (NOTHING, "poll activity task: task queue too long", "?", None, lambda r, _: r.poll_activity_task(task_queue={"name": LONG})),
    (NOTHING, "poll activity task: unknown namespace", "?", None, lambda r, _: r.poll_activity_task(namespace="no-such-namespace")),
    (NOTHING, "describe task queue: none", "?", None, lambda r, _: r.call("describe_task_queue")),
    (NOTHING, "describe task queue: empty", "?", None, lambda r, _: r.call("describe_task_queue", task_queue={"name": ""})),
    # Answering workflow tasks.
    (NOTHING, "workflow task completed: no token", "?", None, lambda r, _: r.call("respond_workflow_task_completed")),
    (NOTHING, "workflow task completed: garbage token", "?", None, lambda r, _: r.call("respond_workflow_task_completed", task_token=b"garbage")),
    (WORKFLOW_TASK, "workflow task completed: truncated token", "?", None, lambda r, t: r.answer(t, task_token=t.task_token[:-3])),
    (WORKFLOW_TASK, "workflow task completed: another namespace", "?", None, lambda r, t: r.answer(t, namespace="no-such-namespace")),
    ("answered_workflow_task", "workflow task completed: twice", "?", None, lambda r, t: r.answer(t)),
    ("terminated_workflow_task", "workflow task completed: closed", "?", None, lambda r, t: r.answer(t)),
    (NOTHING, "workflow task failed: no token", "?", None, lambda r, _: r.call("respond_workflow_task_failed")),
    (NOTHING, "workflow task failed: garbage token", "?", None, lambda r, _: r.call("respond_workflow_task_failed", task_token=b"garbage")),
    ("answered_workflow_task", "workflow task failed: already completed", "?", None, lambda r, t: r.call("respond_workflow_task_failed", task_token=t.task_token)),
    (NOTHING, "reset sticky: unknown workflow", "?", None, lambda r, _: r.call("reset_sticky_task_queue", execution=execution())),
    (CLOSED, "reset sticky: closed", "?", None, lambda r, x: r.call("reset_sticky_task_queue", execution=x)),
    # Answering activity tasks.
    (NOTHING, "activity completed: no token", "?", None, lambda r, _: r.call("respond_activity_task_completed")),
    (NOTHING, "activity completed: garbage token", "?", None, lambda r, _: r.call("respond_activity_task_completed", task_token=b"garbage")),
    ("completed_activity_task", "activity completed: twice", "?", None, lambda r, t: r.complete_activity(t)),
    ("completed_activity_task", "activity failed: already completed", "?", None, lambda r, t: r.call("respond_activity_task_failed", task_token=t.task_token)),
    ("completed_activity_task", "activity canceled: already completed", "?", None, lambda r, t: r.call("respond_activity_task_canceled", task_token=t.task_token)),
    ("completed_activity_task", "heartbeat: already completed", "?", None, lambda r, t: r.call("record_activity_task_heartbeat", task_token=t.task_token)),
    ("terminated_activity_task", "activity completed: workflow closed", "?", None, lambda r, t: r.complete_activity(t)),
    ("terminated_activity_task", "heartbeat: workflow closed", "?", None, lambda r, t: r.call("record_activity_task_heartbeat", task_token=t.task_token)),
    (ACTIVITY_TASK, "activity canceled: never asked to", "?", None, lambda r, t: r.call("respond_activity_task_canceled", task_token=t.task_token)),
    (ACTIVITY_TASK, "activity completed: result too large", "?", None, lambda r, t: r.call("respond_activity_task_completed", task_token=t.task_token, result=BIG)),
    (ACTIVITY_TASK, "heartbeat: details too large", "?", None, lambda r, t: r.call("record_activity_task_heartbeat", task_token=t.task_token, details=BIG)),
    (ACTIVITY_TASK, "activity failed: not an application failure", "?", None, lambda r, t: r.call("respond_activity_task_failed", task_token=t.task_token, failure={"timeout_failure_info": {}})),
    (NOTHING, "heartbeat: no token", "?", None, lambda r, _: r.call("record_activity_task_heartbeat")),
    (NOTHING, "heartbeat: garbage token", "?", None, lambda r, _: r.call("record_activity_task_heartbeat", task_token=b"garbage")),
    (NOTHING, "activity failed: no token", "?", None, lambda r, _: r.call("respond_activity_task_failed")),
    (NOTHING, "activity failed: garbage token", "?", None, lambda r, _: r.call("respond_activity_task_failed", task_token=b"garbage")),
    (NOTHING, "activity canceled: garbage token", "?", None, lambda r, _: r.call("respond_activity_task_canceled", task_token=b"garbage")),
    (NOTHING, "activity by id: unknown workflow", "?", None, lambda r, _: r.call("respond_activity_task_completed_by_id", workflow_id="no-such-workflow", activity_id="1")),
    (NOTHING, "activity by id: no workflow id", "?", None, lambda r, _: r.call("respond_activity_task_completed_by_id", activity_id="1")),
    (NOTHING, "activity by id: malformed run id", "?", None, lambda r, _: r.call("respond_activity_task_completed_by_id", workflow_id="w", run_id="run", activity_id="1")),
    (RUNNING, "activity by id: unknown activity", "?", None, lambda r, x: r.call("respond_activity_task_completed_by_id", **x, activity_id="no-such-activity")),
    (RUNNING, "activity by id: no activity id", "?", None, lambda r, x: r.call("respond_activity_task_completed_by_id", **x)),
    (RUNNING, "activity failed by id: unknown activity", "?", None, lambda r, x: r.call("respond_activity_task_failed_by_id", **x, activity_id="no-such-activity")),
    (RUNNING, "activity canceled by id: unknown activity", "?", None, lambda r, x: r.call("respond_activity_task_canceled_by_id", **x, activity_id="no-such-activity")),
    (RUNNING, "heartbeat by id: unknown activity", "?", None, lambda r, x: r.call("record_activity_task_heartbeat_by_id", **x, activity_id="no-such-activity")),
    ("completed_activity_task", "activity by id: already completed", "?", None, lambda r, t: r.call("respond_activity_task_completed_by_id", **r.execution(), activity_id="1")),
    ("scheduled_activity", "activity by id: not started", "?", None, lambda r, _: r.call("respond_activity_task_completed_by_id", **r.execution(), activity_id="1")),
    # Visibility.
    (NOTHING, "list: unknown namespace", "?", None, lambda r, _: r.list("", namespace="no-such-namespace")),
    (NOTHING, "list: not a filter", "?", None, lambda r, _: r.list("please")),
    (NOTHING, "list: open string", "?", None, lambda r, _: r.list("WorkflowId = 'x")),
    (NOTHING, "list: dangling operator", "?", None, lambda r, _: r.list("WorkflowId = 'x' AND")),
    (NOTHING, "list: unknown attribute", "?", None, lambda r, _: r.list("NoSuchAttribute = 'x'")),
    (NOTHING, "list: unknown attribute in order", "?", None, lambda r, _: r.list("ORDER BY NoSuchAttribute")),
    (NOTHING, "list: number for a keyword", "?", None, lambda r, _: r.list("WorkflowType = 17")),
    (NOTHING, "list: word for a number", "?", None, lambda r, _: r.list("HistoryLength = 'many'")),
    (NOTHING, "list: not a time", "?", None, lambda r, _: r.list("StartTime > 'yesterday'")),
    (NOTHING, "list: unknown status", "?", None, lambda r, _: r.list("ExecutionStatus = 'Sleeping'")),
    (NOTHING, "list: prefix of a number", "?", None, lambda r, _: r.list("HistoryLength STARTS_WITH '1'")),
    (NOTHING, "list: function", "?", None, lambda r, _: r.list("lower(WorkflowId) = 'x'")),
    (NOTHING, "list: group by", "?", None, lambda r, _: r.list("GROUP BY ExecutionStatus")),
    (NOTHING, "list: limit", "?", None, lambda r, _: r.list("WorkflowId = 'x' LIMIT 1")),
    (NOTHING, "list: injection", "?", None, lambda r, _: r.list("WorkflowId = 'x'; DROP TABLE visibility")),
    (NOTHING, "list: garbage page token", "?", None, lambda r, _: r.list("", next_page_token=b"garbage")),
    (NOTHING, "list: negative page size", "?", None, lambda r, _: r.list("", page_size=-1)),
    (NOTHING, "list: page size beyond the limit", "?", None, lambda r, _: r.list("", page_size=100_000)),
    (NOTHING, "count: not a filter", "?", None, lambda r, _: r.call("count_workflow_executions", query="please")),
    (NOTHING, "count: group by two", "?", None, lambda r, _: r.call("count_workflow_executions", query="GROUP BY ExecutionStatus, WorkflowType")),
    (NOTHING, "count: group by something else", "?", None, lambda r, _: r.call("count_workflow_executions", query="GROUP BY StartTime")),
    (NOTHING, "scan: not a filter", "?", None, lambda r, _: r.call("scan_workflow_executions", query="please")),
    # Namespaces and search attributes.
    (NOTHING, "register namespace: no name", "?", None, lambda r, _: r.call("register_namespace", namespace="", workflow_execution_retention_period=seconds(86400))),
    (NOTHING, "register namespace: name too long", "?", None, lambda r, _: r.call("register_namespace", namespace=LONG, workflow_execution_retention_period=seconds(86400))),
    (NOTHING, "register namespace: exists", "?", None, lambda r, _: r.call("register_namespace", namespace="default", workflow_execution_retention_period=seconds(86400))),
    (NOTHING, "register namespace: no retention", "?", None, lambda r, _: r.call("register_namespace", namespace=r.unique)),
    (NOTHING, "register namespace: retention too short", "?", None, lambda r, _: r.call("register_namespace", namespace=r.unique, workflow_execution_retention_period=seconds(60))),
    (NOTHING, "describe namespace: unknown", "?", None, lambda r, _: r.call("describe_namespace", namespace="no-such-namespace")),
    (NOTHING, "describe namespace: no name", "?", None, lambda r, _: r.call("describe_namespace", namespace="")),
    (NOTHING, "describe namespace: unknown id", "?", None, lambda r, _: r.call("describe_namespace", namespace="", id=NO_SUCH_RUN)),
    (NOTHING, "update namespace: unknown", "?", None, lambda r, _: r.call("update_namespace", namespace="no-such-namespace")),
    (NOTHING, "update namespace: no retention", "?", None, lambda r, _: r.call("update_namespace", namespace="default", config={"workflow_execution_retention_ttl": seconds(0)})),
    (NOTHING, "deprecate namespace: unknown", "?", None, lambda r, _: r.call("deprecate_namespace", namespace="no-such-namespace")),
    (NOTHING, "delete namespace: unknown", "?", None, lambda r, _: r.call("delete_namespace", namespace="no-such-namespace")),
    (NOTHING, "delete namespace: the system's", "?", None, lambda r, _: r.call("delete_namespace", namespace="temporal-system")),
    (NOTHING, "add search attributes: none", "?", None, lambda r, _: r.call("add_search_attributes")),
    (NOTHING, "add search attributes: unspecified type", "?", None, lambda r, _: r.call("add_search_attributes", search_attributes={"Mine": "INDEXED_VALUE_TYPE_UNSPECIFIED"})),
    (NOTHING, "add search attributes: the system's name", "?", None, lambda r, _: r.call("add_search_attributes", search_attributes={"WorkflowId": "INDEXED_VALUE_TYPE_KEYWORD"})),
    (NOTHING, "add search attributes: unknown namespace", "?", None, lambda r, _: r.call("add_search_attributes", namespace="no-such-namespace", search_attributes={"Mine": "INDEXED_VALUE_TYPE_INT"})),
    (NOTHING, "remove search attributes: none", "?", None, lambda r, _: r.call("remove_search_attributes")),
    (NOTHING, "remove search attributes: unknown", "?", None, lambda r, _: r.call("remove_search_attributes", search_attributes=["NoSuchAttribute"])),
    (NOTHING, "remove search attributes: the system's", "?", None, lambda r, _: r.call("remove_search_attributes", search_attributes=["WorkflowId"])),
]


@pytest.mark.parametrize(
    ("before", "code", "detail", "call"),
    [pytest.param(before, code, detail, call, id=name) for before, name, code, detail, call in CASES],
)
async def test_refused(raw, before, code, detail, call):
    prepared = await PREPARE[before](raw)
    found = await refusal(call(raw, prepared))
    assert (found.code if found else "OK", found.detail if found else None) == (code, detail), str(found)
    if found:
        assert found.message, "a refusal says why"
