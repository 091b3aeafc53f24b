"""A node that falls silent, comes back, or goes for good; and the ranges nodes get."""

from __future__ import annotations

import asyncio

import pytest
from simulated import bare_pod, deployment

from minikube_raw.api.core import Node
from minikube_raw.api.meta import condition
from minikube_raw.client.resources import DEPLOYMENTS, NODES, PODS
from minikube_raw.controllers.options import Options


@pytest.fixture
def options() -> Options:
    return Options(root_ca="CERTIFICATE", eviction_seconds=10, orphan_pods_seconds=40)


@pytest.fixture
async def cluster(master):
    for name in ("n1", "n2"):
        await master.kubelets.join(name)
    return master


def ready(node: Node | None) -> str:
    found = condition(node.status.conditions, "Ready") if node is not None else None
    return found.status if found is not None else ""


def taints(node: Node | None) -> set[str]:
    assert node is not None
    return {f"{taint.key.removeprefix('node.kubernetes.io/')}:{taint.effect}" for taint in node.spec.taints}


async def pass_time(cluster, condition_, step: float = 2.0) -> None:
    """Let time go on, with the heartbeats of all living nodes, until the condition holds."""
    async with asyncio.timeout(20):
        while not condition_():
            cluster.clock.advance(step)
            await cluster.kubelets.heartbeat()
            await asyncio.sleep(0.005)


async def test_every_node_gets_a_range_of_its_own_and_loses_its_first_taint(cluster, eventually):
    await eventually(lambda: all(cluster.node(name).spec.pod_cidr for name in ("n1", "n2")))
    assert {cluster.node(name).spec.pod_cidr for name in ("n1", "n2")} == {"10.244.0.0/24", "10.244.1.0/24"}
    assert cluster.node("n1").spec.pod_cidrs == (cluster.node("n1").spec.pod_cidr,)
    await eventually(lambda: taints(cluster.node("n1")) == set())


async def test_a_silent_node_is_unknown_tainted_and_its_pods_come_back_elsewhere(cluster, eventually):
    await cluster.apply(deployment(replicas=4))
    await eventually(cluster.rolled_out)
    lost = {pod.metadata.name for pod in cluster.pods() if pod.spec.node_name == "n1"}
    assert lost
    cluster.kubelets.alive.discard("n1")
    await pass_time(cluster, lambda: ready(cluster.node("n1")) == "Unknown")
    found = condition(cluster.node("n1").status.conditions, "Ready")
    assert (found.reason, found.message) == ("NodeStatusUnknown", "Kubelet stopped posting node status.")
    never = condition(cluster.node("n1").status.conditions, "MemoryPressure")
    assert (never.reason, never.message) == ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
    await eventually(lambda: taints(cluster.node("n1")) == {"unreachable:NoSchedule", "unreachable:NoExecute"})
    await eventually(lambda: cluster.deployment().status.ready_replicas == 4 - len(lost))
    assert ready(cluster.node("n2")) == "True"
    await pass_time(cluster, lambda: cluster.rolled_out() and cluster.places() == {"n2": 4})
    await pass_time(cluster, lambda: not lost & {pod.metadata.name for pod in cluster.pods()})
    assert await cluster.events("NodeNotReady", "n1") == ["Node n1 status is now: NodeNotReady"]
    assert await cluster.events("NodeNotReady", sorted(lost)[0]) == ["Node is not ready"]
    assert await cluster.events("TaintManagerEviction", sorted(lost)[0]) == [
        f"Marking for deletion Pod default/{sorted(lost)[0]}"
    ]


async def test_a_node_that_comes_back_in_time_keeps_its_pods(cluster, eventually):
    await cluster.apply(bare_pod("stays", nodeName="n1"))
    await eventually(lambda: cluster.pods() and cluster.pods()[0].status.phase == "Running")
    cluster.kubelets.alive.discard("n1")
    await pass_time(cluster, lambda: ready(cluster.node("n1")) == "Unknown")
    await cluster.kubelets.resume("n1")
    await eventually(lambda: taints(cluster.node("n1")) == set())
    for _ in range(10):
        cluster.clock.advance(5)
        await cluster.kubelets.heartbeat()
    await cluster.client.get(PODS, "stays", "default")
    assert ready(cluster.node("n1")) == "True"


