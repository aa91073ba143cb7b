"""For services that are shown credentials: who calls, and for which tool call.

Needs `pip install steadfast[verify]`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import jwt

from . import _http
from ._credential import Credential, CredentialError


class Refused(CredentialError):
    """The credential does not count."""


class Unavailable(CredentialError):
    """The issuer could not be asked: not the caller's fault."""


@dataclass
class Verifier:
    """Verifies credentials of one issuer for one audience. It is safe to share by threads.

    With `introspect` the issuer is asked each time (RFC 7662), so that a credential counts for
    nothing as soon as its attempt is over or its session was revoked. Without, it counts until it
    expires. `bearer` authenticates these questions, where the issuer wants that.
    """

    issuer: str
    audience: str
    introspect: bool = True
    bearer: str | None = field(default=None, repr=False)
    leeway_seconds: float = 5.0
    timeout_seconds: int = 10
    _metadata: dict[str, Any] | None = field(default=None, init=False, repr=False)
    _keys: jwt.PyJWKClient | None = field(default=None, init=False, repr=False)

    async def verify(self, token: str, *, tool: str | None = None) -> Credential:
        """The verified credential. `tool` is the activity type that it has to be for.

        Raises `Refused`, or `Unavailable`.
        """
        return await asyncio.to_thread(self.verify_sync, token, tool=tool)

    def verify_sync(self, token: str, *, tool: str | None = None) -> Credential:
        """`verify` for code that is not async."""
        self._check_signature(token)
        credential = Credential.parse(token)
        if tool is not None and credential.tool_call.get("tool") != tool:
            raise Refused(f"the credential is for another tool: {credential.tool_call.get('tool')!r}")
        if self.introspect:
            self._check_active(token)
        return credential

    def _check_signature(self, token: str) -> None:
        keys = self._key_client()
        try:
            key = keys.get_signing_key_from_jwt(token)
        except jwt.PyJWKClientConnectionError as error:
            raise Unavailable(f"the issuer's keys cannot be had: {error}") from error
        except jwt.PyJWTError as error:
            raise Refused(f"the credential is not signed by a key of {self.issuer}: {error}") from error
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["ES256"],
                issuer=self.issuer,
                audience=self.audience,
                leeway=self.leeway_seconds,
                options={"require": ["iss", "sub", "aud", "exp", "jti"]},
            )
        except jwt.PyJWTError as error:
            raise Refused(f"the credential does not count: {error}") from error
        if not isinstance(claims.get("steadfast"), dict):
            raise Refused("the token is not the credential of a tool call")

    def _check_active(self, token: str) -> None:
        fields = {"token": token}
        try:
            url = _http.endpoint(self._discovered(), "introspection_endpoint")
            answer = _http.post_form(
                url, fields, timeout=self.timeout_seconds, bearer=self.bearer
            )
        except _http.RequestFailed as error:
            raise Unavailable(f"the issuer cannot be asked: {error}") from error
        if answer.get("active") is not True:
            raise Refused("the credential is not active any more")

    def _key_client(self) -> jwt.PyJWKClient:
        if self._keys is None:
            try:
                url = _http.endpoint(self._discovered(), "jwks_uri")
            except _http.RequestFailed as error:
                raise Unavailable(f"the issuer's keys cannot be had: {error}") from error
            self._keys = jwt.PyJWKClient(url, lifespan=300, timeout=self.timeout_seconds)
        return self._keys

    def _discovered(self) -> dict[str, Any]:
        if self._metadata is None:
            self._metadata = _http.discover(self.issuer, timeout=self.timeout_seconds)
        return self._metadata
