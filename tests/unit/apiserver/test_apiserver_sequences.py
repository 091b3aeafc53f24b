"""Requests in a row on the same objects, with the answers of kube-apiserver v1.36 (fixtures/apiserver/sequences.jsonl).

Each sequence begins with the objects of fixtures/apiserver/world.json. What differs from run to run (uids, versions,
times) is a placeholder in bodies and texts.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from served_api import Api

FIXTURES = Path(__file__).parents[2] / "fixtures" / "apiserver"
STEPS = [json.loads(line) for line in (FIXTURES / "sequences.jsonl").read_text().splitlines()]
SEQUENCES = {name: list(steps) for name, steps in itertools.groupby(STEPS, key=lambda step: step["sequence"])}
WORLD = json.loads((FIXTURES / "world.json").read_text())

_UID = re.compile(r"(?!1{8})[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"20(?!01)\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_VERSION = re.compile(r'((?:resourceVersion|ResourceVersion in record)[\\": (]+)\d+')


@pytest.mark.parametrize("name", SEQUENCES)
async def test_a_sequence_is_answered_as_kube_apiserver_did(api: Api, name: str) -> None:
    for path, obj in WORLD:
        await api.create(path, obj)

    differences = []
    for step in SEQUENCES[name]:
        found = await answer(api, step)
        if found != wanted(step):
            differences.append((step["name"], found, wanted(step)))

    assert differences == []


async def answer(api: Api, step: dict[str, Any]) -> dict[str, Any]:
    """Send a step's request and return what is compared."""
    client = api.as_user("system:node:node1", "system:nodes") if step.get("user") == "node" else api
    body = step.get("body")
    if isinstance(body, dict):
        body = await filled(api, body, step["path"])
    response, obj = await client.send(step["method"], step["path"], body, step.get("headers"))
    found: dict[str, Any] = {"code": response.code, "warnings": response.headers.get("Warning", "")}
    if response.code >= 400 and isinstance(obj, dict):
        causes = [[c.get("reason", ""), c["field"]] for c in obj.get("details", {}).get("causes", ()) if "field" in c]
        found |= {"reason": obj.get("reason", ""), "message": normal(obj["message"]), "causes": causes}
    return found


def wanted(step: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"code": step["code"], "warnings": ", ".join(step.get("warnings", ()))}
    if "message" in step:
        found |= {"reason": step["reason"], "message": step["message"], "causes": step.get("causes", [])}
    return found


async def filled(api: Api, body: dict[str, Any], path: str) -> dict[str, Any]:
    """Put what the object of the path has now for the placeholders in a body's metadata."""
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not any(str(value).startswith("$") for value in metadata.values()):
        return body
    held = (await api.get(path.partition("?")[0]))["metadata"]
    return {**body, "metadata": {key: held[key] if value == f"${key}" else value for key, value in metadata.items()}}


def normal(text: str) -> str:
    return _VERSION.sub(r"\1N", _TIME.sub("T", _UID.sub("UID", text)))
