"""ephemeralcontainers and resize: each changes its part of a pod only, and is judged in Kubernetes' words."""

from __future__ import annotations

from typing import Any

from served_api import CORE, STRATEGIC, Api, pod

POD = f"{CORE}pods/p"


async def running(api: Api, **resources: Any) -> Any:
    """A pod that a node runs."""
    wish = pod("p", nodeName="node1")
    wish["spec"]["containers"][0] |= {"resources": resources}
    made = await api.create(CORE + "pods", wish)
    resources = made["spec"]["containers"][0]["resources"]
    status = {"name": "main", "state": {"running": {}}, "resources": resources, "ready": True, "restartCount": 0}
    await api.patch(f"{POD}/status", {"status": {"phase": "Running", "containerStatuses": [status]}})
    return made


def debugger(**more: Any) -> dict[str, Any]:
    return {"spec": {"ephemeralContainers": [{"name": "dbg", "image": "i", **more}]}}


def resized(**amounts: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "main", "resources": amounts}]}}


def refusals(answer: Any) -> list[str]:
    return [f"{each['field']}: {each['message']}" for each in answer["details"]["causes"]]


async def test_an_ephemeral_container_is_added_and_nothing_else_changes(api: Api) -> None:
    await running(api)
    patch = debugger(targetContainerName="main") | {"metadata": {"labels": {"sneaky": "yes"}}}

    changed = await api.patch(f"{POD}/ephemeralcontainers", patch, media=STRATEGIC)

    assert changed["metadata"]["generation"] == 2
    assert "labels" not in changed["metadata"]
    assert changed["spec"]["ephemeralContainers"][0]["terminationMessagePath"] == "/dev/termination-log"
    assert (await api.get(f"{POD}/ephemeralcontainers"))["spec"] == changed["spec"]


async def test_a_put_of_ephemeral_containers_adds_to_them(api: Api) -> None:
    held = await running(api)
    held = await api.patch(f"{POD}/ephemeralcontainers", debugger(), media=STRATEGIC)
    held["spec"]["ephemeralContainers"].append({"name": "second", "image": "i"})

    changed = await api.update(f"{POD}/ephemeralcontainers", held)

    assert [each["name"] for each in changed["spec"]["ephemeralContainers"]] == ["dbg", "second"]


async def test_what_an_ephemeral_container_may_not_have_is_named(api: Api) -> None:
    await running(api)
    bad = {"ports": [{"containerPort": 1}], "livenessProbe": {"tcpSocket": {"port": 1}}, "targetContainerName": "zz"}

    answer = await api.patch(f"{POD}/ephemeralcontainers", debugger(**bad) | {}, 422, STRATEGIC)
    twice = await api.patch(f"{POD}/ephemeralcontainers", debugger(name="main"), 422, STRATEGIC)

    path = "spec.ephemeralContainers[0]"
    assert refusals(answer) == [
        f'{path}.targetContainerName: Not found: "zz"',
        f"{path}.ports: Forbidden: cannot be set for an Ephemeral Container",
        f"{path}.livenessProbe: Forbidden: cannot be set for an Ephemeral Container",
    ]
    assert refusals(twice) == [f'{path}.name: Duplicate value: "main"']


async def test_an_ephemeral_container_is_never_changed_nor_removed(api: Api) -> None:
    await running(api)
    held = await api.patch(f"{POD}/ephemeralcontainers", debugger(), media=STRATEGIC)

    changed = await api.patch(f"{POD}/ephemeralcontainers", debugger(image="j"), 422, STRATEGIC)
    held["spec"].pop("ephemeralContainers")
    removed = await api.update(f"{POD}/ephemeralcontainers", held, 422)

    path = 'spec.ephemeralContainers: Forbidden: existing ephemeral containers "dbg" may not be'
    assert refusals(changed)[0].startswith(f"{path} changed")
    assert refusals(removed)[0].startswith(f"{path} removed")


async def test_a_resize_changes_resources_and_nothing_else(api: Api) -> None:
    await running(api, requests={"cpu": "50m"}, limits={"cpu": "100m"})
    patch = resized(requests={"cpu": "80m"}, limits={"cpu": "200m"})
    patch["spec"]["containers"][0]["image"] = "sneaky"

    changed = await api.patch(f"{POD}/resize", patch, media=STRATEGIC)

    (container,) = changed["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "80m"}, "limits": {"cpu": "200m"}}
    assert (container["image"], changed["metadata"]["generation"]) == ("busybox", 2)


async def test_a_resize_keeps_the_class_and_removes_nothing(api: Api) -> None:
    await running(api, requests={"cpu": "50m"}, limits={"cpu": "1"})

    answer = await api.patch(f"{POD}/resize", resized(requests=None, limits=None), 422, STRATEGIC)

    path = "spec.containers[0].resources"
    assert refusals(answer) == [
        'spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing',
        f"{path}.requests: Forbidden: resource requests cannot be removed",
        f"{path}.limits: Forbidden: resource limits cannot be removed",
    ]


async def test_a_pod_that_no_node_runs_is_not_resized(api: Api) -> None:
    wish = pod("p")
    wish["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
    await api.create(CORE + "pods", wish)

    answer = await api.patch(f"{POD}/resize", resized(requests={"cpu": "2"}), 422, STRATEGIC)

    assert refusals(answer) == ["spec: Forbidden: Pod running on node without support for resize"]


async def test_more_than_the_whole_node_has_is_refused_at_once(api: Api) -> None:
    await running(api, requests={"cpu": "50m"})
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}
    await api.create("/api/v1/nodes", node)
    await api.patch("/api/v1/nodes/node1/status", {"status": {"allocatable": {"cpu": "2"}}})

    answer = await api.patch(f"{POD}/resize", resized(requests={"cpu": "100"}), 403, STRATEGIC)

    text = "node didn't have enough allocatable resources: cpu, requested: 100000, allocatable: 2000"
    assert answer["message"] == f'pods "p" is forbidden: {text}'
    assert answer["details"]["causes"] == [{"reason": "NodeCapacity"}]
