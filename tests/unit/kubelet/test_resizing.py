"""In-place resize: what is allocated, what the cgroups get, and what the pod's status and Events say meanwhile."""

from __future__ import annotations

from typing import Any

import msgspec
from pod_builders import pod
from worked_node import Node, with_status

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


async def fill(node: Node, eventually: Any) -> None:
    """Has a small node run two pods, the other one of which takes most of it."""
    node.use(msgspec.structs.replace(node.tools, room=small_node()))
    for wish in (asking(uid="u2", requests={"cpu": "1500m"}), asking(**SMALL)):
        node.workers.update(wish)
    await eventually(
        lambda: len([each for each in node.runtime.containers.values() if each.state.name == "RUNNING"]) == 2
    )


async def test_a_wish_without_room_waits_until_another_pod_is_gone(node, eventually) -> None:
    await fill(node, eventually)
    node.workers.update(asking(2, requests={"cpu": "1"}, limits={"cpu": "1"}))
    waiting = "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
    await eventually(lambda: {"PodResizePending": ("Deferred", waiting)} in map(conditions, node.statuses))
    told = (
        'Warning ResizeDeferred Pod resize OutOfcpu: {"containers":[{"name":"c","resources":'
        '{"limits":{"cpu":"1"},"requests":{"cpu":"1"}}}],"generation":2,"error":"' + waiting + '"}'
    )
    assert told in node.events
    node.workers.remove("u2")

    await eventually(lambda: "ResizeCompleted" in node.events)


async def test_a_wish_without_room_waits_until_another_pod_takes_less(node, eventually) -> None:
    await fill(node, eventually)
    node.workers.update(asking(2, requests={"cpu": "1"}, limits={"cpu": "1"}))
    await eventually(lambda: any("PodResizePending" in conditions(each) for each in node.statuses))

    node.workers.update(asking(2, uid="u2", requests={"cpu": "1"}))

    await eventually(lambda: node.events.count("ResizeCompleted") == 2)


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


def whole(generation: int = 1, policy: Any = (), **amounts: Any) -> Pod:
    """A pod that asks as a whole (spec.resources); its container says nothing."""
    container = {"name": "c", "image": "busybox", "resizePolicy": list(policy)}
    meta = {"generation": generation, "uid": "u1", "name": "p-u1"}
    return pod(containers=[container], metadata=meta, resources=amounts)


AT_FIRST = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
LATER = {"requests": {"cpu": "150m", "memory": "32Mi"}, "limits": {"cpu": "300m", "memory": "64Mi"}}


async def test_a_pod_as_a_whole_is_resized_with_what_its_containers_take_from_it(node, eventually) -> None:
    await running(node, eventually, whole(**AT_FIRST))
    assert node.statuses[-1]["resources"] == AT_FIRST
    assert node.statuses[-1]["allocatedResources"] == AT_FIRST["requests"]

    node.workers.update(whole(2, **LATER))
    await eventually(lambda: "ResizeCompleted" in node.events and not conditions(node.statuses[-1]))

    between = next(each for each in node.statuses if "PodResizeInProgress" in conditions(each))
    assert (between["allocatedResources"], between["resources"]) == (LATER["requests"], AT_FIRST)
    assert node.statuses[-1]["resources"] == LATER
    assert (node.container["resources"], node.container["restartCount"]) == ({}, 0)
    assert node.runtime.named("c").resources.cpu_quota == 30_000  # its pod's limit


async def test_a_container_restarts_for_its_pods_limit_when_its_policy_says_so(node, eventually) -> None:
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    await running(node, eventually, whole(policy=policy, **AT_FIRST))

    node.workers.update(whole(2, policy=policy, **LATER))

    await eventually(lambda: "ResizeCompleted" in node.events and node.container["restartCount"] == 1)
    assert node.runtime.named("c").resources.cpu_quota == 30_000
    await eventually(lambda: node.statuses[-1]["resources"] == LATER)


async def test_a_pod_as_a_whole_waits_for_room(node, eventually) -> None:
    node.use(msgspec.structs.replace(node.tools, room=small_node()))
    await running(node, eventually, whole(**AT_FIRST))

    node.workers.update(whole(2, requests={"cpu": "3", "memory": "32Mi"}, limits={"cpu": "3", "memory": "64Mi"}))

    text = "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
    await eventually(lambda: conditions(node.statuses[-1]) == {"PodResizePending": ("Infeasible", text)})
    assert node.statuses[-1]["resources"] == AT_FIRST
    assert any('{"resources":{"limits":{"cpu":"3","memory":"64Mi"}' in each for each in node.events)


async def test_a_kubelet_that_was_away_knows_what_the_pod_as_a_whole_was_given(node, eventually) -> None:
    await running(node, eventually, whole(**AT_FIRST))
    shown = node.statuses[-1]
    node.use(node.tools)

    node.workers.update(with_status(whole(2, **LATER), shown))

    await eventually(lambda: "ResizeCompleted" in node.events)
    between = next(each for each in node.statuses if "PodResizeInProgress" in conditions(each))
    assert between["resources"] == AT_FIRST