async def test_a_jump_of_the_date_makes_no_node_unknown(cluster, eventually):
    await cluster.apply(deployment(replicas=2))
    await eventually(cluster.rolled_out)
    cluster.clock.jump(3600)
    await cluster.kubelets.heartbeat()
    cluster.clock.advance(30)
    await cluster.kubelets.heartbeat()
    cluster.clock.advance(30)
    await cluster.apply(deployment("marker", replicas=1))
    await eventually(lambda: cluster.rolled_out("marker"))
    assert ready(cluster.node("n1")) == ready(cluster.node("n2")) == "True"


async def test_a_cordoned_node_is_tainted_and_gets_nothing_new(cluster, eventually):
    await cluster.client.patch(NODES, "n1", {"spec": {"unschedulable": True}})
    await eventually(lambda: taints(cluster.node("n1")) == {"unschedulable:NoSchedule"})
    await cluster.apply(deployment(replicas=4))
    await eventually(cluster.rolled_out)
    assert cluster.places() == {"n2": 4}
    await cluster.client.patch(NODES, "n1", {"spec": {"unschedulable": None}})
    await eventually(lambda: taints(cluster.node("n1")) == set())


async def test_no_execute_evicts_by_toleration(cluster, eventually):
    seconds = {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 4}
    for name, tolerations in (("none", []), ("four", [seconds]), ("stay", [{"key": "k", "operator": "Exists"}])):
        await cluster.apply(bare_pod(name, nodeName="n1", tolerations=tolerations))
    await eventually(lambda: [pod.status.phase for pod in cluster.pods()] == ["Running"] * 3)
    await cluster.client.patch(NODES, "n1", {"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}})
    await eventually(lambda: {pod.metadata.name for pod in cluster.pods()} == {"four", "stay"})
    cluster.clock.advance(3.9)
    await cluster.client.get(PODS, "four", "default")
    cluster.clock.advance(0.2)
    await eventually(lambda: {pod.metadata.name for pod in cluster.pods()} == {"stay"})


async def test_pods_of_a_node_that_was_deleted_are_collected_and_its_range_is_free(cluster, eventually):
    await cluster.apply(deployment(replicas=2))
    await eventually(cluster.rolled_out)
    await eventually(lambda: cluster.node("n1").spec.pod_cidr)
    cidr = cluster.node("n1").spec.pod_cidr
    cluster.kubelets.alive.discard("n1")
    await cluster.client.delete(NODES, "n1")
    await pass_time(cluster, lambda: cluster.rolled_out() and cluster.places() == {"n2": 2}, step=10)
    assert await cluster.events("RemovingNode") == ["Node n1 event: Removing Node n1 from Controller"]
    await cluster.kubelets.join("n3")
    await eventually(lambda: cluster.node("n3").spec.pod_cidr)
    assert cluster.node("n3").spec.pod_cidr not in (cidr, cluster.node("n2").spec.pod_cidr), (
        "reused as late as possible"
    )


async def test_a_deployment_of_a_dead_cluster_waits_for_a_node(cluster, eventually):
    for name in ("n1", "n2"):
        await cluster.client.delete(NODES, name)
    await eventually(lambda: cluster.node("n1") is None and cluster.node("n2") is None)
    await cluster.apply(deployment(replicas=1))
    await eventually(lambda: cluster.pods() and cluster.pods()[0].status.conditions)
    assert cluster.pods()[0].status.conditions[0].message == "no nodes available to schedule pods"
    await cluster.kubelets.join("n9")
    await eventually(lambda: cluster.clock.advance(0.1) or cluster.rolled_out())
    assert (await cluster.client.get(DEPLOYMENTS, "web", "default")).status.available_replicas == 1
