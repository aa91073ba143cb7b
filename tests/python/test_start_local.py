"""An SDK's test environment starts our binary as it starts the development server."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from server import binary
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

WORD = SearchAttributeKey.for_keyword("StartLocalWord")


@activity.defn
async def start_local_greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow.defn
class StartLocalGreeting:
    @workflow.run
    async def run(self, name: str) -> str:
        workflow.upsert_search_attributes([WORD.value_set(name)])
        return await workflow.execute_activity(
            start_local_greet, name, start_to_close_timeout=timedelta(seconds=10)
        )


async def greet(client: Client, unique: str, name: str) -> None:
    async with Worker(
        client,
        task_queue=unique,
        workflows=[StartLocalGreeting],
        activities=[start_local_greet],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        result = await client.execute_workflow(StartLocalGreeting.run, name, id=unique, task_queue=unique)
        assert result == f"Hello, {name}!"


async def test_in_memory(unique: str) -> None:
    async with await WorkflowEnvironment.start_local(
        namespace="from-the-sdk",
        search_attributes=[WORD],
        dev_server_existing_path=binary(),
        dev_server_log_level="error",
    ) as environment:
        assert environment.client.namespace == "from-the-sdk"
        assert not environment.supports_time_skipping
        await greet(environment.client, unique, unique)
        handle = environment.client.get_workflow_handle(unique)
        described = await handle.describe()
        assert described.typed_search_attributes[WORD] == unique
        found = [each.id async for each in environment.client.list_workflows(f'StartLocalWord = "{unique}"')]
        assert found == [unique]
        await environment.client.start_workflow(
            "Anything",
            id=f"{unique}-second",
            task_queue="nobody",
            search_attributes=TypedSearchAttributes([SearchAttributePair(WORD, unique)]),
        )


async def test_file_outlives_the_environment(tmp_path: Path, unique: str) -> None:
    for name in ("first", "second"):
        async with await WorkflowEnvironment.start_local(
            search_attributes=[WORD],
            dev_server_existing_path=binary(),
            dev_server_database_filename=str(tmp_path / "steadfast.db"),
            dev_server_log_level="error",
        ) as environment:
            await greet(environment.client, f"{unique}-{name}", name)
            first = environment.client.get_workflow_handle(f"{unique}-first")
            assert await first.result() == "Hello, first!"
