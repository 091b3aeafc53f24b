"""ephemeralcontainers and resize: each changes its part of a pod only, and is judged in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest
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


async def whole(api: Api) -> None:
    """A pod that asks as a whole (spec.resources), and runs."""
    wish = pod("p", nodeName="node1")
    wish["spec"] |= {"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "64Mi"}}}
    await api.create(CORE + "pods", wish)
    status = {"name": "main", "state": {"running": {}}, "resources": {}, "ready": True, "restartCount": 0}
    await api.patch(f"{POD}/status", {"status": {"phase": "Running", "containerStatuses": [status]}})


def whole_resized(**amounts: Any) -> dict[str, Any]:
    return {"spec": {"resources": amounts}}


async def test_what_a_pod_asks_for_as_a_whole_is_resized(api: Api) -> None:
    await whole(api)

    changed = await api.patch(f"{POD}/resize", whole_resized(limits={"cpu": "300m"}), media=STRATEGIC)

    limits = {"cpu": "300m", "memory": "64Mi"}
    assert changed["spec"]["resources"] == {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": limits}
    assert changed["metadata"]["generation"] == 2
    assert changed["spec"]["containers"][0]["resources"] == {}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        pytest.param(
            {"requests": {"cpu": None}},  # which then is as much as the limit
            'spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing',
            id="another class",
        ),
        pytest.param(
            {"limits": {"memory": None}},
            "spec.resources.limits: Forbidden: pod-level resource limits cannot be removed",
            id="a limit is not taken away",
        ),
        pytest.param(
            {"limits": {"hugepages-2Mi": "2Mi"}, "requests": {"hugepages-2Mi": "2Mi"}},
            "spec: Forbidden: only cpu and memory resources are mutable at pod-level",
            id="huge pages",
        ),
        pytest.param(
            {"limits": {"cpu": "50m"}},
            'spec.resources.requests: Invalid value: "100m": must be less than or equal to cpu limit of 50m',
            id="a limit below the request",
        ),
        pytest.param(None, "spec.resources: Forbidden: pod-level resources cannot be removed", id="all of it"),
    ],
)
async def test_what_may_not_become_of_a_pod_as_a_whole_is_named(api: Api, patch: Any, expected: str) -> None:
    await whole(api)
    body = {"spec": {"resources": patch}}

    answer = await api.patch(f"{POD}/resize", body, 422, STRATEGIC)

    assert expected in refusals(answer)


async def test_a_pod_as_a_whole_cannot_have_more_than_its_node(api: Api) -> None:
    await whole(api)
    await api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}})
    await api.patch("/api/v1/nodes/node1/status", {"status": {"allocatable": {"cpu": "2"}}})

    many = {"cpu": "100"}
    answer = await api.patch(f"{POD}/resize", whole_resized(requests=many, limits=many), 403, STRATEGIC)

    assert "cpu, requested: 100000, allocatable: 2000" in answer["message"]


async def test_an_init_container_is_resized_unless_it_would_have_to_restart(api: Api) -> None:
    wish = pod("p", nodeName="node1")
    wish["spec"]["initContainers"] = [{"name": "i", "image": "i", "resources": {"requests": {"cpu": "1"}}}]
    await api.create(CORE + "pods", wish)
    status = {"name": "main", "state": {"running": {}}, "resources": {}, "ready": True, "restartCount": 0}
    await api.patch(f"{POD}/status", {"status": {"phase": "Running", "containerStatuses": [status]}})
    init = {"name": "i", "resources": {"requests": {"cpu": "2"}}}
    policy = {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}

    refused = await api.patch(f"{POD}/resize", {"spec": {"initContainers": [init | policy]}}, 422, STRATEGIC)
    changed = await api.patch(f"{POD}/resize", {"spec": {"initContainers": [init]}}, media=STRATEGIC)

    text = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
    assert f"spec.initContainers[0]: Forbidden: {text}" in refusals(refused)
    assert changed["spec"]["initContainers"][0]["resources"] == {"requests": {"cpu": "2"}}


async def test_more_than_the_whole_node_has_is_refused_at_once(api: Api) -> None:
    await running(api, requests={"cpu": "50m"})
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}
    await api.create("/api/v1/nodes", node)
    await api.patch("/api/v1/nodes/node1/status", {"status": {"allocatable": {"cpu": "2"}}})

    answer = await api.patch(f"{POD}/resize", resized(requests={"cpu": "100"}), 403, STRATEGIC)

    text = "node didn't have enough allocatable resources: cpu, requested: 100000, allocatable: 2000"
    assert answer["message"] == f'pods "p" is forbidden: {text}'
    assert answer["details"]["causes"] == [{"reason": "NodeCapacity"}]
