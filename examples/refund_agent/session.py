"""The workflow: one support ticket from arrival to resolution."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel
    from pydantic_ai import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
    from pydantic_ai.durable_exec.temporal import PydanticAIWorkflow
    from pydantic_ai.messages import ModelMessage, ToolCallPart, ToolReturnPart
    from pydantic_core import to_json

    from agent import Resolution, support_agent

TASK_QUEUE = "refund-agent"


class PendingApproval(BaseModel):
    tool_call_id: str
    tool: str
    args: dict[str, object]


class Decision(BaseModel):
    tool_call_id: str
    approved: bool
    by: str
    note: str = ""


class SessionResult(BaseModel):
    resolution: Resolution
    decisions: list[Decision]
    conversation: list[str]
    """Every tool call with its arguments and what it returned, in the agent's order."""


@workflow.defn(name="RefundSession")
class RefundSession(PydanticAIWorkflow):
    __pydantic_ai_agents__ = [support_agent]

    def __init__(self) -> None:
        self._pending: dict[str, PendingApproval] = {}
        self._decisions: dict[str, Decision] = {}

    @workflow.run
    async def run(self, ticket: str) -> SessionResult:
        result = await support_agent.run(ticket)
        while isinstance(result.output, DeferredToolRequests):
            answers = DeferredToolResults()
            for call in result.output.approvals:
                decision = await self._decision_on(call)
                answers.approvals[call.tool_call_id] = (
                    ToolApproved() if decision.approved else ToolDenied(decision.note or "denied")
                )
            result = await support_agent.run(
                message_history=result.all_messages(), deferred_tool_results=answers
            )
        return SessionResult(
            resolution=result.output,
            decisions=list(self._decisions.values()),
            conversation=_conversation(result.all_messages()),
        )

    async def _decision_on(self, call: ToolCallPart) -> Decision:
        self._pending[call.tool_call_id] = PendingApproval(
            tool_call_id=call.tool_call_id, tool=call.tool_name, args=call.args_as_dict()
        )
        try:
            await workflow.wait_condition(
                lambda: call.tool_call_id in self._decisions,
                timeout=timedelta(days=7),
                timeout_summary="waiting for a person",
            )
        except TimeoutError:
            self._decisions[call.tool_call_id] = Decision(
                tool_call_id=call.tool_call_id, approved=False, by="nobody", note="no one decided"
            )
        del self._pending[call.tool_call_id]
        return self._decisions[call.tool_call_id]

    @workflow.signal
    def decide(self, decision: Decision) -> None:
        # The first decision stands, however often a person clicks.
        self._decisions.setdefault(decision.tool_call_id, decision)

    @workflow.query
    def pending(self) -> list[PendingApproval]:
        return list(self._pending.values())


def _conversation(messages: list[ModelMessage]) -> list[str]:
    calls = {
        part.tool_call_id: part
        for message in messages
        for part in message.parts
        if isinstance(part, ToolCallPart)
    }
    return [
        f"{part.tool_name}({calls[part.tool_call_id].args_as_json_str()})"
        f" -> {to_json(part.content).decode()}"
        for message in messages
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]
