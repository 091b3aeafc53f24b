"""Discovery, OpenAPI, health, negotiation, Tables: what clients ask before and besides objects."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from served_api import CORE, Api, config_map, pod

from minikube_raw.api import ages, protobuf, scheme
from minikube_raw.apiserver import discovery
from minikube_raw.apiserver.resources import STRATEGIES, podcells
from minikube_raw.client.transport import Request

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
PROTOBUF = "application/vnd.kubernetes.protobuf"


# --- discovery ---


async def test_plain_and_aggregated_discovery_tell_the_same(api: Api) -> None:
    plain, aggregated = set(), set()
    for path in ("/api", "/apis"):
        answer = await api.get(path, accept=f"{AGGREGATED},application/json")
        for group in answer["items"]:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                for resource in version["resources"]:
                    aggregated.add((name, version["version"], resource["resource"]))
                    aggregated |= {
                        (name, version["version"], f"{resource['resource']}/{sub['subresource']}")
                        for sub in resource.get("subresources", ())
                    }
    groups = (await api.get("/apis"))["groups"]
    for name, version, path in [("", "v1", "/api/v1")] + [
        (g["name"], v["version"], f"/apis/{v['groupVersion']}") for g in groups for v in g["versions"]
    ]:
        plain |= {(name, version, r["name"]) for r in (await api.get(path))["resources"]}

    assert plain == aggregated


async def test_every_row_of_the_table_is_served_and_described(api: Api) -> None:
    described = await api.get("/openapi/v2")

    for row in scheme.KINDS:
        await api.get(scheme.path(row))
        assert row.definition in described["definitions"]
        assert any(strategy.kind is row for strategy in STRATEGIES)


async def test_a_client_that_has_a_document_is_told_so(api: Api) -> None:
    first = await api.server.handle(api.request("GET", "/api", None, {"Accept": AGGREGATED}), api.user)
    asked = api.request("GET", "/api", None, {"Accept": AGGREGATED})
    again = await api.server.handle(msgspec.structs.replace(asked, if_none_match=first.headers["ETag"]), api.user)

    assert (first.code, again.code, again.body) == (200, 304, b"")


# --- OpenAPI ---


async def test_v3_documents_carry_what_kubectl_looks_for(api: Api) -> None:
    index = await api.get("/openapi/v3")
    url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]

    document = await api.get(url)
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]

    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} <= {p["name"] for p in patch["parameters"]}
    assert (
        document["components"]["schemas"]["io.k8s.api.core.v1.ContainerPort"]["properties"]["hostIP"]["type"]
        == "string"
    )
    moved = await api.server.handle(api.request("GET", url.split("?")[0] + "?hash=00"), api.user)
    assert (moved.code, moved.headers["Location"]) == (301, url)


async def test_schemas_have_no_dangling_references_and_nothing_nullable(api: Api) -> None:
    swagger = await api.get("/openapi/v2")
    text = json.dumps(swagger)

    wanted = {part.split('"')[0] for part in text.split('"#/definitions/')[1:]}

    assert wanted <= swagger["definitions"].keys()
    assert '["string", "null"]' not in text
    assert swagger["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"] == "int-or-string"


async def test_swagger_is_also_gnostics_protobuf(api: Api) -> None:
    response = await api.server.handle(api.request("GET", "/openapi/v2", None, {"Accept": V2_PROTOBUF}), api.user)

    assert response.body.startswith(b"\n\x032.0\x12")
    assert b"io.k8s.api.core.v1.PodSpec" in response.body


# --- health ---


async def test_health_is_plain_text_and_verbose_on_demand(api: Api) -> None:
    assert await api.get("/healthz") == "ok"
    assert (await api.get("/readyz?verbose")).splitlines()[0] == "[+]ping ok"
    assert await api.get("/livez/ping") == "ok"
    await api.get("/livez/nope", code=404)


async def test_a_server_without_its_cache_is_not_ready(api: Api) -> None:
    await api.server.stop()

    assert "[-]watch-cache failed" in await api.get("/readyz", code=500)


# --- representations ---


async def test_objects_come_as_yaml_protobuf_or_metadata_only(api: Api) -> None:
    made = await api.create(CORE + "configmaps", config_map("a", {"k": "v"}))
    path = CORE + "configmaps/a"

    yaml = await api.get(path, accept="application/yaml")
    binary = await api.server.handle(api.request("GET", path, None, {"Accept": PROTOBUF}), api.user)
    partial = await api.get(path, accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")

    assert yaml.startswith("apiVersion: v1\ndata:\n  k: v\nkind: ConfigMap\n")
    assert protobuf.decode(binary.body) == made
    assert partial == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": made["metadata"]}


async def test_lists_come_as_protobuf(api: Api) -> None:
    await api.create(CORE + "pods", pod("p"))
    listed = await api.get(CORE + "pods")

    binary = await api.server.handle(api.request("GET", CORE + "pods", None, {"Accept": PROTOBUF}), api.user)

    assert binary.content_type == PROTOBUF
    assert [item["metadata"]["name"] for item in protobuf.decode(binary.body)["items"]] == ["p"]
    assert protobuf.decode(binary.body)["metadata"] == listed["metadata"]


async def test_bodies_may_be_protobuf(api: Api) -> None:
    wish = {**config_map("b", {"k": "v"})}
    request = Request("POST", CORE + "configmaps", {}, protobuf.encode(wish), PROTOBUF)

    response = await api.server.handle(request, api.user)

    assert response.code == 201
    assert (await api.get(CORE + "configmaps/b"))["data"] == {"k": "v"}


async def test_a_table_has_a_row_for_each_object(api: Api) -> None:
    await api.create(CORE + "configmaps", config_map("a", {"x": "1", "y": "2"}))

    table = await api.get(CORE + "configmaps", accept=TABLE)
    bare = await api.get(CORE + "configmaps?includeObject=None", accept=TABLE)

    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table["rows"][0]["cells"][:2] == ["a", 2]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert bare["rows"][0]["object"] is None


def status(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "c", "ready": "running" in state, "restartCount": 0, "state": state, **more}


RUNNING, ENDED = status({"running": {}}), {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}}
RESTARTED = status({"running": {}}, restartCount=2, lastState=ENDED)
DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
GATED = [{"type": "PodScheduled", "reason": "SchedulingGated"}]


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [status(state)]}


PODS = [
    ("pending", {"phase": "Pending"}, {}, ["0/1", "Pending", "0"]),
    ("running", {"phase": "Running", "containerStatuses": [RUNNING]}, {}, ["1/1", "Running", "0"]),
    ("waiting", container(waiting={"reason": "ImagePullBackOff"}), {}, ["0/1", "ImagePullBackOff", "0"]),
    ("exit code", container(terminated={"exitCode": 3}), {}, ["0/1", "ExitCode:3", "0"]),
    ("signal", container(terminated={"signal": 9, "exitCode": 137}), {}, ["0/1", "Signal:9", "0"]),
    ("restarts", {"phase": "Running", "containerStatuses": [RESTARTED]}, {}, ["1/1", "Running", "2 (10s ago)"]),
    ("deleted", {"phase": "Running", "containerStatuses": [RUNNING]}, DELETED, ["1/1", "Terminating", "0"]),
    ("evicted", {"phase": "Failed", "reason": "Evicted"}, {}, ["0/1", "Evicted", "0"]),
    ("init", {"initContainerStatuses": [RUNNING]}, {}, ["0/1", "Init:0/1", "0"]),
    (
        "init error",
        {"initContainerStatuses": [status({"terminated": {"exitCode": 5}})]},
        {},
        ["0/1", "Init:ExitCode:5", "0"],
    ),
    ("gated", {"phase": "Pending", "conditions": GATED}, {}, ["0/1", "SchedulingGated", "0"]),
]


@pytest.mark.parametrize(("name", "state", "metadata", "cells"), PODS, ids=[case[0] for case in PODS])
def test_a_pods_row_says_what_ails_it(
    name: str, state: dict[str, Any], metadata: dict[str, Any], cells: list[str]
) -> None:
    spec: dict[str, Any] = {"containers": [{"name": "c"}]}
    if name.startswith("init"):
        spec["initContainers"] = [{"name": "c"}]

    row = podcells.cells({"metadata": {"name": "p", **metadata}, "spec": spec, "status": state}, NOW)

    assert row[1:4] == cells


NOW = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (200, "3m20s"), (600, "10m"), (3 * 3600, "3h"),
     (5 * 3600 + 720, "5h12m"), (30 * 3600, "30h"), (2 * 86400 + 3600, "2d1h"), (120 * 86400, "120d"),
     (3 * 365 * 86400 + 20 * 86400, "3y20d"), (12 * 365 * 86400, "12y")],
)  # fmt: skip
def test_ages_get_coarser_with_age(seconds: int, shown: str) -> None:
    assert ages.human(seconds) == shown


def test_only_an_understood_clause_counts_for_discovery() -> None:
    assert discovery.wants_aggregated(f"{AGGREGATED},application/json")
    assert not discovery.wants_aggregated("application/json")
    assert not discovery.wants_aggregated(AGGREGATED.replace("v=v2", "v=v3") + ",application/json")
