"""A credential, decoded but not verified: whoever is shown it verifies it (`steadfast.verify`)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT = "urn:ietf:params:oauth:token-type:jwt"


class CredentialError(Exception):
    """What is raised here. Messages never have a token in them."""


class NoCredential(CredentialError):
    """There is no credential: the message says why."""


class NoIdempotencyKey(CredentialError):
    """There is no idempotency key: the message says why."""


class InvalidCredential(CredentialError):
    """What came as a credential is none."""


class ExchangeError(CredentialError):
    """The issuer gave no other token for a credential (RFC 8693)."""


@dataclass(frozen=True)
class Credential:
    """The credential of one attempt of an activity: a JWT that its issuer signed.

    `repr` and `str` do not show the token. Do not return it from an activity, and do not log it:
    results of activities are in the history.
    """

    token: str = field(repr=False)
    """The JWT itself."""
    claims: Mapping[str, Any] = field(repr=False, compare=False)
    """What the token says, read without verification."""

    @classmethod
    def parse(cls, token: str) -> Credential:
        """Reads a JWT without verification. Raises `InvalidCredential`."""
        parts = token.split(".")
        if len(parts) != 3:
            raise InvalidCredential("the credential is not a JWT of three parts")
        try:
            padded = parts[1] + "=" * (-len(parts[1]) % 4)
            claims = json.loads(base64.urlsafe_b64decode(padded))
        except ValueError:
            raise InvalidCredential("the credential's claims cannot be read") from None
        if not isinstance(claims, dict):
            raise InvalidCredential("the credential's claims are not a JSON object")
        expires = claims.get("exp")
        if isinstance(expires, bool) or not isinstance(expires, (int, float)):
            raise InvalidCredential("the credential does not say when it expires")
        try:
            datetime.fromtimestamp(expires, timezone.utc)
        except (ValueError, OverflowError, OSError):
            raise InvalidCredential("the credential's exp is not a time") from None
        return cls(token=token, claims=MappingProxyType(claims))

    @property
    def expires(self) -> datetime:
        """When it expires (UTC)."""
        return datetime.fromtimestamp(self.claims["exp"], timezone.utc)

    @property
    def is_expired(self) -> bool:
        """Whether it has expired by this machine's clock."""
        return datetime.now(timezone.utc) >= self.expires

    @property
    def issuer(self) -> str:
        """The server that signed it (`iss`); empty if it does not say."""
        return self._text("iss")

    @property
    def subject(self) -> str:
        """`<namespace>/<workflow type>` (`sub`); empty if it does not say."""
        return self._text("sub")

    @property
    def id(self) -> str:
        """The token's id (`jti`); empty if it does not say. It may be logged."""
        return self._text("jti")

    @property
    def tool_call(self) -> Mapping[str, Any]:
        """The claim `steadfast`: namespace, workflow_id, run_id, activity_id, tool, attempt, initiator, …"""
        of = self.claims.get("steadfast")
        return MappingProxyType(of) if isinstance(of, dict) else MappingProxyType({})

    @property
    def authorization_header(self) -> dict[str, str]:
        """`{"Authorization": "Bearer …"}`, for HTTP clients."""
        return {"Authorization": f"Bearer {self.token}"}

    async def exchange(
        self, *, audience: str, scope: str | None = None, timeout: float = 10.0
    ) -> Credential:
        """A credential for another audience, from this one's issuer (RFC 8693, token exchange).

        `timeout` is in seconds, for each of two requests. Raises `ExchangeError`.
        """
        return await asyncio.to_thread(
            self.exchange_sync, audience=audience, scope=scope, timeout=timeout
        )

    def exchange_sync(
        self, *, audience: str, scope: str | None = None, timeout: float = 10.0
    ) -> Credential:
        """`exchange` for activities that are not async."""
        # Not before: modules with workflows import this package, and in their sandbox this one would fail.
        from . import _http

        if not self.issuer:
            raise ExchangeError("the credential does not say who issued it")
        fields = {
            "grant_type": _EXCHANGE,
            "subject_token": self.token,
            "subject_token_type": _JWT,
            "audience": audience,
        }
        if scope is not None:
            fields["scope"] = scope
        try:
            metadata = _http.discover(self.issuer, timeout=timeout)
            url = _http.endpoint(metadata, "token_endpoint")
            answer = _http.post_form(url, fields, timeout=timeout)
        except _http.RequestFailed as error:
            raise ExchangeError(f"no credential for {audience!r}: {error}") from error
        token = answer.get("access_token")
        if not isinstance(token, str):
            raise ExchangeError(f"no credential for {audience!r}: the answer has no access_token")
        return Credential.parse(token)

    def _text(self, claim: str) -> str:
        value = self.claims.get(claim)
        return value if isinstance(value, str) else ""

    def __repr__(self) -> str:
        return (
            f"Credential(subject={self.subject!r}, audience={self.claims.get('aud')!r}, "
            f"id={self.id!r}, expires={self.expires.isoformat()!r})"
        )
