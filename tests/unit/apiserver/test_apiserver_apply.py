"""Server-side apply through the whole server: defaults, subresources, no-ops, and who owns what afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from served_api import APPS, CORE, STRATEGIC, Api, config_map

APPLY = "application/apply-patch+yaml"
DEPLOYMENTS = f"{APPS}deployments"


def deployment(name: str = "web", *, containers: Any = None, **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers or [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def scale(replicas: int) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas},
    }


async def apply(api: Api, path: str, config: Any, manager: str, code: int = 200, *, force: bool = False) -> Any:
    query = f"?fieldManager={manager}{'&force=true' if force else ''}"
    return await api.patch(path + query, config, code=code, media=APPLY)


def entries(obj: Any) -> list[tuple[str, str, str, Any]]:
    """Who owns what: manager, operation, subresource, fields."""
    found = obj["metadata"].get("managedFields", [])
    return [(one["manager"], one["operation"], one.get("subresource", ""), one["fieldsV1"]) for one in found]


def owner(obj: Any, manager: str) -> Any:
    return next(fields for name, _, _, fields in entries(obj) if name == manager)


async def test_only_what_is_applied_is_owned_not_what_is_defaulted(api: Api) -> None:
    ports = [{"containerPort": 80}]
    made = await apply(api, f"{DEPLOYMENTS}/web", deployment(containers=[{"name": "c", "ports": ports}]), "m", 422)
    assert made["details"]["causes"][0]["field"] == "spec.template.spec.containers[0].image"

    containers = [{"name": "c", "image": "i", "ports": ports}]
    made = await apply(api, f"{DEPLOYMENTS}/web", deployment(containers=containers), "m", 201)

    assert made["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    owned = owner(made, "m")["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"c"}']
    port = {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}}
    assert owned == {".": {}, "f:image": {}, "f:name": {}, "f:ports": port}


@pytest.mark.parametrize(
    ("config", "again"),
    [
        ({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "x"}},) * 2,
        (config_map("s", {"a": "1"}), config_map("s", {"a": "1"})),
    ],
    ids=["stringData", "data"],
)
async def test_applying_the_same_again_writes_nothing(api: Api, config: Any, again: Any) -> None:
    path = f"{CORE}{config['kind'].lower()}s/s"
    made = await apply(api, path, config, "m", 201)
    assert await apply(api, path, again, "m") == made


async def test_a_quantity_applied_in_another_form_writes_nothing(api: Api) -> None:
    def limited(cpu: str) -> Any:
        return deployment(containers=[{"name": "c", "image": "i", "resources": {"limits": {"cpu": cpu}}}])

    made = await apply(api, f"{DEPLOYMENTS}/web", limited("1000m"), "m", 201)
    assert made["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1"}
    assert await apply(api, f"{DEPLOYMENTS}/web", limited("1000m"), "m") == made


async def test_status_and_spec_are_owned_apart(api: Api) -> None:
    await apply(api, f"{DEPLOYMENTS}/web", {**deployment(), "status": {"replicas": 7}}, "m", 201)
    status = {"replicas": 2, "conditions": [{"type": "X", "status": "True"}]}
    config = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"x": "y"}},
        "status": status,
    }

    made = await apply(api, f"{DEPLOYMENTS}/web/status", config, "ctrl")

    assert "f:status" not in owner(made, "m")
    condition = {'k:{"type":"X"}': {".": {}, "f:status": {}, "f:type": {}}}
    expected = {"f:status": {"f:conditions": condition, "f:replicas": {}}}
    assert ("ctrl", "Apply", "status", expected) in entries(made)


async def test_who_scales_owns_the_replicas_without_a_time(api: Api) -> None:
    await apply(api, f"{DEPLOYMENTS}/web", deployment(replicas=1), "m", 201)
    await api.patch(f"{DEPLOYMENTS}/web/scale?fieldManager=scaler", {"spec": {"replicas": 4}})

    made = await api.get(f"{DEPLOYMENTS}/web")
    assert "f:replicas" not in owner(made, "m")["f:spec"]
    (entry,) = [found for found in made["metadata"]["managedFields"] if found["manager"] == "scaler"]
    assert entry == {
        "manager": "scaler",
        "operation": "Update",
        "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:replicas": {}}},
        "subresource": "scale",
    }
    refused = await apply(api, f"{DEPLOYMENTS}/web", deployment(replicas=1), "m", 409)
    assert refused["message"] == (
        'Apply failed with 1 conflict: conflict with "scaler" with subresource "scale" using apps/v1: .spec.replicas'
    )
    kept = await apply(api, f"{DEPLOYMENTS}/web", deployment(), "m")
    assert (kept["spec"]["replicas"], kept["metadata"]["resourceVersion"]) == (4, made["metadata"]["resourceVersion"])


async def test_a_scale_is_applied_against_who_owns_the_replicas(api: Api) -> None:
    await apply(api, f"{DEPLOYMENTS}/web", deployment(), "m", 201)
    path = f"{DEPLOYMENTS}/web/scale"

    refused = await apply(api, path, scale(3), "scaler", 409)
    assert refused["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "before-first-apply" with subresource "scale" using autoscaling/v1',
            "field": ".spec.replicas",
        }
    ]
    assert (await apply(api, path, scale(3), "scaler", force=True))["spec"] == {"replicas": 3}
    made = await api.get(f"{DEPLOYMENTS}/web")
    assert ("scaler", "Apply", "scale", {"f:spec": {"f:replicas": {}}}) in entries(made)
    assert made["spec"]["replicas"] == 3

    refused = await apply(api, path, scale(5), "other", 409)
    assert refused["message"] == (
        'Apply failed with 1 conflict: conflict with "scaler" with subresource "scale": .spec.replicas'
    )
    await apply(api, path, scale(3), "scaler")
    assert (await api.get(f"{DEPLOYMENTS}/web"))["metadata"] == made["metadata"]


async def test_a_scale_cannot_be_applied_over_the_creators_replicas(api: Api) -> None:
    await api.create(f"{DEPLOYMENTS}?fieldManager=creator", deployment(replicas=2))
    refused = await apply(api, f"{DEPLOYMENTS}/web/scale", scale(6), "m", 409)
    assert refused["message"] == (
        'Apply failed with 1 conflict: conflict with "creator" using autoscaling/v1: .spec.replicas'
    )
    await apply(api, f"{DEPLOYMENTS}/web/scale", scale(6), "m", force=True)
    made = await api.get(f"{DEPLOYMENTS}/web")
    assert "f:replicas" not in owner(made, "creator")["f:spec"]


async def test_placing_a_pod_makes_nobody_the_owner_of_its_node(api: Api) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    made = await api.create(f"{CORE}pods?fieldManager=creator", pod)
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    await api.create(f"{CORE}pods/p/binding", binding)
    placed = await api.get(f"{CORE}pods/p")
    assert placed["spec"]["nodeName"] == "n1"
    assert entries(placed) == entries(made)


async def test_kubelet_and_creator_own_their_halves_of_a_pod(api: Api) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await api.create(f"{CORE}pods?fieldManager=creator", pod)
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    status = {"status": {"phase": "Running", "conditions": [condition]}}
    made = await api.patch(f"{CORE}pods/p/status?fieldManager=kubelet", status, media=STRATEGIC)

    assert set(owner(made, "creator")) == {"f:spec"}
    (kubelet,) = [entry for entry in entries(made) if entry[0] == "kubelet"]
    assert kubelet[1:3] == ("Update", "status")
    assert kubelet[3]["f:status"]["f:phase"] == {}
    assert '{"type":"Ready"}' in str(kubelet[3]["f:status"]["f:conditions"])


async def test_kubectl_moves_client_side_fields_to_its_applier_by_a_json_patch(api: Api) -> None:
    path = f"{CORE}configmaps/m"
    made = await api.create(
        f"{CORE}configmaps?fieldManager=kubectl-client-side-apply", config_map("m", {"a": "1", "b": "1"})
    )
    (entry,) = made["metadata"]["managedFields"]
    upgraded = {**entry, "manager": "kubectl", "operation": "Apply"}
    patch = [
        {"op": "replace", "path": "/metadata/managedFields", "value": [upgraded]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]},
    ]
    moved = await api.patch(path, patch, media="application/json-patch+json")
    assert [found[:2] for found in entries(moved)] == [("kubectl", "Apply")]
    left = await apply(api, path, config_map("m", {"a": "2"}), "kubectl")
    assert left["data"] == {"a": "2"}
