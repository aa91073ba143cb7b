"""An MCP server that refunds orders, for tool calls of agents only.

It has no list of users and no secrets of theirs. Each request has to show the credential of a tool call that
is under way: signed by the issuer it trusts, for this server, and active when the issuer is asked. A call
that is made again, because its worker died, does not refund twice.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from steadfast.verify import Refused, Verifier


class Credentials:
    """Verifies what a request shows (`mcp.server.auth.provider.TokenVerifier`)."""

    def __init__(self, verifier: Verifier):
        self.verifier = verifier

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            credential = await self.verifier.verify(token)
        except Refused:
            return None
        return AccessToken(
            token=token,
            client_id=credential.subject,
            scopes=[],
            expires_at=int(credential.claims["exp"]),
            resource=credential.claims["aud"],
            subject=credential.subject,
            claims=dict(credential.claims),
        )


def tool_call(tool: str) -> dict[str, Any]:
    """The tool call that asks, which has to be one of `tool`."""
    token = get_access_token()
    call = token.claims["steadfast"] if token and token.claims else {}
    if call.get("tool") != tool:
        raise ToolError(f"the credential is for the tool {call.get('tool')!r}, not for {tool!r}")
    return call


def shop(issuer: str, url: str, bearer: str | None) -> MCPServer:
    """The server. `url` is where it is, and so the audience of the credentials that it accepts."""
    auth = AuthSettings(issuer_url=issuer, resource_server_url=url, validate_token_resource=True)
    verifier = Verifier(issuer=issuer, audience=url, bearer=bearer)
    server = MCPServer("shop", auth=auth, token_verifier=Credentials(verifier))
    refunds: dict[str, dict[str, Any]] = {}

    @server.tool()
    async def refund(order: str, amount: int) -> dict[str, Any]:
        """Refunds an order. A call that is made again is answered as it was before."""
        call = tool_call("refund")
        key = call["idempotency_key"]
        if key not in refunds:
            refunds[key] = {
                "order": order,
                "amount": amount,
                "refund": f"refund-{len(refunds) + 1}",
                "agent": f"{call['namespace']}/{call['workflow_type']}",
                "session": call["workflow_id"],
                "for": call["initiator"],
            }
        return refunds[key]

    @server.tool()
    async def close_account(customer: str) -> str:
        """Closes an account: for the tool `close_account` only."""
        tool_call("close_account")
        return f"the account of {customer} is closed"

    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--issuer", default="http://127.0.0.1:8233", help="the Steadfast server's issuer")
    parser.add_argument("--port", type=int, default=9100)
    arguments = parser.parse_args()
    url = f"http://127.0.0.1:{arguments.port}/mcp"
    # Who asks whether a credential is active, where that server wants to know.
    server = shop(arguments.issuer, url, os.environ.get("STEADFAST_API_KEY"))
    # Each request stands for itself: what the one before showed means nothing.
    server.run("streamable-http", port=arguments.port, stateless_http=True, json_response=True)


if __name__ == "__main__":
    main()
