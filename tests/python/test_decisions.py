"""What policies decided is decided again: by us, from a bundle, and by others with their own Cedar."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from server import Server
from temporalio.client import WorkflowFailureError
from test_bundle import export, trusted_key, verdict
from test_policy import agents, run, started, vote, waiting


def policy_hash(files: list[dict[str, str]]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file["name"]):
        for part in (file["name"].encode(), file["text"].encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


class Policies:
    """Decides by PyPI's cedarpy, and what `docs/policy.md` says of annotations."""

    def __init__(self, files: list[dict[str, str]]):
        self.texts: dict[str, str] = {}
        self.kinds: dict[str, tuple[str, dict[str, str]]] = {}
        for file in files:
            known = json.loads(cedarpy.policies_to_json_str(file["text"]))["staticPolicies"]
            in_order = sorted(known.items(), key=lambda of: int(of[0].removeprefix("policy")))
            statements = [text + ";" for text in file["text"].split(";") if text.strip()]
            assert len(statements) == len(in_order), "no text of these tests has a semicolon in a policy"
            for number, ((_, policy), text) in enumerate(zip(in_order, statements, strict=True), 1):
                annotations = policy.get("annotations", {})
                name = annotations.get("id", f"{file['name']}#{number}")
                self.texts[name] = text
                self.kinds[name] = (policy["effect"], annotations)

    def ask(self, request: dict[str, Any], names: list[str]) -> tuple[bool, list[str]]:
        entities = request["entities"]
        asked = {key: request[key] for key in ("principal", "action", "resource", "context")}
        result = cedarpy.is_authorized(asked, "\n".join(self.texts[name] for name in names), entities)
        assert not result.diagnostics.errors, result.diagnostics.errors
        reasons = [names[int(reason.removeprefix("policy"))] for reason in result.diagnostics.reasons]
        return result.allowed, sorted(reasons)

    def decide(self, request: dict[str, Any]) -> tuple[str, list[str]]:
        names = list(self.texts)
        allowed, reasons = self.ask(request, names)
        if allowed:
            return "allow", reasons
        soft = [name for name in names if "approval" in self.kinds[name][1]]
        if reasons and all(name in soft for name in reasons):
            permitted, _ = self.ask(request, [name for name in names if name not in soft])
            return ("approval", reasons) if permitted else ("deny", [])
        return "deny", reasons


def assert_others_agree(bundle: Path) -> set[str]:
    """Asks cedarpy again about every decision in a bundle. Gives the answers that there are."""
    with zipfile.ZipFile(bundle) as archive:
        entries = [json.loads(line)["entry"] for line in archive.read("entries.jsonl").splitlines()]
        lines = [json.loads(line) for line in archive.read("decisions.jsonl").splitlines()]
        files = {
            name.removeprefix("policies/").removesuffix(".json"): json.loads(archive.read(name))["files"]
            for name in archive.namelist()
            if name.startswith("policies/")
        }
    assert all(policy_hash(of) == digest for digest, of in files.items())
    known = {digest: Policies(of) for digest, of in files.items()}
    decided = {
        (entry["run_id"], entry["n"], place): decision
        for entry in entries
        for place, decision in enumerate(entry.get("decisions", []))
    }
    assert set(decided) == {(line["run_id"], line["n"], line["place"]) for line in lines}
    answers = set()
    for line in lines:
        decision = decided[line["run_id"], line["n"], line["place"]]
        digest = base64.b64decode(decision["policy_hash"]).hex()
        assert known[digest].decide(line["request"]) == (decision["answer"], decision["policies"])
        answers.add(decision["answer"])
    return answers


async def test_others_reach_the_same_decisions_from_a_bundle(own_server: Server, tmp_path: Path) -> None:
    policies = await started(own_server, tmp_path)
    async with agents(own_server) as client:
        await (await run(client, "refund", {"amount": 10, "rate": 0.25, "tags": ["a"], "to": None}, "calls")).result()
        with pytest.raises(WorkflowFailureError):
            await (await run(client, "delete_customer", "c-7", "calls")).result()
        handle = await run(client, "refund", {"amount": 1200}, "calls")
        await waiting(own_server)
        # Other policies come into force while it waits: a bundle has both.
        more = '@id("notes") permit(principal, action == Action::"ExecuteTool", resource == Tool::"default/note");'
        (policies / "more.cedar").write_text(more)
        await vote(own_server, "approve", "calls", "bob", "finance")
        await vote(own_server, "approve", "calls", "carol", "risk")
        assert await handle.result() == "refunded 1200"
    bundle = export(own_server, tmp_path / "calls.zip", "-w", "calls")
    verdict(bundle, trusted_key(own_server), 0)
    assert assert_others_agree(bundle) == {"allow", "deny", "approval"}
