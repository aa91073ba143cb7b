"""docs/openapi.yaml is valid, has the server's routes, and says what live answers look like."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import yaml
from openapi_spec_validator import validate
from server import ROOT, Server

SPEC = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
METHODS = {"get", "post", "put", "delete", "patch"}


def schema(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}", "components": SPEC["components"]}


def answer_schema(path: str, method: str) -> dict:
    answer = SPEC["paths"][path][method]["responses"]["200"]["content"]["application/json"]
    return {**answer["schema"], "components": SPEC["components"]}


def registered(folder: Path) -> set[tuple[str, str]]:
    """The routes in the sources: `.route("path", get(…).post(…))`, with names of texts in `format!`."""
    found = set()
    for file in sorted(folder.rglob("*.rs")):
        source = file.read_text()
        texts = re.findall(r'(?:let|const) (\w+)(?:: &str)? = "([^"]+)"', source)
        for match in re.finditer(r"\.route\(", source):
            text = arguments(source[match.end() :])
            path = re.search(r'"([^"]+)"', text)
            assert path, f"a route without a path in {file.name}: {text}"
            name = path[1]
            if "format!" in text:
                for named, value in texts:
                    name = name.replace(f"{{{named}}}", value)
                name = name.replace("{{", "{").replace("}}", "}")
                assert name.startswith("/"), file.name
            methods = re.findall(r"\b(get|post|put|delete|patch)\(", text[path.end() :])
            assert methods, f"no method of {name}"
            found |= {(name.replace("{*", "{"), method) for method in methods}
    return found


def arguments(text: str) -> str:
    depth = 1
    for index, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            return text[:index]
    raise AssertionError("a route that does not end")


def test_the_description_is_valid() -> None:
    validate(SPEC)


def test_it_has_the_routes_of_the_server() -> None:
    described = {
        (path, method) for path, item in SPEC["paths"].items() for method in item if method in METHODS
    }
    assert described == registered(ROOT / "crates" / "server" / "src" / "http")


async def test_live_answers_are_as_described(own_server: Server) -> None:
    own_server.start()
    await own_server.ready()

    def get(path: str) -> tuple[str, bytes]:
        with urllib.request.urlopen(own_server.http + path, timeout=10) as answer:
            return answer.headers["content-type"], answer.read()

    checker = jsonschema.Draft202012Validator
    status = json.loads(get("/api/v1/status")[1])
    checker(schema("Status")).validate(status)
    path = "/api/v1/namespaces/{namespace}/approvals"
    approvals = json.loads(get(path.replace("{namespace}", "default"))[1])
    checker(answer_schema(path, "get")).validate(approvals)
    assert get("/healthz")[1] == b"ok\n"
    assert get("/metrics")[0].startswith("text/plain")
    try:
        get("/api/v1/keys")
        raise AssertionError("keys without authentication")
    except urllib.error.HTTPError as refused:
        assert refused.code == 409
        assert refused.headers["content-type"].startswith("text/plain")
