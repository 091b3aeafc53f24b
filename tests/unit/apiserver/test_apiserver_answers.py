"""Requests that Kubernetes refuses or warns about, with the answers of kube-apiserver v1.36 (fixtures/apiserver/answers.jsonl)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from served_api import APPS, CORE, Api, claim, config_map, pod, storage_class, volume, workload

from minikube_raw.apiserver.server import APIServer, Options
from minikube_raw.store.sqlite import SQLiteStore

FIXTURES = Path(__file__).parents[2] / "fixtures" / "apiserver"


def load(name: str) -> list[Any]:
    cases = [json.loads(line) for line in (FIXTURES / name).read_text().splitlines()]
    return [pytest.param(case, id=case["name"]) for case in cases]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """One server for the whole table: refused requests leave nothing behind, all others are dry runs."""
    store = SQLiteStore(tmp_path_factory.mktemp("answers") / "store.sqlite")
    await store.open()
    server = APIServer(store, Options(service_cidr="10.96.0.0/16"))
    await server.start()
    api = Api(server)
    await api.create(CORE + "configmaps", config_map("big"))
    await api.create(CORE + "pods", pod("imm"))
    await api.create(APPS + "deployments", workload("Deployment", "imm"))
    await api.delete("/apis/storage.k8s.io/v1/storageclasses/standard")
    await api.create("/api/v1/persistentvolumes", volume("imm"))
    await api.create(CORE + "persistentvolumeclaims", claim("imm"))
    await api.create("/apis/storage.k8s.io/v1/storageclasses", storage_class("imm", "a.b/c"))
    yield api
    await server.stop()
    await store.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", load("answers.jsonl"))
async def test_answers_as_kube_apiserver_does(served: Api, case: dict[str, Any]) -> None:
    response, obj = await served.send(case["method"], case["path"], case.get("body"), case.get("headers"))

    assert response.code == case["code"], obj
    warnings = ", ".join(case.get("warnings", ()))
    assert response.headers.get("Warning", "") == warnings
    if case["code"] >= 400:
        assert obj["message"] == case["message"]
        assert obj.get("reason", "") == case["reason"]
        causes = [[cause.get("reason", ""), cause["field"]] for cause in obj.get("details", {}).get("causes", ())]
        assert causes == case.get("causes", [])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", load("defaults.jsonl"))
async def test_fills_in_what_a_manifest_leaves_open(served: Api, case: dict[str, Any]) -> None:
    response, made = await served.send("POST", case["path"], case["body"])

    assert response.code == 201, made
    assert comparable(made) == case["want"]


def comparable(obj: dict[str, Any]) -> dict[str, Any]:
    """Drop what differs from run to run, as the fixture does."""
    for name in ("uid", "creationTimestamp", "resourceVersion", "managedFields"):
        obj["metadata"].pop(name, None)
    if "generateName" in obj["metadata"]:
        obj["metadata"]["name"] = "gen"
    if obj["kind"] == "Service" and obj["spec"].get("clusterIP", "None") != "None":
        obj["spec"] |= {"clusterIP": "IP", "clusterIPs": ["IP"]}
    if "lastPhaseTransitionTime" in obj.get("status", {}):
        obj["status"]["lastPhaseTransitionTime"] = "T"
    for condition in obj.get("status", {}).get("conditions", ()):
        condition["lastTransitionTime"] = "T"
    return obj
