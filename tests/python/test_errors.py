"""Bad input: what is refused, with which status code, and with which detail.

A row is (what there is before, the mistake, status code, detail, the call). The call gets the raw API and
whatever the preparation answered: an execution for RUNNING and CLOSED, a task for WORKFLOW_TASK and
ACTIVITY_TASK. "A|B": the Temporal server answers A by accident, B says it better.
"""

from __future__ import annotations

import pytest
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.service import RPCStatusCode as StatusCode
from raw import NO_SUCH_RUN, Raw, command, complete, payload, payloads, refusal, seconds

LONG = "x" * 1001
MEBIBYTE = 1024 * 1024
BIG = payloads("x" * (2 * MEBIBYTE + 1))


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


async def nothing(raw: Raw):
    return None


async def answered_workflow_task(raw: Raw):
    task = await raw.workflow_task()
    await raw.answer(task)
    return task


async def terminated_workflow_task(raw: Raw):
    task = await raw.workflow_task()
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution())
    return task


async def scheduled_activity(raw: Raw):
    await raw.answer(await raw.workflow_task(), raw.activity())


async def completed_activity_task(raw: Raw):
    task = await raw.activity_task()
    await raw.complete_activity(task)
    return task


async def terminated_activity_task(raw: Raw):
    task = await raw.activity_task()
    await raw.call("terminate_workflow_execution", workflow_execution=raw.execution())
    return task


NOTHING, RUNNING, CLOSED, COMPLETED = nothing, Raw.running, Raw.closed, Raw.completed
WORKFLOW_TASK, ACTIVITY_TASK = Raw.workflow_task, Raw.activity_task


def execution(**fields):
    return {"workflow_id": "no-such-workflow", **fields}


def attributes(**fields):
    return {"indexed_fields": fields}


def retry(**fields):
    return {"initial_interval": seconds(1), "backoff_coefficient": 2, **fields}


