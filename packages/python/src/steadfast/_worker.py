"""From a task's header to the activity."""

from __future__ import annotations

import json
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.plugin import SimplePlugin
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from ._credential import Credential, InvalidCredential, NoCredential, NoIdempotencyKey

CREDENTIAL_HEADER = "steadfast-credential"
IDEMPOTENCY_KEY_HEADER = "steadfast-idempotency-key"


@dataclass(frozen=True)
class _Call:
    credential: Credential | InvalidCredential | None
    idempotency_key: str | None


_CALL: ContextVar[_Call | None] = ContextVar("steadfast_call", default=None)


def credential() -> Credential:
    """The credential of this attempt. Raises `NoCredential`, or `InvalidCredential`.

    It is there in async activities, in activities in thread pools, and in what they start with
    their context (`asyncio` tasks, `asyncio.to_thread`). It is not in process pools.
    """
    call = _call(NoCredential)
    if call.credential is None:
        raise NoCredential(
            f"the task has no header {CREDENTIAL_HEADER}: the server gives this activity no credential"
        )
    if isinstance(call.credential, InvalidCredential):
        raise InvalidCredential(str(call.credential))
    return call.credential


def idempotency_key() -> str:
    """A key for calls to the outside world: the same for all attempts of this activity.

    Raises `NoIdempotencyKey`.
    """
    call = _call(NoIdempotencyKey)
    if call.idempotency_key is None:
        raise NoIdempotencyKey(f"the task has no header {IDEMPOTENCY_KEY_HEADER}")
    return call.idempotency_key


def _call(error: type[NoCredential] | type[NoIdempotencyKey]) -> _Call:
    call = _CALL.get()
    if call is not None:
        return call
    if not activity.in_activity():
        raise error("not in an activity, or in a thread that did not get its context")
    raise error(
        "the worker has no steadfast.CredentialPlugin or CredentialInterceptor, "
        "or the activity runs in a process pool"
    )


class CredentialInterceptor(Interceptor):
    """Hands the credential and the idempotency key of each task to its activity."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Inbound(next)


class CredentialPlugin(SimplePlugin):
    """`CredentialInterceptor` as a plugin: for the client's or the worker's `plugins`, once."""

    def __init__(self) -> None:
        super().__init__("steadfast.CredentialPlugin", interceptors=[CredentialInterceptor()])


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        token = _text(input.headers.get(CREDENTIAL_HEADER))
        call = _Call(_parsed(token), _text(input.headers.get(IDEMPOTENCY_KEY_HEADER)))
        before = _CALL.set(call)
        try:
            return await super().execute_activity(input)
        finally:
            _CALL.reset(before)


def _parsed(token: str | None) -> Credential | InvalidCredential | None:
    """An activity that wants no credential does not fail because of one."""
    try:
        return None if token is None else Credential.parse(token)
    except InvalidCredential as error:
        return error


def _text(payload: Payload | None) -> str | None:
    """The server writes these headers itself: JSON, without the codec of workers."""
    if payload is None or payload.metadata.get("encoding") != b"json/plain":
        return None
    try:
        value = json.loads(payload.data)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
