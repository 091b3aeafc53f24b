"""Bodies and parameters nobody should send: every one is refused or taken, and none is a surprise (a 500 of our own)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from served_api import APPS, CORE, MERGE, STRATEGIC, Api, config_map, pod, workload

BAD = (None, [], {}, 5, -1, "", "x" * 70, [None], {"x": None}, 1e300, "\0\U0001f600")
APPLY = "application/apply-patch+yaml"


def probe() -> dict[str, Any]:
    return {"exec": {"command": ["a"]}, "periodSeconds": 1}


def full_pod() -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "busybox",
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"containerPort": 1}],
        "resources": {"limits": {"cpu": "1"}},
        "volumeMounts": [{"name": "v", "mountPath": "/a"}],
        "securityContext": {"capabilities": {"add": ["CHOWN"]}},
        "livenessProbe": probe(),
        "lifecycle": {"preStop": {"exec": {"command": ["a"]}}},
    }
    term = {"topologyKey": "a", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}
    return pod(
        "x",
        containers=[container],
        volumes=[{"name": "v", "projected": {"sources": [{"secret": {"name": "a"}}]}}],
        affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
        tolerations=[{"operator": "Exists"}],
    )


def of(kind: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, **more}


LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
KINDS = {
    CORE + "configmaps": config_map("x", {"a": "b"}),
    CORE + "secrets": of("Secret", data={"a": "YQ=="}, stringData={"b": "c"}),
    CORE + "services": of("Service", spec={"ports": [{"port": 80}], "selector": {"a": "b"}}),
    CORE + "serviceaccounts": of("ServiceAccount", secrets=[{"name": "x"}], imagePullSecrets=[{"name": "x"}]),
    CORE + "events": of("Event", involvedObject={"namespace": "default"}, series={"count": 1}),
    CORE + "pods": full_pod(),
    APPS + "deployments": workload("Deployment", "x", strategy={"rollingUpdate": {"maxSurge": "25%"}}),
    APPS + "replicasets": workload("ReplicaSet", "x"),
    LEASES: of("Lease", spec={"renewTime": "2020-01-01T00:00:00.000000Z"}) | {"apiVersion": "coordination.k8s.io/v1"},
    "/api/v1/namespaces": of("Namespace", spec={"finalizers": ["kubernetes"]}),
    "/api/v1/nodes": of("Node", spec={"taints": [{"key": "a", "effect": "NoSchedule"}]}, status={"addresses": []}),
}
METADATA: dict[str, Any] = {
    "labels": {"a": "b"},
    "annotations": {"a": "b"},
    "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "n", "uid": "u"}],
    "finalizers": ["a.b/c"],
    "creationTimestamp": "2020-01-01T00:00:00Z",
}
MANAGED = [{"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:x": {}}}]


def spoiled(obj: dict[str, Any]) -> Iterator[str]:
    """Yield the object as JSON with each of its parts replaced by each bad value."""
    for path in places(obj):
        for bad in BAD:
            changed = copy.deepcopy(obj)
            parent: Any = changed
            for step in path[:-1]:
                parent = parent[step]
            parent[path[-1]] = bad
            yield json.dumps(changed)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    steps = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for step in steps:
        yield (*at, step)
        yield from places(value[step], (*at, step))


def surprises(code: int, answer: Any) -> bool:
    """Whether a 500 is ours; those that Kubernetes answers, too, are no InternalError."""
    return code >= 500 and answer.get("reason") == "InternalError"


@pytest.mark.parametrize("path", KINDS, ids=lambda path: path.rpartition("/")[2])
async def test_no_part_of_an_object_spoiled_surprises_a_create(api: Api, path: str) -> None:
    wish = {**KINDS[path], "metadata": {"name": "x", **METADATA, "managedFields": MANAGED}}
    found = []
    for body in spoiled(wish):
        made, answer = await api.send("POST", f"{path}?dryRun=All", body)
        if surprises(made.code, answer):
            found.append((body, answer["message"]))

    assert found == []


@pytest.mark.parametrize("media", [MERGE, STRATEGIC, APPLY])
@pytest.mark.parametrize("path", KINDS, ids=lambda path: path.rpartition("/")[2])
async def test_no_part_of_an_object_spoiled_surprises_a_patch(api: Api, path: str, media: str) -> None:
    wish = {**KINDS[path], "metadata": {"name": "x", **METADATA}}
    await api.create(path, wish)
    found = []
    for body in spoiled(wish):
        url = f"{path}/x?dryRun=All&fieldManager=m" + ("&force=true" if media == APPLY else "")
        made, answer = await api.send("PATCH", url, body, {"Content-Type": media})
        if surprises(made.code, answer):
            found.append((body, answer["message"]))

    assert found == []


@pytest.mark.parametrize("body", ["[]", "5", '"x"', '{"metadata":5}', '{"metadata":[]}', '{"metadata":{"name":{}}}'])
@pytest.mark.parametrize("path", ["bindings", "pods/x/binding", "pods/x/eviction"])
async def test_actions_on_pods_are_refused_for_bodies_that_are_none(api: Api, path: str, body: str) -> None:
    await api.create(CORE + "pods", pod("x"))

    answer, _ = await api.send("POST", CORE + path, body)

    assert answer.code in (400, 404, 405)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=99999999999999999999", 'strconv.ParseInt: parsing "99999999999999999999": value out of range'),
        ("timeoutSeconds=0.5", 'strconv.ParseInt: parsing "0.5": invalid syntax'),
    ],
)
async def test_numbers_beyond_any_integer_are_named(api: Api, query: str, message: str) -> None:
    answer = await api.get(f"{CORE}configmaps?{query}", 400)

    assert answer["message"] == message


async def test_a_resource_version_beyond_any_integer_is_named(api: Api) -> None:
    answer = await api.get(f"{CORE}configmaps?resourceVersion={'9' * 30}", 400)

    assert answer["message"].startswith("invalid resource version: resourceVersion: Invalid value: ")
    assert answer["message"].endswith(f'strconv.ParseUint: parsing "{"9" * 30}": value out of range')


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        ("[]", 'json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string "'),
        ('{"gracePeriodSeconds":1.5}', "cannot unmarshal number 1.5 into Go struct field DeleteOptions."),
        ('{"gracePeriodSeconds":99999999999999999999}', "cannot unmarshal number 99999999999999999999 into Go struct"),
    ],
)
async def test_options_that_are_none_delete_nothing(api: Api, body: str, ends: str) -> None:
    await api.create(CORE + "configmaps", config_map("kept"))

    answer = await api.delete(CORE + "configmaps/kept", 400, body)

    assert ends in answer["message"]
    await api.get(CORE + "configmaps/kept")


async def test_a_refusal_carries_the_warnings_of_its_body(api: Api) -> None:
    wish = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "Metadata": {"name": "x"}})

    answer, refused = await api.send("POST", CORE + "configmaps", wish)

    assert (answer.code, refused["reason"]) == (422, "Invalid")
    assert answer.headers["Warning"] == '299 - "unknown field \\"Metadata\\""'


async def test_base64_is_stored_as_it_is_written_again(api: Api) -> None:
    made = await api.create(CORE + "secrets", of("Secret", data={"a": "YR\n==", "b": "Y\r\nQ=="}))

    assert made["data"] == {"a": "YQ==", "b": "YQ=="}


async def test_nobody_asks_in_vain_whether_a_kind_is_a_custom_one(api: Api) -> None:
    found = await api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")

    assert (found["kind"], found["items"]) == ("CustomResourceDefinitionList", [])
