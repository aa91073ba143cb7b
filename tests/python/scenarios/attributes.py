"""Search attributes, memo, user metadata, priority, headers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from harness import Scene, eventually, scenario
from temporalio import workflow
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.common import Priority, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

CUSTOMER = SearchAttributeKey.for_keyword("ScenarioCustomer")
AMOUNT = SearchAttributeKey.for_int("ScenarioAmount")


async def register(scene: Scene) -> None:
    """The attributes of these scenarios, once for each server."""
    wanted = {
        CUSTOMER.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
        AMOUNT.name: IndexedValueType.INDEXED_VALUE_TYPE_INT,
    }
    service = scene.client.operator_service

    async def known() -> bool:
        listed = await service.list_search_attributes(ListSearchAttributesRequest(namespace="default"))
        return wanted.keys() <= listed.custom_attributes.keys()

    if not await known():
        await service.add_search_attributes(
            AddSearchAttributesRequest(namespace="default", search_attributes=wanted)
        )
        await eventually(known, "search attributes registered")


@workflow.defn
class Labels:
    @workflow.run
    async def run(self) -> None:
        workflow.upsert_search_attributes([CUSTOMER.value_set("Bob"), AMOUNT.value_set(3)])
        await asyncio.sleep(0.1)
        workflow.upsert_search_attributes([CUSTOMER.value_unset()])


@scenario
async def search_attributes(scene: Scene) -> None:
    await register(scene)
    async with scene.worker([Labels]):
        given = TypedSearchAttributes([SearchAttributePair(CUSTOMER, "Ada")])
        handle = await scene.start(Labels.run, search_attributes=given)
        await handle.result()
    await scene.record()


@workflow.defn
class Notes:
    @workflow.run
    async def run(self) -> None:
        workflow.upsert_memo({"stage": "two", "old": None})
        workflow.set_current_details("not in the history")


@scenario
async def memo(scene: Scene) -> None:
    async with scene.worker([Notes]):
        handle = await scene.start(Notes.run, memo={"stage": "one", "old": 1})
        await handle.result()
    await scene.record()


@workflow.defn
class Important:
    @workflow.run
    async def run(self) -> None:
        await workflow.sleep(timedelta(seconds=0.1), summary="a short rest")


@scenario
async def priority_and_metadata(scene: Scene) -> None:
    async with scene.worker([Important]):
        handle = await scene.start(
            Important.run,
            priority=Priority(priority_key=2, fairness_key="tenant-1", fairness_weight=1.5),
            static_summary="summary",
            static_details="details",
        )
        await handle.result()
    await scene.record()
