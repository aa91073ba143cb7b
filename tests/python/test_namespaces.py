"""Namespaces: register, describe, list, update, deprecate, delete, and what one says about itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import temporalio.api.workflowservice.v1 as api
from raw import Raw, complete, refusal, seconds
from temporalio.api.enums.v1 import NamespaceState
from temporalio.client import Client
from temporalio.service import RPCError

DAY = 86400


@pytest.fixture
def raw(client, unique) -> Raw:
    return Raw(client, unique)


@pytest.fixture
def name(unique) -> str:
    return f"namespace-{unique}"


async def register(raw: Raw, name: str, **fields) -> None:
    fields.setdefault("workflow_execution_retention_period", seconds(3 * DAY))
    await raw.call("register_namespace", namespace=name, **fields)


async def usable(raw: Raw, name: str) -> Raw:
    """The API in a new namespace; the Temporal server learns of one a little later."""
    inside = Raw(raw.client, raw.unique)
    inside.namespace = name
    for _ in range(200):
        try:
            await inside.list("")
            return inside
        except RPCError:
            await asyncio.sleep(0.1)
    raise AssertionError(f"{name} never became usable")


async def names(raw: Raw, page_size: int) -> list[str]:
    found, token = [], b""
    while True:
        page = await raw.call("list_namespaces", page_size=page_size, next_page_token=token)
        assert len(page.namespaces) <= page_size
        found += [each.namespace_info.name for each in page.namespaces]
        token = page.next_page_token
        if not token:
            return found


async def test_register_and_describe(raw, name):
    await register(raw, name, description="for a test", owner_email="someone@example.com", data={"team": "blue"})
    answer = await raw.call("describe_namespace", namespace=name)
    info = answer.namespace_info
    assert (info.name, info.description, info.owner_email) == (name, "for a test", "someone@example.com")
    assert dict(info.data) == {"team": "blue"}
    assert info.state == NamespaceState.NAMESPACE_STATE_REGISTERED
    assert answer.config.workflow_execution_retention_ttl == seconds(3 * DAY)
    assert not answer.is_global_namespace
    by_id = await raw.call("describe_namespace", namespace="", id=info.id)
    assert by_id.namespace_info == info


async def test_two_names_have_two_ids(raw, name):
    await register(raw, f"{name}-a")
    await register(raw, f"{name}-b")
    ids = [(await raw.call("describe_namespace", namespace=f"{name}-{x}")).namespace_info.id for x in "ab"]
    assert ids[0] != ids[1]


async def test_registering_twice_is_refused(raw, name):
    await register(raw, name)
    found = await refusal(register(raw, name))
    assert (found.code, found.detail) == ("ALREADY_EXISTS", "NamespaceAlreadyExistsFailure")


@pytest.mark.parametrize("page_size", [1, 3, 100])
async def test_list_in_pages(raw, name, page_size):
    mine = {f"{name}-{number}" for number in range(5)}
    for each in mine:
        await register(raw, each)
    found = await names(raw, page_size)
    assert mine | {"default"} <= set(found)
    assert len(found) == len(set(found))


async def test_update_changes_what_it_names_and_merges_data(raw, name):
    await register(raw, name, description="before", owner_email="a@example.com", data={"kept": "1", "changed": "1"})
    answer = await raw.call(
        "update_namespace",
        namespace=name,
        update_info={"description": "after", "data": {"changed": "2", "new": "3"}},
        config={"workflow_execution_retention_ttl": seconds(7 * DAY)},
    )
    assert answer.namespace_info.description == "after"
    answer = await raw.call("describe_namespace", namespace=name)
    assert answer.namespace_info.description == "after"
    assert dict(answer.namespace_info.data) == {"kept": "1", "changed": "2", "new": "3"}
    assert answer.config.workflow_execution_retention_ttl == seconds(7 * DAY)
    await raw.call("update_namespace", namespace=name, config={"workflow_execution_retention_ttl": seconds(DAY)})
    answer = await raw.call("describe_namespace", namespace=name)
    assert answer.namespace_info.description == "after"
    assert answer.config.workflow_execution_retention_ttl == seconds(DAY)


async def test_deprecate(raw, name):
    await register(raw, name)
    await raw.call("deprecate_namespace", namespace=name)
    answer = await raw.call("describe_namespace", namespace=name)
    assert answer.namespace_info.state == NamespaceState.NAMESPACE_STATE_DEPRECATED
    await raw.call("deprecate_namespace", namespace=name)


async def test_workflows_of_two_namespaces_do_not_meet(raw, name):
    await register(raw, name)
    inside = await usable(raw, name)
    await inside.running()
    await raw.running()
    assert inside.run_id != raw.run_id
    found = await refusal(raw.call("describe_workflow_execution", execution=inside.execution()))
    assert found.code == "NOT_FOUND"
    task = await inside.poll_workflow_task()
    assert task.workflow_execution.run_id == inside.run_id
    await inside.answer(task, complete())

    async def here():
        return [each.execution.run_id for each in (await raw.list(f"WorkflowId = '{raw.id}'")).executions]

    async def there():
        return [each.execution.run_id for each in (await inside.list(f"WorkflowId = '{raw.id}'")).executions]

    await raw.shown(here, [raw.run_id])
    await inside.shown(there, [inside.run_id])


async def test_a_token_of_another_namespace_is_refused(raw, name):
    await register(raw, name)
    inside = await usable(raw, name)
    task = await raw.workflow_task()
    found = await refusal(inside.answer(task, complete()))
    assert found.code == "INVALID_ARGUMENT"
    await raw.answer(task, complete())


async def test_a_client_of_the_sdk_works_in_a_new_namespace(raw, name):
    await register(raw, name)
    await usable(raw, name)
    client = await Client.connect(raw.client.service_client.config.target_host, namespace=name)
    handle = await client.start_workflow("Anything", id="w", task_queue="q", execution_timeout=timedelta(minutes=1))
    description = await handle.describe()
    assert description.namespace == name
    await handle.terminate()


async def test_delete(raw, name):
    await register(raw, name)
    inside = await usable(raw, name)
    await inside.running()
    answer = await raw.call("delete_namespace", namespace=name)
    assert answer.deleted_namespace

    async def gone():
        found = await refusal(raw.call("describe_namespace", namespace=name))
        return found and found.code

    for _ in range(300):
        if await gone() == "NOT_FOUND":
            break
        await asyncio.sleep(0.1)
    assert await gone() == "NOT_FOUND"
    assert name not in await names(raw, 100)


async def test_a_deleted_name_can_be_registered_again_and_is_empty(raw, name):
    await register(raw, name)
    inside = await usable(raw, name)
    await inside.running()
    await raw.call("delete_namespace", namespace=name)
    for _ in range(300):
        if await refusal(register(raw, name)) is None:
            break
        await asyncio.sleep(0.1)
    inside = await usable(raw, name)

    async def listed():
        return len((await inside.list("")).executions)

    await inside.shown(listed, 0)


async def test_the_capabilities_that_sdks_rely_on(raw):
    info = (await raw.call("describe_namespace")).namespace_info
    assert info.capabilities.eager_workflow_start
    assert info.capabilities.sync_update
    assert info.capabilities.async_update
    assert info.capabilities.worker_heartbeats
    assert info.limits.blob_size_limit_error == 2 * 1024 * 1024
    assert info.limits.memo_size_limit_error == 2 * 1024 * 1024


async def test_system_info(raw):
    answer = await raw.client.workflow_service.get_system_info(api.GetSystemInfoRequest())
    on = [name.name for name, value in answer.capabilities.ListFields() if value]
    assert {
        "signal_and_query_header",
        "internal_error_differentiation",
        "activity_failure_include_heartbeat",
        "encoded_failure_attributes",
        "upsert_memo",
        "eager_workflow_start",
        "sdk_metadata",
        "count_group_by_execution_status",
    } <= set(on)


async def test_cluster_info(raw):
    answer = await raw.call("get_cluster_info")
    assert answer.cluster_id
    assert answer.server_version
    assert "temporal-python" in answer.supported_clients or "temporal-go" in answer.supported_clients
    assert answer.persistence_store == "sqlite"
