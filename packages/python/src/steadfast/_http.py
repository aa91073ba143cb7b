"""Two kinds of requests to an issuer, with the standard library, bounded in time and size."""

from __future__ import annotations

import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

MAX_BYTES = 256 * 1024


class RequestFailed(Exception):
    """A request without the answer that was asked for. The message has nothing of the request's body."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Tokens go where the issuer's metadata say, and nowhere else."""


def check_url(url: str) -> None:
    """Refuses what would send tokens unencrypted over a network."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise RequestFailed(f"{url!r} is not a URL")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return
    raise RequestFailed(f"{url} is neither https nor on this machine")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def get_json(url: str, *, timeout: float) -> dict[str, Any]:
    check_url(url)
    return _send(urllib.request.Request(url), timeout)


def post_form(
    url: str, fields: Mapping[str, str], *, timeout: float, bearer: str | None = None
) -> dict[str, Any]:
    check_url(url)
    body = urllib.parse.urlencode(fields).encode()
    request = urllib.request.Request(url, data=body, method="POST")
    if bearer is not None:
        request.add_header("Authorization", f"Bearer {bearer}")
    return _send(request, timeout)


def discover(issuer: str, *, timeout: float) -> dict[str, Any]:
    """The issuer's metadata (OpenID Connect Discovery 1.0, 4.3: they must name this issuer)."""
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    metadata = get_json(url, timeout=timeout)
    if metadata.get("issuer") != issuer:
        raise RequestFailed(f"{url} is about another issuer: {metadata.get('issuer')!r}")
    return metadata


def endpoint(metadata: Mapping[str, Any], name: str) -> str:
    url = metadata.get(name)
    if not isinstance(url, str):
        raise RequestFailed(f"the issuer's metadata have no {name}")
    check_url(url)
    return url


def _send(request: urllib.request.Request, timeout: float) -> dict[str, Any]:
    opener = urllib.request.build_opener(_NoRedirects)
    request.add_header("Accept", "application/json")
    try:
        with opener.open(request, timeout=timeout) as response:
            content = response.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(MAX_BYTES)
        raise RequestFailed(f"{request.full_url}: {error.code}{_reason(said)}") from None
    except (OSError, ValueError) as error:
        raise RequestFailed(f"{request.full_url}: {error}") from error
    if len(content) > MAX_BYTES:
        raise RequestFailed(f"{request.full_url}: the answer has more than {MAX_BYTES} bytes")
    return _object(content, request.full_url)


def _object(content: bytes, url: str) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        raise RequestFailed(f"{url}: the answer is not JSON") from None
    if not isinstance(answer, dict):
        raise RequestFailed(f"{url}: the answer is not a JSON object")
    return answer


def _reason(content: bytes) -> str:
    """`error` and `error_description` of RFC 6749, 5.2."""
    try:
        answer = json.loads(content)
    except ValueError:
        return ""
    if not isinstance(answer, dict):
        return ""
    said = [str(answer[each])[:500] for each in ("error", "error_description") if each in answer]
    return f": {': '.join(said)}" if said else ""