# fmt: off
CASES = [
    # Starting a workflow.
    (NOTHING, "start: no namespace", "INVALID_ARGUMENT", None, lambda r, _: r.start(namespace="")),
    (NOTHING, "start: unknown namespace", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.start(namespace="no-such-namespace")),
    (NOTHING, "start: no workflow id", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_id="")),
    (NOTHING, "start: workflow id too long", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_id=LONG)),
    (NOTHING, "start: longest workflow id", "OK", None, lambda r, _: r.start(workflow_id=r.unique + "x" * 988)),
    (NOTHING, "start: no workflow type", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_type=None)),
    (NOTHING, "start: empty workflow type", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_type={"name": ""})),
    (NOTHING, "start: workflow type too long", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_type={"name": LONG})),
    (NOTHING, "start: no task queue", "INVALID_ARGUMENT", None, lambda r, _: r.start(task_queue=None)),
    (NOTHING, "start: empty task queue", "INVALID_ARGUMENT", None, lambda r, _: r.start(task_queue={"name": ""})),
    (NOTHING, "start: task queue too long", "INVALID_ARGUMENT", None, lambda r, _: r.start(task_queue={"name": LONG})),
    (NOTHING, "start: reserved task queue", "INVALID_ARGUMENT", None, lambda r, _: r.start(task_queue={"name": "/_sys/mine"})),
    (NOTHING, "start: request id too long", "INVALID_ARGUMENT", None, lambda r, _: r.start(request_id=LONG)),
    (NOTHING, "start: no request id", "OK", None, lambda r, _: r.start(request_id="")),
    (NOTHING, "start: negative execution timeout", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_execution_timeout=seconds(-1))),
    (NOTHING, "start: negative run timeout", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_run_timeout=seconds(-1))),
    (NOTHING, "start: negative task timeout", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_task_timeout=seconds(-1))),
    (NOTHING, "start: negative delay", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_start_delay=seconds(-1))),
    (NOTHING, "start: delay and cron", "INVALID_ARGUMENT", None, lambda r, _: r.start(workflow_start_delay=seconds(1), cron_schedule="* * * * *")),
    (NOTHING, "start: bad cron", "INVALID_ARGUMENT", None, lambda r, _: r.start(cron_schedule="every now and then")),
    (NOTHING, "start: cron field out of range", "INVALID_ARGUMENT", None, lambda r, _: r.start(cron_schedule="61 * * * *")),
    (NOTHING, "start: cron too long", "OK", None, lambda r, _: r.start(cron_schedule="1," * 1000 + "1 * * * *")),
    (NOTHING, "start: retry with negative attempts", "INVALID_ARGUMENT", None, lambda r, _: r.start(retry_policy=retry(maximum_attempts=-1))),
    (NOTHING, "start: retry with negative interval", "INVALID_ARGUMENT", None, lambda r, _: r.start(retry_policy=retry(initial_interval=seconds(-1)))),
    (NOTHING, "start: retry with shrinking backoff", "INVALID_ARGUMENT", None, lambda r, _: r.start(retry_policy=retry(backoff_coefficient=0.5))),
    (NOTHING, "start: retry with negative maximum", "INVALID_ARGUMENT", None, lambda r, _: r.start(retry_policy=retry(maximum_interval=seconds(-1)))),
    (NOTHING, "start: retry with maximum below initial", "INVALID_ARGUMENT", None, lambda r, _: r.start(retry_policy=retry(initial_interval=seconds(5), maximum_interval=seconds(1)))),
    (NOTHING, "start: retry with unknown timeout type", "INVALID_ARGUMENT", None, lambda r, _: r.start(retry_policy=retry(non_retryable_error_types=["TemporalTimeout:Lunch"]))),
    (NOTHING, "start: unknown search attribute", "INVALID_ARGUMENT", None, lambda r, _: r.start(search_attributes=attributes(NoSuchAttribute=payload(1)))),
    (NOTHING, "start: search attribute of the wrong type", "INVALID_ARGUMENT", None, lambda r, _: r.start(search_attributes=attributes(BuildIds=payload(17)))),
    (NOTHING, "start: search attribute that the server sets", "INVALID_ARGUMENT", None, lambda r, _: r.start(search_attributes=attributes(WorkflowType=payload("Raw")))),
    (NOTHING, "start: input too large", "INVALID_ARGUMENT", None, lambda r, _: r.start(input=BIG)),
    (NOTHING, "start: memo too large", "INVALID_ARGUMENT", None, lambda r, _: r.start(memo={"fields": {"big": BIG.payloads[0]}})),
    (NOTHING, "start: request beyond the message limit", "RESOURCE_EXHAUSTED|INVALID_ARGUMENT", None, lambda r, _: r.start(input=payloads(*["x" * MEBIBYTE] * 5))),
    (NOTHING, "start: negative priority", "INVALID_ARGUMENT", None, lambda r, _: r.start(priority={"priority_key": -1})),
    (NOTHING, "start: priority out of range", "OK", None, lambda r, _: r.start(priority={"priority_key": 6})),
    (NOTHING, "start: fairness key too long", "INVALID_ARGUMENT", None, lambda r, _: r.start(priority={"fairness_key": "x" * 65})),
    (NOTHING, "start: conflict policy against reuse policy", "INVALID_ARGUMENT", None, lambda r, _: r.start(
        workflow_id_conflict_policy="WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING",
        workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING",
    )),
    (NOTHING, "start: terminate existing but reject duplicates", "INVALID_ARGUMENT", None, lambda r, _: r.start(
        workflow_id_conflict_policy="WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING",
        workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE",
    )),
    (RUNNING, "start: already running", "ALREADY_EXISTS", "WorkflowExecutionAlreadyStartedFailure", lambda r, _: r.start(request_id="another")),
    (RUNNING, "start: the same request again", "OK", None, lambda r, _: r.start()),
    (RUNNING, "start: already running, reject duplicates", "ALREADY_EXISTS", "WorkflowExecutionAlreadyStartedFailure", lambda r, _: r.start(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE")),
    (CLOSED, "start: closed, reject duplicates", "ALREADY_EXISTS", "WorkflowExecutionAlreadyStartedFailure", lambda r, _: r.start(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE")),
    (CLOSED, "start: terminated, again only if failed", "OK", None, lambda r, _: r.start(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY")),
    (COMPLETED, "start: completed, again only if failed", "ALREADY_EXISTS", "WorkflowExecutionAlreadyStartedFailure", lambda r, _: r.start(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY")),
    # Signalling.
    (NOTHING, "signal: unknown namespace", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.call("signal_workflow_execution", namespace="no-such-namespace", workflow_execution=execution(), signal_name="s")),
    (NOTHING, "signal: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("signal_workflow_execution", workflow_execution=execution(), signal_name="s")),
    (NOTHING, "signal: no execution", "INVALID_ARGUMENT", None, lambda r, _: r.call("signal_workflow_execution", signal_name="s")),
    (NOTHING, "signal: no workflow id", "INVALID_ARGUMENT", None, lambda r, _: r.call("signal_workflow_execution", workflow_execution=execution(workflow_id=""), signal_name="s")),
    (NOTHING, "signal: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.call("signal_workflow_execution", workflow_execution=execution(run_id="run"), signal_name="s")),
    (RUNNING, "signal: wrong run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("signal_workflow_execution", workflow_execution={**x, "run_id": NO_SUCH_RUN}, signal_name="s")),
    (RUNNING, "signal: no name", "INVALID_ARGUMENT", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution=x)),
    (RUNNING, "signal: name too long", "INVALID_ARGUMENT", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution=x, signal_name=LONG)),
    (RUNNING, "signal: request id too long", "INVALID_ARGUMENT", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution=x, signal_name="s", request_id=LONG)),
    (RUNNING, "signal: input too large", "INVALID_ARGUMENT", None, lambda r, x: r.call("signal_workflow_execution", workflow_execution=x, signal_name="s", input=BIG)),
    (CLOSED, "signal: closed", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("signal_workflow_execution", workflow_execution=x, signal_name="s")),
    (NOTHING, "signal with start: no signal name", "INVALID_ARGUMENT", None, lambda r, _: r.call("signal_with_start_workflow_execution", **r.start_fields())),
    (NOTHING, "signal with start: no workflow id", "INVALID_ARGUMENT", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(workflow_id=""))),
    (NOTHING, "signal with start: no task queue", "INVALID_ARGUMENT", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(task_queue=None))),
    (NOTHING, "signal with start: negative timeout", "INVALID_ARGUMENT", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(workflow_run_timeout=seconds(-1)))),
    (NOTHING, "signal with start: signal too large", "INVALID_ARGUMENT", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", signal_input=BIG, **r.start_fields())),
    (CLOSED, "signal with start: closed, reject duplicates", "ALREADY_EXISTS", "WorkflowExecutionAlreadyStartedFailure", lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(request_id="another", workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE"))),
    (RUNNING, "signal with start: conflict policy fail", "INVALID_ARGUMENT", None, lambda r, _: r.call("signal_with_start_workflow_execution", signal_name="s", **r.start_fields(request_id="another", workflow_id_conflict_policy="WORKFLOW_ID_CONFLICT_POLICY_FAIL"))),
    # Ending.
    (NOTHING, "terminate: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("terminate_workflow_execution", workflow_execution=execution())),
    (NOTHING, "terminate: no execution", "INVALID_ARGUMENT", None, lambda r, _: r.call("terminate_workflow_execution")),
    (NOTHING, "terminate: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.call("terminate_workflow_execution", workflow_execution=execution(run_id="run"))),
    (RUNNING, "terminate: wrong run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("terminate_workflow_execution", workflow_execution={**x, "run_id": NO_SUCH_RUN})),
    (RUNNING, "terminate: wrong first run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("terminate_workflow_execution", workflow_execution=x, first_execution_run_id=NO_SUCH_RUN)),
    (RUNNING, "terminate: reason too long", "OK", None, lambda r, x: r.call("terminate_workflow_execution", workflow_execution=x, reason=LONG)),
    (CLOSED, "terminate: closed", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("terminate_workflow_execution", workflow_execution=x)),
    (NOTHING, "cancel: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("request_cancel_workflow_execution", workflow_execution=execution())),
    (NOTHING, "cancel: no execution", "INVALID_ARGUMENT", None, lambda r, _: r.call("request_cancel_workflow_execution")),
    (NOTHING, "cancel: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.call("request_cancel_workflow_execution", workflow_execution=execution(run_id="run"))),
    (RUNNING, "cancel: wrong run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("request_cancel_workflow_execution", workflow_execution={**x, "run_id": NO_SUCH_RUN})),
    (RUNNING, "cancel: wrong first run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("request_cancel_workflow_execution", workflow_execution=x, first_execution_run_id=NO_SUCH_RUN)),
    (CLOSED, "cancel: closed", "OK", None, lambda r, x: r.call("request_cancel_workflow_execution", workflow_execution=x)),
    # Looking.
    (NOTHING, "describe: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("describe_workflow_execution", execution=execution())),
    (NOTHING, "describe: no execution", "INVALID_ARGUMENT", None, lambda r, _: r.call("describe_workflow_execution")),
    (NOTHING, "describe: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.call("describe_workflow_execution", execution=execution(run_id="run"))),
    (NOTHING, "describe: unknown namespace", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.call("describe_workflow_execution", namespace="no-such-namespace", execution=execution())),
    (RUNNING, "describe: wrong run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("describe_workflow_execution", execution={**x, "run_id": NO_SUCH_RUN})),
    (NOTHING, "history: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("get_workflow_execution_history", execution=execution())),
    (NOTHING, "history: no execution", "INVALID_ARGUMENT", None, lambda r, _: r.call("get_workflow_execution_history")),
    (NOTHING, "history: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.call("get_workflow_execution_history", execution=execution(run_id="run"))),
    (RUNNING, "history: wrong run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("get_workflow_execution_history", execution={**x, "run_id": NO_SUCH_RUN})),
    (RUNNING, "history: garbage page token", "INVALID_ARGUMENT", None, lambda r, x: r.call("get_workflow_execution_history", execution=x, next_page_token=b"garbage")),
    (NOTHING, "history reverse: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("get_workflow_execution_history_reverse", execution=execution())),
    (RUNNING, "history reverse: garbage page token", "INVALID_ARGUMENT", None, lambda r, x: r.call("get_workflow_execution_history_reverse", execution=x, next_page_token=b"garbage")),
    # Queries.
    (NOTHING, "query: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("query_workflow", execution=execution(), query={"query_type": "q"})),
    (NOTHING, "query: no execution", "INVALID_ARGUMENT", None, lambda r, _: r.call("query_workflow", query={"query_type": "q"})),
    (NOTHING, "query: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.call("query_workflow", execution=execution(run_id="run"), query={"query_type": "q"})),
    (RUNNING, "query: no query", "INVALID_ARGUMENT", None, lambda r, x: r.call("query_workflow", execution=x)),
    (RUNNING, "query: wrong run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("query_workflow", execution={**x, "run_id": NO_SUCH_RUN}, query={"query_type": "q"})),
    (RUNNING, "query: arguments too large", "INVALID_ARGUMENT", None, lambda r, x: r.call("query_workflow", execution=x, query={"query_type": "q", "query_args": BIG})),
    (RUNNING, "query: before the first workflow task", "DEADLINE_EXCEEDED", None, lambda r, x: r.call("query_workflow", execution=x, query={"query_type": "q"}, timeout=3)),
    (CLOSED, "query: closed before the first workflow task", "FAILED_PRECONDITION", "WorkflowNotReadyFailure", lambda r, x: r.call("query_workflow", execution=x, query={"query_type": "q"}, timeout=3)),
    (COMPLETED, "query: closed and no worker", "DEADLINE_EXCEEDED", None, lambda r, x: r.call("query_workflow", execution=x, query={"query_type": "q"}, timeout=3)),
    (NOTHING, "answer to a query: no token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_query_task_completed", completed_type="QUERY_RESULT_TYPE_ANSWERED")),
    (NOTHING, "answer to a query: garbage token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_query_task_completed", task_token=b"garbage", completed_type="QUERY_RESULT_TYPE_ANSWERED")),
    # Updates.
    (NOTHING, "update: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.update(workflow_execution=execution())),
    (NOTHING, "update: no execution", "INVALID_ARGUMENT", None, lambda r, _: r.update(workflow_execution=None)),
    (NOTHING, "update: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.update(workflow_execution=execution(run_id="run"))),
    (RUNNING, "update: no request", "INVALID_ARGUMENT", None, lambda r, x: r.update(request=None)),
    (RUNNING, "update: no input", "INVALID_ARGUMENT", None, lambda r, x: r.update(request={"meta": {"update_id": "u"}})),
    (RUNNING, "update: no meta", "INVALID_ARGUMENT", None, lambda r, x: r.update(request={"input": {"name": "u"}})),
    (RUNNING, "update: no name", "INVALID_ARGUMENT", None, lambda r, x: r.update(request={"meta": {"update_id": "u"}, "input": {"name": ""}})),
    (RUNNING, "update: id too long", "INVALID_ARGUMENT", None, lambda r, x: r.update(request={"meta": {"update_id": LONG}, "input": {"name": "u"}})),
    (RUNNING, "update: wrong run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.update(workflow_execution={**x, "run_id": NO_SUCH_RUN})),
    (RUNNING, "update: wrong first run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.update(first_execution_run_id=NO_SUCH_RUN)),
    (CLOSED, "update: closed", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.update()),
    (RUNNING, "poll update: no reference", "INVALID_ARGUMENT", None, lambda r, x: r.call("poll_workflow_execution_update")),
    (RUNNING, "poll update: unknown update", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("poll_workflow_execution_update", update_ref={"workflow_execution": x, "update_id": "no-such-update"})),
    (NOTHING, "poll update: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("poll_workflow_execution_update", update_ref={"workflow_execution": execution(), "update_id": "u"})),
    (CLOSED, "poll update: closed, unknown update", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("poll_workflow_execution_update", update_ref={"workflow_execution": x, "update_id": "no-such-update"})),
    # Several operations at once.
    (NOTHING, "multi: no operations", "INVALID_ARGUMENT", None, lambda r, _: r.call("execute_multi_operation")),
    (NOTHING, "multi: only a start", "INVALID_ARGUMENT", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation()])),
    (NOTHING, "multi: two starts", "INVALID_ARGUMENT", None, lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(), r.start_operation()])),
    (NOTHING, "multi: update before start", "INVALID_ARGUMENT", None, lambda r, _: r.call("execute_multi_operation", operations=[r.update_operation(), r.start_operation()])),
    (NOTHING, "multi: two workflow ids", "INVALID_ARGUMENT", "MultiOperationExecutionFailure", lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(workflow_id="another"), r.update_operation()])),
    (NOTHING, "multi: cron", "INVALID_ARGUMENT", "MultiOperationExecutionFailure", lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(cron_schedule="* * * * *"), r.update_operation()])),
    (NOTHING, "multi: start delay", "INVALID_ARGUMENT", "MultiOperationExecutionFailure", lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(workflow_start_delay=seconds(1)), r.update_operation()])),
    (NOTHING, "multi: eager start", "INVALID_ARGUMENT", "MultiOperationExecutionFailure", lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(request_eager_execution=True), r.update_operation()])),
    (NOTHING, "multi: bad start", "INVALID_ARGUMENT", "MultiOperationExecutionFailure", lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(task_queue=None), r.update_operation()])),
    (NOTHING, "multi: bad update", "INVALID_ARGUMENT", "MultiOperationExecutionFailure", lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(), r.update_operation(request=None)])),
    (RUNNING, "multi: already running, conflict policy fail", "ALREADY_EXISTS", "MultiOperationExecutionFailure", lambda r, _: r.call("execute_multi_operation", operations=[r.start_operation(request_id="another", workflow_id_conflict_policy="WORKFLOW_ID_CONFLICT_POLICY_FAIL"), r.update_operation()])),
    # Resetting and deleting.
    (NOTHING, "reset: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.reset(workflow_execution=execution())),
    (NOTHING, "reset: no execution", "INVALID_ARGUMENT", None, lambda r, _: r.reset(workflow_execution=None)),
    (NOTHING, "reset: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.reset(workflow_execution=execution(run_id="run"))),
    (RUNNING, "reset: no event id", "INVALID_ARGUMENT", None, lambda r, _: r.reset(workflow_task_finish_event_id=0)),
    (RUNNING, "reset: negative event id", "INVALID_ARGUMENT", None, lambda r, _: r.reset(workflow_task_finish_event_id=-1)),
    (RUNNING, "reset: first event", "INVALID_ARGUMENT", None, lambda r, _: r.reset(workflow_task_finish_event_id=1)),
    (RUNNING, "reset: before any task completed", "INVALID_ARGUMENT", None, lambda r, _: r.reset(workflow_task_finish_event_id=3)),
    (RUNNING, "reset: no request id", "INVALID_ARGUMENT", None, lambda r, _: r.reset(request_id="")),
    (COMPLETED, "reset: beyond the end", "INVALID_ARGUMENT", None, lambda r, _: r.reset(workflow_task_finish_event_id=99)),
    (COMPLETED, "reset: not a workflow task", "INVALID_ARGUMENT", None, lambda r, _: r.reset(workflow_task_finish_event_id=5)),
    (COMPLETED, "reset: a scheduled workflow task", "INVALID_ARGUMENT", None, lambda r, _: r.reset(workflow_task_finish_event_id=2)),
    (COMPLETED, "reset: a started workflow task", "OK", None, lambda r, _: r.reset(workflow_task_finish_event_id=3)),
    (COMPLETED, "reset: reapply type and exclusions", "OK", None, lambda r, _: r.reset(reset_reapply_type="RESET_REAPPLY_TYPE_NONE", reset_reapply_exclude_types=["RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL"])),
    (NOTHING, "delete: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("delete_workflow_execution", workflow_execution=execution())),
    (NOTHING, "delete: no execution", "INVALID_ARGUMENT", None, lambda r, _: r.call("delete_workflow_execution")),
    (NOTHING, "delete: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.call("delete_workflow_execution", workflow_execution=execution(run_id="run"))),
    (RUNNING, "delete: wrong run id", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("delete_workflow_execution", workflow_execution={**x, "run_id": NO_SUCH_RUN})),
    # Polling.
    (NOTHING, "poll workflow task: no task queue", "INVALID_ARGUMENT", None, lambda r, _: r.poll_workflow_task(task_queue=None)),
    (NOTHING, "poll workflow task: empty task queue", "INVALID_ARGUMENT", None, lambda r, _: r.poll_workflow_task(task_queue={"name": ""})),
    (NOTHING, "poll workflow task: task queue too long", "INVALID_ARGUMENT", None, lambda r, _: r.poll_workflow_task(task_queue={"name": LONG})),
    (NOTHING, "poll workflow task: unknown namespace", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.poll_workflow_task(namespace="no-such-namespace")),
    (NOTHING, "poll workflow task: no namespace", "INVALID_ARGUMENT", None, lambda r, _: r.poll_workflow_task(namespace="")),
    (NOTHING, "poll workflow task: identity too long", "INVALID_ARGUMENT", None, lambda r, _: r.call("poll_workflow_task_queue", task_queue={"name": r.queue}, identity=LONG)),
    (NOTHING, "poll workflow task: deadline too near", "FAILED_PRECONDITION", None, lambda r, _: r.poll_workflow_task(timeout=0.5)),
    (NOTHING, "poll activity task: no task queue", "INVALID_ARGUMENT", None, lambda r, _: r.poll_activity_task(task_queue=None)),
    (NOTHING, "poll activity task: empty task queue", "INVALID_ARGUMENT", None, lambda r, _: r.poll_activity_task(task_queue={"name": ""})),
    (NOTHING, "poll activity task: task queue too long", "INVALID_ARGUMENT", None, lambda r, _: r.poll_activity_task(task_queue={"name": LONG})),
    (NOTHING, "poll activity task: unknown namespace", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.poll_activity_task(namespace="no-such-namespace")),
    (NOTHING, "describe task queue: none", "INVALID_ARGUMENT", None, lambda r, _: r.call("describe_task_queue")),
    (NOTHING, "describe task queue: empty", "INVALID_ARGUMENT", None, lambda r, _: r.call("describe_task_queue", task_queue={"name": ""})),
    # Answering workflow tasks.
    (NOTHING, "workflow task completed: no token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_workflow_task_completed")),
    (NOTHING, "workflow task completed: garbage token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_workflow_task_completed", task_token=b"garbage")),
    (WORKFLOW_TASK, "workflow task completed: truncated token", "INVALID_ARGUMENT", None, lambda r, t: r.answer(t, task_token=t.task_token[:-3])),
    (WORKFLOW_TASK, "workflow task completed: another namespace", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, t: r.answer(t, namespace="no-such-namespace")),
    (answered_workflow_task, "workflow task completed: twice", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.answer(t)),
    (terminated_workflow_task, "workflow task completed: closed", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.answer(t)),
    (NOTHING, "workflow task failed: no token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_workflow_task_failed")),
    (NOTHING, "workflow task failed: garbage token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_workflow_task_failed", task_token=b"garbage")),
    (answered_workflow_task, "workflow task failed: already completed", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.call("respond_workflow_task_failed", task_token=t.task_token)),
    (NOTHING, "reset sticky: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("reset_sticky_task_queue", execution=execution())),
    (CLOSED, "reset sticky: closed", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("reset_sticky_task_queue", execution=x)),
    # Answering activity tasks.
    (NOTHING, "activity completed: no token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_activity_task_completed")),
    (NOTHING, "activity completed: garbage token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_activity_task_completed", task_token=b"garbage")),
    (completed_activity_task, "activity completed: twice", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.complete_activity(t)),
    (completed_activity_task, "activity failed: already completed", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.call("respond_activity_task_failed", task_token=t.task_token)),
    (completed_activity_task, "activity canceled: already completed", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.call("respond_activity_task_canceled", task_token=t.task_token)),
    (completed_activity_task, "heartbeat: already completed", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.call("record_activity_task_heartbeat", task_token=t.task_token)),
    (terminated_activity_task, "activity completed: workflow closed", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.complete_activity(t)),
    (terminated_activity_task, "heartbeat: workflow closed", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.call("record_activity_task_heartbeat", task_token=t.task_token)),
    (ACTIVITY_TASK, "activity canceled: never asked to", "INVALID_ARGUMENT", None, lambda r, t: r.call("respond_activity_task_canceled", task_token=t.task_token)),
    (ACTIVITY_TASK, "activity completed: result too large", "OK", None, lambda r, t: r.call("respond_activity_task_completed", task_token=t.task_token, result=BIG)),
    (ACTIVITY_TASK, "heartbeat: details too large", "OK", None, lambda r, t: r.call("record_activity_task_heartbeat", task_token=t.task_token, details=BIG)),
    (ACTIVITY_TASK, "activity failed: not an application failure", "INVALID_ARGUMENT", None, lambda r, t: r.call("respond_activity_task_failed", task_token=t.task_token, failure={"timeout_failure_info": {}})),
    (NOTHING, "heartbeat: no token", "INVALID_ARGUMENT", None, lambda r, _: r.call("record_activity_task_heartbeat")),
    (NOTHING, "heartbeat: garbage token", "INVALID_ARGUMENT", None, lambda r, _: r.call("record_activity_task_heartbeat", task_token=b"garbage")),
    (NOTHING, "activity failed: no token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_activity_task_failed")),
    (NOTHING, "activity failed: garbage token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_activity_task_failed", task_token=b"garbage")),
    (NOTHING, "activity canceled: garbage token", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_activity_task_canceled", task_token=b"garbage")),
    (NOTHING, "activity by id: unknown workflow", "NOT_FOUND", "NotFoundFailure", lambda r, _: r.call("respond_activity_task_completed_by_id", workflow_id="no-such-workflow", activity_id="1")),
    (NOTHING, "activity by id: malformed run id", "INVALID_ARGUMENT", None, lambda r, _: r.call("respond_activity_task_completed_by_id", workflow_id="w", run_id="run", activity_id="1")),
    (RUNNING, "activity by id: unknown activity", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("respond_activity_task_completed_by_id", **x, activity_id="no-such-activity")),
    (RUNNING, "activity by id: no activity id", "INVALID_ARGUMENT", None, lambda r, x: r.call("respond_activity_task_completed_by_id", **x)),
    (RUNNING, "activity failed by id: unknown activity", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("respond_activity_task_failed_by_id", **x, activity_id="no-such-activity")),
    (RUNNING, "activity canceled by id: unknown activity", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("respond_activity_task_canceled_by_id", **x, activity_id="no-such-activity")),
    (RUNNING, "heartbeat by id: unknown activity", "NOT_FOUND", "NotFoundFailure", lambda r, x: r.call("record_activity_task_heartbeat_by_id", **x, activity_id="no-such-activity")),
    (completed_activity_task, "activity by id: already completed", "NOT_FOUND", "NotFoundFailure", lambda r, t: r.call("respond_activity_task_completed_by_id", **r.execution(), activity_id="1")),
    (scheduled_activity, "activity by id: not started", "OK", None, lambda r, _: r.call("respond_activity_task_completed_by_id", **r.execution(), activity_id="1")),
    # Visibility.
    (NOTHING, "list: unknown namespace", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.list("", namespace="no-such-namespace")),
    (NOTHING, "list: not a filter", "INVALID_ARGUMENT", None, lambda r, _: r.list("please")),
    (NOTHING, "list: open string", "INVALID_ARGUMENT", None, lambda r, _: r.list("WorkflowId = 'x")),
    (NOTHING, "list: dangling operator", "INVALID_ARGUMENT", None, lambda r, _: r.list("WorkflowId = 'x' AND")),
    (NOTHING, "list: unknown attribute", "INVALID_ARGUMENT", None, lambda r, _: r.list("NoSuchAttribute = 'x'")),
    (NOTHING, "list: unknown attribute in order", "INVALID_ARGUMENT", None, lambda r, _: r.list("ORDER BY NoSuchAttribute")),
    (NOTHING, "list: number for a keyword", "INVALID_ARGUMENT", None, lambda r, _: r.list("WorkflowType = 17")),
    (NOTHING, "list: word for a number", "INVALID_ARGUMENT", None, lambda r, _: r.list("HistoryLength = 'many'")),
    (NOTHING, "list: not a time", "INVALID_ARGUMENT", None, lambda r, _: r.list("StartTime > 'yesterday'")),
    (NOTHING, "list: unknown status", "INVALID_ARGUMENT", None, lambda r, _: r.list("ExecutionStatus = 'Sleeping'")),
    (NOTHING, "list: prefix of a number", "INVALID_ARGUMENT", None, lambda r, _: r.list("HistoryLength STARTS_WITH '1'")),
    (NOTHING, "list: function", "INVALID_ARGUMENT", None, lambda r, _: r.list("lower(WorkflowId) = 'x'")),
    (NOTHING, "list: limit", "INVALID_ARGUMENT", None, lambda r, _: r.list("WorkflowId = 'x' LIMIT 1")),
    (NOTHING, "list: injection", "INVALID_ARGUMENT", None, lambda r, _: r.list("WorkflowId = 'x'; DROP TABLE visibility")),
    (NOTHING, "list: garbage page token", "UNKNOWN|INVALID_ARGUMENT", None, lambda r, _: r.list("", next_page_token=b"garbage")),
    (NOTHING, "list: negative page size", "OK", None, lambda r, _: r.list("", page_size=-1)),
    (NOTHING, "list: page size beyond the limit", "OK", None, lambda r, _: r.list("", page_size=100_000)),
    (NOTHING, "count: not a filter", "INVALID_ARGUMENT", None, lambda r, _: r.call("count_workflow_executions", query="please")),
    (NOTHING, "count: group by two", "INVALID_ARGUMENT", None, lambda r, _: r.call("count_workflow_executions", query="GROUP BY ExecutionStatus, WorkflowType")),
    (NOTHING, "count: group by something else", "INVALID_ARGUMENT", None, lambda r, _: r.call("count_workflow_executions", query="GROUP BY StartTime")),
    (NOTHING, "scan: not a filter", "INVALID_ARGUMENT", None, lambda r, _: r.call("scan_workflow_executions", query="please")),
    # Namespaces and search attributes.
    (NOTHING, "register namespace: no name", "INVALID_ARGUMENT", None, lambda r, _: r.call("register_namespace", namespace="", workflow_execution_retention_period=seconds(86400))),
    (NOTHING, "register namespace: name too long", "INVALID_ARGUMENT", None, lambda r, _: r.call("register_namespace", namespace=LONG, workflow_execution_retention_period=seconds(86400))),
    (NOTHING, "register namespace: exists", "ALREADY_EXISTS", "NamespaceAlreadyExistsFailure", lambda r, _: r.call("register_namespace", namespace="default", workflow_execution_retention_period=seconds(86400))),
    (NOTHING, "register namespace: no retention", "INVALID_ARGUMENT", None, lambda r, _: r.call("register_namespace", namespace=r.unique)),
    (NOTHING, "register namespace: retention too short", "INVALID_ARGUMENT", None, lambda r, _: r.call("register_namespace", namespace=r.unique, workflow_execution_retention_period=seconds(60))),
    (NOTHING, "describe namespace: unknown", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.call("describe_namespace", namespace="no-such-namespace")),
    (NOTHING, "describe namespace: no name", "INVALID_ARGUMENT", None, lambda r, _: r.call("describe_namespace", namespace="")),
    (NOTHING, "describe namespace: unknown id", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.call("describe_namespace", namespace="", id=NO_SUCH_RUN)),
    (NOTHING, "update namespace: unknown", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.call("update_namespace", namespace="no-such-namespace")),
    (NOTHING, "update namespace: no retention", "INVALID_ARGUMENT", None, lambda r, _: r.call("update_namespace", namespace="default", config={"workflow_execution_retention_ttl": seconds(0)})),
    (NOTHING, "deprecate namespace: unknown", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.call("deprecate_namespace", namespace="no-such-namespace")),
    (NOTHING, "delete namespace: unknown", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.call("delete_namespace", namespace="no-such-namespace")),
    (NOTHING, "add search attributes: none", "INVALID_ARGUMENT", None, lambda r, _: r.call("add_search_attributes")),
    (NOTHING, "add search attributes: unspecified type", "INVALID_ARGUMENT", None, lambda r, _: r.call("add_search_attributes", search_attributes={"Mine": "INDEXED_VALUE_TYPE_UNSPECIFIED"})),
    (NOTHING, "add search attributes: the system's name", "INVALID_ARGUMENT", None, lambda r, _: r.call("add_search_attributes", search_attributes={"WorkflowId": "INDEXED_VALUE_TYPE_KEYWORD"})),
    (NOTHING, "add search attributes: unknown namespace", "NOT_FOUND", "NamespaceNotFoundFailure", lambda r, _: r.call("add_search_attributes", namespace="no-such-namespace", search_attributes={"Mine": "INDEXED_VALUE_TYPE_INT"})),
    (NOTHING, "remove search attributes: none", "INVALID_ARGUMENT", None, lambda r, _: r.call("remove_search_attributes")),
    (NOTHING, "remove search attributes: unknown", "OK", None, lambda r, _: r.call("remove_search_attributes", search_attributes=["NoSuchAttribute"])),
    (NOTHING, "remove search attributes: the system's", "INVALID_ARGUMENT", None, lambda r, _: r.call("remove_search_attributes", search_attributes=["WorkflowId"])),
]
# fmt: on


@pytest.mark.parametrize(
    ("before", "code", "detail", "call"),
    [pytest.param(before, code, detail, call, id=name) for before, name, code, detail, call in CASES],
)
async def test_refused(raw, before, code, detail, call):
    prepared = await before(raw)
    found = await refusal(call(raw, prepared))
    assert (found.code if found else "OK") in code.split("|"), str(found)
    assert (found.detail if found else None) == detail, str(found)
    if found:
        assert found.message, "a refusal says why"


async def test_already_started_names_the_run(raw):
    await raw.running()
    found = await refusal(raw.start(request_id="another"))
    assert (found.value.run_id, found.value.start_request_id) == (raw.run_id, f"start-{raw.unique}")


async def test_an_unknown_namespace_is_named(raw):
    found = await refusal(raw.start(namespace="no-such-namespace"))
    assert found.value.namespace == "no-such-namespace"


async def test_several_operations_say_which_one_failed(raw):
    """The one that failed has its own code and detail, the other was given up."""
    await raw.running()
    fail = {"request_id": "another", "workflow_id_conflict_policy": "WORKFLOW_ID_CONFLICT_POLICY_FAIL"}
    operations = [raw.start_operation(**fail), raw.update_operation()]
    found = await refusal(raw.call("execute_multi_operation", operations=operations))
    start, update = found.value.statuses
    assert (StatusCode(start.code), StatusCode(update.code)) == (StatusCode.ALREADY_EXISTS, StatusCode.ABORTED)
    [detail] = start.details
    assert detail.type_url.endswith("errordetails.v1.WorkflowExecutionAlreadyStartedFailure")
    [detail] = update.details
    assert detail.type_url.endswith("failure.v1.MultiOperationExecutionAborted")


async def test_a_result_that_is_too_large_fails_the_activity(raw):
    task = await raw.activity_task(retry_policy=retry(maximum_attempts=5))
    await raw.call("respond_activity_task_completed", task_token=task.task_token, result=BIG)
    [failed] = [e for e in await raw.events() if e.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED]
    failure = failed.activity_task_failed_event_attributes.failure
    assert "limit" in failure.message
    assert failure.HasField("server_failure_info") and failure.server_failure_info.non_retryable


async def test_heartbeat_details_that_are_too_large_fail_the_activity(raw):
    task = await raw.activity_task(retry_policy=retry(maximum_attempts=5))
    answer = await raw.call("record_activity_task_heartbeat", task_token=task.task_token, details=BIG)
    assert answer.cancel_requested
    [failed] = [e for e in await raw.events() if e.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED]
    failure = failed.activity_task_failed_event_attributes.failure
    assert failure.HasField("server_failure_info") and failure.server_failure_info.non_retryable


async def test_a_failure_that_is_too_large_is_cut(raw):
    task = await raw.activity_task(retry_policy=retry(maximum_attempts=1))
    await raw.call(
        "respond_activity_task_failed",
        task_token=task.task_token,
        failure={"message": "x" * 2 * MEBIBYTE, "application_failure_info": {"type": "Refused"}},
    )
    [failed] = [e for e in await raw.events() if e.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED]
    assert len(failed.activity_task_failed_event_attributes.failure.message) < 10_000


async def test_a_bad_command_takes_nothing_of_its_task_along(raw):
    """The timer before the bad command is not started, and the next attempt may start it."""
    await refusal(raw.answer(await raw.workflow_task(), timer(), command("CANCEL_TIMER", timer_id="2")))
    assert "TIMER_STARTED" not in await raw.event_types()
    again = await raw.poll_workflow_task()
    assert again.attempt == 2
    await raw.answer(again, timer())
    assert "TIMER_STARTED" in await raw.event_types()


UNKNOWN_EVENT = 4711


def timer(**fields):
    return command("START_TIMER", **{"timer_id": "1", "start_to_fire_timeout": seconds(60), **fields})


def child(raw, **fields):
    return command(
        "START_CHILD_WORKFLOW_EXECUTION",
        **{
            "workflow_id": f"child-{raw.unique}",
            "workflow_type": {"name": "Child"},
            "task_queue": {"name": raw.queue},
            **fields,
        },
    )


def continue_as_new(raw, **fields):
    return command(
        "CONTINUE_AS_NEW_WORKFLOW_EXECUTION",
        **{"workflow_type": {"name": "Raw"}, "task_queue": {"name": raw.queue}, **fields},
    )


def signal_external(**fields):
    return command(
        "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION",
        **{"execution": {"workflow_id": "no-such-workflow"}, "signal_name": "s", **fields},
    )


# A row: the mistake, status code of the answer, cause in WORKFLOW_TASK_FAILED (None: no such event), commands.
# fmt: off
BAD_COMMANDS = [
    ("no attributes", "INVALID_ARGUMENT", "BAD_START_TIMER_ATTRIBUTES", lambda r: [command("START_TIMER")]),
    ("unspecified command", "INVALID_ARGUMENT", None, lambda r: [{"command_type": "COMMAND_TYPE_UNSPECIFIED"}]),
    ("attributes of another command", "INVALID_ARGUMENT", "BAD_START_TIMER_ATTRIBUTES", lambda r: [{"command_type": "COMMAND_TYPE_START_TIMER", "cancel_timer_command_attributes": {"timer_id": "1"}}]),
    ("activity: no attributes", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [{"command_type": "COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK"}]),
    ("activity: no id", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(activity_id="")]),
    ("activity: id too long", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(activity_id=LONG)]),
    ("activity: no type", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(activity_type=None)]),
    ("activity: type too long", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(activity_type={"name": LONG})]),
    ("activity: no task queue", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(task_queue=None)]),
    ("activity: task queue too long", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(task_queue={"name": LONG})]),
    ("activity: no timeouts", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(start_to_close_timeout=None)]),
    ("activity: only a heartbeat timeout", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(start_to_close_timeout=None, heartbeat_timeout=seconds(1))]),
    ("activity: negative timeout", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(start_to_close_timeout=seconds(-1))]),
    ("activity: negative heartbeat timeout", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(heartbeat_timeout=seconds(-1))]),
    ("activity: bad retry policy", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(retry_policy=retry(backoff_coefficient=0.5))]),
    ("activity: duplicate id", "INVALID_ARGUMENT", "SCHEDULE_ACTIVITY_DUPLICATE_ID", lambda r: [r.activity(), r.activity()]),
    ("activity: input too large", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(input=BIG)]),
    ("activity: bad priority", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES", lambda r: [r.activity(priority={"priority_key": -1})]),
    ("activity: cancel unknown", "INVALID_ARGUMENT", "BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES", lambda r: [command("REQUEST_CANCEL_ACTIVITY_TASK", scheduled_event_id=UNKNOWN_EVENT)]),
    ("activity: cancel without event", "INVALID_ARGUMENT", "BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES", lambda r: [command("REQUEST_CANCEL_ACTIVITY_TASK", scheduled_event_id=0)]),
    ("timer: no id", "INVALID_ARGUMENT", "BAD_START_TIMER_ATTRIBUTES", lambda r: [timer(timer_id="")]),
    ("timer: id too long", "INVALID_ARGUMENT", "BAD_START_TIMER_ATTRIBUTES", lambda r: [timer(timer_id=LONG)]),
    ("timer: no duration", "OK", None, lambda r: [timer(start_to_fire_timeout=None)]),
    ("timer: negative", "INVALID_ARGUMENT", "BAD_START_TIMER_ATTRIBUTES", lambda r: [timer(start_to_fire_timeout=seconds(-1))]),
    ("timer: duplicate id", "INVALID_ARGUMENT", "START_TIMER_DUPLICATE_ID", lambda r: [timer(), timer()]),
    ("timer: cancel unknown", "INVALID_ARGUMENT", "BAD_CANCEL_TIMER_ATTRIBUTES", lambda r: [command("CANCEL_TIMER", timer_id="no-such-timer")]),
    ("timer: cancel without id", "INVALID_ARGUMENT", "BAD_CANCEL_TIMER_ATTRIBUTES", lambda r: [command("CANCEL_TIMER", timer_id="")]),
    ("marker: no name", "INVALID_ARGUMENT", "BAD_RECORD_MARKER_ATTRIBUTES", lambda r: [command("RECORD_MARKER", marker_name="")]),
    ("marker: name too long", "INVALID_ARGUMENT", "BAD_RECORD_MARKER_ATTRIBUTES", lambda r: [command("RECORD_MARKER", marker_name=LONG)]),
    ("marker: details too large", "INVALID_ARGUMENT", "BAD_RECORD_MARKER_ATTRIBUTES", lambda r: [command("RECORD_MARKER", marker_name="m", details={"big": BIG})]),
    ("search attributes: none", "INVALID_ARGUMENT", "BAD_SEARCH_ATTRIBUTES", lambda r: [command("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES")]),
    ("search attributes: unknown", "INVALID_ARGUMENT", "BAD_SEARCH_ATTRIBUTES", lambda r: [command("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES", search_attributes=attributes(NoSuchAttribute=payload(1)))]),
    ("search attributes: wrong type", "INVALID_ARGUMENT", "BAD_SEARCH_ATTRIBUTES", lambda r: [command("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES", search_attributes=attributes(BuildIds=payload(17)))]),
    ("search attributes: the system's", "INVALID_ARGUMENT", "BAD_SEARCH_ATTRIBUTES", lambda r: [command("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES", search_attributes=attributes(WorkflowType=payload("x")))]),
    ("search attributes: too large", "INVALID_ARGUMENT", "BAD_SEARCH_ATTRIBUTES", lambda r: [command("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES", search_attributes=attributes(BuildIds=payload(["x" * 50_000])))]),
    ("properties: none", "INVALID_ARGUMENT", "BAD_MODIFY_WORKFLOW_PROPERTIES_ATTRIBUTES", lambda r: [command("MODIFY_WORKFLOW_PROPERTIES")]),
    ("properties: memo too large", "INVALID_ARGUMENT", "BAD_MODIFY_WORKFLOW_PROPERTIES_ATTRIBUTES", lambda r: [command("MODIFY_WORKFLOW_PROPERTIES", upserted_memo={"fields": {"big": BIG.payloads[0]}})]),
    ("child: no id", "INVALID_ARGUMENT", "BAD_START_CHILD_EXECUTION_ATTRIBUTES", lambda r: [child(r, workflow_id="")]),
    ("child: id too long", "INVALID_ARGUMENT", "BAD_START_CHILD_EXECUTION_ATTRIBUTES", lambda r: [child(r, workflow_id=LONG)]),
    ("child: no type", "INVALID_ARGUMENT", "BAD_START_CHILD_EXECUTION_ATTRIBUTES", lambda r: [child(r, workflow_type=None)]),
    ("child: negative timeout", "INVALID_ARGUMENT", "BAD_START_CHILD_EXECUTION_ATTRIBUTES", lambda r: [child(r, workflow_run_timeout=seconds(-1))]),
    ("child: bad retry policy", "INVALID_ARGUMENT", "BAD_START_CHILD_EXECUTION_ATTRIBUTES", lambda r: [child(r, retry_policy=retry(backoff_coefficient=0.5))]),
    ("child: bad cron", "INVALID_ARGUMENT", "BAD_START_CHILD_EXECUTION_ATTRIBUTES", lambda r: [child(r, cron_schedule="every now and then")]),
    ("child: unknown namespace", "NOT_FOUND", None, lambda r: [child(r, namespace="no-such-namespace")]),
    ("child: unknown search attribute", "INVALID_ARGUMENT", "BAD_SEARCH_ATTRIBUTES", lambda r: [child(r, search_attributes=attributes(NoSuchAttribute=payload(1)))]),
    ("child: input too large", "INVALID_ARGUMENT", "BAD_START_CHILD_EXECUTION_ATTRIBUTES", lambda r: [child(r, input=BIG)]),
    ("child: duplicate id", "OK", None, lambda r: [child(r), child(r)]),
    ("signal external: no workflow id", "INVALID_ARGUMENT", "BAD_SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [signal_external(execution={"workflow_id": ""})]),
    ("signal external: no execution", "INVALID_ARGUMENT", "BAD_SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [signal_external(execution=None)]),
    ("signal external: malformed run id", "INVALID_ARGUMENT", "BAD_SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [signal_external(execution={"workflow_id": "w", "run_id": "run"})]),
    ("signal external: no name", "INVALID_ARGUMENT", "BAD_SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [signal_external(signal_name="")]),
    ("signal external: itself", "OK", None, lambda r: [signal_external(execution=r.execution())]),
    ("signal external: input too large", "INVALID_ARGUMENT", "BAD_SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [signal_external(input=BIG)]),
    ("cancel external: no workflow id", "INVALID_ARGUMENT", "BAD_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [command("REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION", workflow_id="")]),
    ("cancel external: malformed run id", "INVALID_ARGUMENT", "BAD_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [command("REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION", workflow_id="w", run_id="run")]),
    ("continue as new: negative timeout", "INVALID_ARGUMENT", "BAD_CONTINUE_AS_NEW_ATTRIBUTES", lambda r: [continue_as_new(r, workflow_run_timeout=seconds(-1))]),
    ("continue as new: type too long", "INVALID_ARGUMENT", "BAD_CONTINUE_AS_NEW_ATTRIBUTES", lambda r: [continue_as_new(r, workflow_type={"name": LONG})]),
    ("continue as new: task queue too long", "INVALID_ARGUMENT", "BAD_CONTINUE_AS_NEW_ATTRIBUTES", lambda r: [continue_as_new(r, task_queue={"name": LONG})]),
    ("continue as new: bad retry policy", "INVALID_ARGUMENT", "BAD_CONTINUE_AS_NEW_ATTRIBUTES", lambda r: [continue_as_new(r, retry_policy=retry(backoff_coefficient=0.5))]),
    ("continue as new: unknown search attribute", "INVALID_ARGUMENT", "BAD_SEARCH_ATTRIBUTES", lambda r: [continue_as_new(r, search_attributes=attributes(NoSuchAttribute=payload(1)))]),
    ("continue as new: input too large", "INVALID_ARGUMENT", "BAD_CONTINUE_AS_NEW_ATTRIBUTES", lambda r: [continue_as_new(r, input=BIG)]),
    ("complete: no attributes", "INVALID_ARGUMENT", "BAD_COMPLETE_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [{"command_type": "COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION"}]),
    ("complete: result too large", "INVALID_ARGUMENT", "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES|BAD_COMPLETE_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [command("COMPLETE_WORKFLOW_EXECUTION", result=BIG)]),
    ("complete: twice", "INVALID_ARGUMENT", None, lambda r: [complete(), complete()]),
    ("complete: not the last command", "INVALID_ARGUMENT", None, lambda r: [complete(), timer()]),
    ("complete: then fail", "INVALID_ARGUMENT", None, lambda r: [complete(), command("FAIL_WORKFLOW_EXECUTION", failure={"message": "no"})]),
    ("fail: no attributes", "INVALID_ARGUMENT", "BAD_FAIL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [{"command_type": "COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION"}]),
    ("fail: no failure", "INVALID_ARGUMENT", "BAD_FAIL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [command("FAIL_WORKFLOW_EXECUTION", failure=None)]),
    ("cancel: nobody asked", "OK", None, lambda r: [command("CANCEL_WORKFLOW_EXECUTION", details=payloads(1))]),
    ("cancel: no attributes", "INVALID_ARGUMENT", "BAD_CANCEL_WORKFLOW_EXECUTION_ATTRIBUTES", lambda r: [{"command_type": "COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION"}]),
    ("protocol message: no id", "INVALID_ARGUMENT", "BAD_UPDATE_WORKFLOW_EXECUTION_MESSAGE", lambda r: [command("PROTOCOL_MESSAGE", message_id="")]),
    ("protocol message: unknown", "INVALID_ARGUMENT", "BAD_UPDATE_WORKFLOW_EXECUTION_MESSAGE", lambda r: [command("PROTOCOL_MESSAGE", message_id="no-such-message")]),
]
# fmt: on


@pytest.mark.parametrize(
    ("code", "cause", "commands"),
    [pytest.param(code, cause, commands, id=name) for name, code, cause, commands in BAD_COMMANDS],
)
async def test_bad_command(raw, code, cause, commands):
    task = await raw.workflow_task()
    found = await refusal(raw.answer(task, *commands(raw)))
    assert (found.code if found else "OK") == code, str(found)
    assert await failure_cause(raw) in (cause.split("|") if cause else [None])


async def failure_cause(raw: Raw) -> str | None:
    """Why the last workflow task failed."""
    failed = [e for e in await raw.events() if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED]
    if not failed:
        return None
    cause = failed[-1].workflow_task_failed_event_attributes.cause
    return WorkflowTaskFailedCause.Name(cause).removeprefix("WORKFLOW_TASK_FAILED_CAUSE_")
