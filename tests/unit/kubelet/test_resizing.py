"""In-place resize: what is allocated, what the cgroups get, and what the pod's status and Events say meanwhile."""

from __future__ import annotations

from typing import Any

import msgspec
from pod_builders import pod
from worked_node import Node

from minikube_raw.api.core import Pod
from minikube_raw.kubelet.room import NodeView, Room


def asking(generation: int = 1, uid: str = "u1", policy: Any = (), **amounts: Any) -> Pod:
    container = {"name": "c", "image": "busybox", "resources": amounts, "resizePolicy": list(policy)}
    return pod(containers=[container], metadata={"generation": generation, "uid": uid, "name": f"p-{uid}"})


SMALL = {"requests": {"cpu": "50m"}, "limits": {"cpu": "100m"}}
LARGE = {"requests": {"cpu": "80m"}, "limits": {"cpu": "200m"}}


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    wanted = [each for each in status["conditions"] if each["type"].startswith("PodResize")]
    return {each["type"]: (each.get("reason", ""), each.get("message", "")) for each in wanted}


async def running(node: Node, eventually: Any, wish: Pod) -> None:
    node.workers.update(wish)
    await eventually(lambda: node.state == "running")


async def test_cpu_changes_in_the_cgroups_of_a_running_container(node, eventually) -> None:
    await running(node, eventually, asking(**SMALL))

    node.workers.update(asking(2, **LARGE))
    await eventually(lambda: "ResizeCompleted" in node.events)

    between = next(each for each in node.statuses if "PodResizeInProgress" in conditions(each))
    assert between["containerStatuses"][0]["allocatedResources"] == {"cpu": "80m"}
    assert between["containerStatuses"][0]["resources"] == {"limits": {"cpu": "100m"}, "requests": {"cpu": "50m"}}
    await eventually(lambda: not conditions(node.statuses[-1]))
    assert node.container["resources"] == {"limits": {"cpu": "200m"}, "requests": {"cpu": "80m"}}
    assert node.container["restartCount"] == 0
    assert "update_container_resources" in str(node.runtime.calls)
    assert node.events.index("ResizeStarted") < node.events.index("ResizeCompleted")


async def test_what_is_to_restart_for_its_change_restarts(node, eventually) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    await running(node, eventually, asking(policy=policy, limits={"memory": "32Mi"}, requests={"memory": "16Mi"}))

    node.workers.update(asking(2, policy=policy, limits={"memory": "48Mi"}, requests={"memory": "24Mi"}))
    await eventually(lambda: "ResizeCompleted" in node.events)

    await eventually(lambda: node.container["restartCount"] == 1 and not conditions(node.statuses[-1]))
    assert node.container["resources"] == {"limits": {"memory": "48Mi"}, "requests": {"memory": "24Mi"}}
    assert node.events.count("Killing") == 1


def small_node() -> Room:
    return Room(lambda: NodeView(name="n1", allocatable={"cpu": "2", "memory": "1Gi", "pods": "10"}))


async def test_a_wish_without_room_waits_until_another_pod_is_gone(node, eventually) -> None:
    node.use(msgspec.structs.replace(node.tools, room=small_node()))
    node.workers.update(asking(uid="u2", requests={"cpu": "1500m"}))
    await running(node, eventually, asking(**SMALL))

    node.workers.update(asking(2, requests={"cpu": "1"}, limits={"cpu": "1"}))
    waiting = "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
    await eventually(lambda: conditions(node.statuses[-1]) == {"PodResizePending": ("Deferred", waiting)})
    told = (
        'Warning ResizeDeferred Pod resize OutOfcpu: {"containers":[{"name":"c","resources":'
        '{"limits":{"cpu":"1"},"requests":{"cpu":"1"}}}],"generation":2,"error":"' + waiting + '"}'
    )
    assert told in node.events
    node.workers.remove("u2")

    await eventually(lambda: "ResizeCompleted" in node.events)


async def test_more_than_the_node_has_is_infeasible_and_changes_nothing(node, eventually) -> None:
    node.use(msgspec.structs.replace(node.tools, room=small_node()))
    await running(node, eventually, asking(**SMALL))

    node.workers.update(asking(2, requests={"cpu": "3"}, limits={"cpu": "3"}))

    text = "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
    await eventually(lambda: conditions(node.statuses[-1]) == {"PodResizePending": ("Infeasible", text)})
    assert node.container["allocatedResources"] == {"cpu": "50m"}
    assert "update_container_resources" not in str(node.runtime.calls)


async def test_a_kubelet_that_was_away_finishes_what_was_asked_meanwhile(node, eventually) -> None:
    await running(node, eventually, asking(**SMALL))
    node.use(node.tools)

    node.workers.update(asking(2, **LARGE))

    await eventually(lambda: "ResizeCompleted" in node.events)
    assert node.container["restartCount"] == 0
