"""Filters, scores and the messages that explain them. The texts are kube-scheduler 1.36's, recorded."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from minikube_raw.api.core import Node, Pod
from minikube_raw.api.meta import decode
from minikube_raw.scheduler.decide import decide, enough
from minikube_raw.scheduler.podinfo import PodInfo, pod_info, requests
from minikube_raw.scheduler.snapshot import Snapshot

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


def pod(name: str = "p", *, owner: str = "", labels: dict | None = None, containers: list | None = None, **spec) -> Pod:
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels or {}}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    body = {"metadata": metadata, "spec": {"containers": containers or [{"name": "c"}], **spec}}
    return decode(msgspec.json.encode(body), Pod)


def asks(**requested: str) -> list:
    return [{"name": "c", "resources": {"requests": {k.replace("_", "-"): v for k, v in requested.items()}}}]


def node(
    name: str, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", labels: dict | None = None, **spec
) -> Node:
    allocatable = {"cpu": cpu, "memory": memory, "pods": pods, "ephemeral-storage": "10Gi"}
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
    return decode(
        msgspec.json.encode({"metadata": metadata, "spec": spec, "status": {"allocatable": allocatable}}), Node
    )


def cluster(*nodes: Node, placed: dict[str, list[Pod]] | None = None) -> Snapshot:
    snapshot = Snapshot()
    for each in nodes:
        snapshot.set_node(each)
    for name, pods in (placed or {}).items():
        for each in pods:
            snapshot.add_pod(pod_info(each), name)
    return snapshot


def choose(wanted: Pod | PodInfo, snapshot: Snapshot, seed: int = 0):
    info = wanted if isinstance(wanted, PodInfo) else pod_info(wanted)
    return decide(info, snapshot.nodes, rng=random.Random(seed))


def affinity(*terms: dict) -> dict:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}
HOST_PORT = [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 18111, "protocol": "TCP"}]}]


@pytest.mark.parametrize(
    ("wanted", "snapshot", "reason", "preemption"),
    [
        pytest.param(
            pod(containers=asks(cpu="64")),
            cluster(node("n", cpu="2")),
            "1 Insufficient cpu",
            f"1 {NOT_HELPFUL}",
            id="cpu",
        ),
        pytest.param(
            pod(containers=asks(cpu="64", memory="1Ti")),
            cluster(node("n")),
            "1 Insufficient cpu, 1 Insufficient memory",
            f"1 {NOT_HELPFUL}",
            id="memory-and-cpu",
        ),
        pytest.param(
            pod(containers=[{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]),
            cluster(node("n")),
            "1 Insufficient example.com/gpu",
            f"1 {NOT_HELPFUL}",
            id="extended",
        ),
        pytest.param(
            pod(containers=asks(cpu="3")),
            cluster(node("n"), placed={"n": [pod("a", containers=asks(cpu="2"))]}),
            "1 Insufficient cpu",
            f"1 {NO_VICTIMS}",
            id="cpu-in-use",
        ),
        pytest.param(pod(), cluster(node("n", pods="0")), "1 Too many pods", f"1 {NO_VICTIMS}", id="too-many-pods"),
        pytest.param(
            pod(),
            cluster(node("n", unschedulable=True)),
            "1 node(s) were unschedulable",
            f"1 {NOT_HELPFUL}",
            id="cordoned",
        ),
        pytest.param(
            pod(),
            cluster(node("n", taints=[TAINT])),
            "1 node(s) had untolerated taint(s)",
            f"1 {NOT_HELPFUL}",
            id="taint",
        ),
        pytest.param(
            pod(nodeSelector={"a": "b"}),
            cluster(node("n")),
            "1 node(s) didn't match Pod's node affinity/selector",
            f"1 {NOT_HELPFUL}",
            id="selector",
        ),
        pytest.param(
            pod(affinity=affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["other"]}]})),
            cluster(node("n")),
            "1 node(s) didn't satisfy plugin(s) [NodeAffinity]",
            f"1 {NOT_HELPFUL}",
            id="by-name",
        ),
        pytest.param(
            pod(containers=HOST_PORT),
            cluster(node("n"), placed={"n": [pod("a", containers=HOST_PORT)]}),
            "1 node(s) didn't have free ports for the requested pod ports",
            f"1 {NO_VICTIMS}",
            id="host-port",
        ),
    ],
)
def test_a_pod_that_fits_nowhere_is_told_why_in_kube_schedulers_words(wanted, snapshot, reason, preemption):
    decision = choose(wanted, snapshot)
    assert decision.node is None
    assert decision.unschedulable.message == (
        f"0/1 nodes are available: {reason}. no new claims to deallocate, "
        f"preemption: 0/1 nodes are available: {preemption}."
    )


def test_reasons_of_several_nodes_are_counted_and_sorted():
    snapshot = cluster(
        node("node1", cpu="2"),
        node("f1", pods="0"),
        node("f2", taints=[TAINT]),
        node("f3", unschedulable=True),
        node("f4"),
        placed={"f4": [pod("a", containers=asks(cpu="3"))]},
    )
    assert choose(pod(containers=asks(cpu="3")), snapshot).unschedulable.message == (
        "0/5 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, "
        "2 Insufficient cpu. no new claims to deallocate, preemption: 0/5 nodes are available: "
        "2 No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling."
    )


def test_without_nodes_there_is_a_sentence_of_its_own():
    assert choose(pod(), Snapshot()).unschedulable.message == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        pytest.param({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}, True, id="equal"),
        pytest.param({"key": "k", "value": "v"}, True, id="any-effect-default-operator"),
        pytest.param({"key": "k", "operator": "Exists"}, True, id="exists"),
        pytest.param({"operator": "Exists"}, True, id="everything"),
        pytest.param({"key": "k", "value": "other"}, False, id="other-value"),
        pytest.param({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False, id="other-effect"),
    ],
)
def test_tolerations(toleration, fits):
    snapshot = cluster(node("n", taints=[TAINT]))
    assert (choose(pod(tolerations=[toleration]), snapshot).node == "n") is fits


@pytest.mark.parametrize(
    ("expressions", "chosen"),
    [
        pytest.param([{"key": "zone", "operator": "In", "values": ["a"]}], {"a"}, id="In"),
        pytest.param([{"key": "zone", "operator": "NotIn", "values": ["a"]}], {"b", "none"}, id="NotIn"),
        pytest.param([{"key": "zone", "operator": "Exists"}], {"a", "b"}, id="Exists"),
        pytest.param([{"key": "zone", "operator": "DoesNotExist"}], {"none"}, id="DoesNotExist"),
        pytest.param([{"key": "size", "operator": "Gt", "values": ["5"]}], {"b"}, id="Gt"),
        pytest.param([{"key": "size", "operator": "Lt", "values": ["5"]}], {"a"}, id="Lt"),
        pytest.param([], set(), id="an empty term matches nothing"),
    ],
)
def test_required_node_affinity(expressions, chosen):
    nodes = [node("a", labels={"zone": "a", "size": "3"}), node("b", labels={"zone": "b", "size": "9"}), node("none")]
    wanted = pod(affinity=affinity({"matchExpressions": expressions}))
    assert {each.metadata.name for each in nodes if choose(wanted, cluster(each)).node} == chosen


def test_terms_are_alternatives_and_the_node_selector_must_hold_as_well():
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in "ab"]
    wanted = pod(affinity=affinity(*terms), nodeSelector={"disk": "ssd"})
    assert choose(wanted, cluster(node("n", labels={"zone": "b", "disk": "ssd"}))).node == "n"
    assert choose(wanted, cluster(node("n", labels={"zone": "b"}))).node is None


@pytest.mark.parametrize(
    ("taken", "wanted", "fits"),
    [
        pytest.param({}, {}, False, id="same"),
        pytest.param({"protocol": "UDP"}, {}, True, id="other-protocol"),
        pytest.param({"hostIP": "10.0.0.1"}, {"hostIP": "10.0.0.2"}, True, id="other-address"),
        pytest.param({"hostIP": "10.0.0.1"}, {}, False, id="all-addresses-after-one"),
        pytest.param({}, {"hostIP": "10.0.0.1"}, False, id="one-address-after-all"),
    ],
)
def test_host_ports_overlap_by_protocol_and_address(taken, wanted, fits):
    def with_port(name: str, port: dict) -> Pod:
        return pod(name, containers=[{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, **port}]}])

    snapshot = cluster(node("n"), placed={"n": [with_port("a", taken)]})
    assert (choose(with_port("b", wanted), snapshot).node == "n") is fits


def test_requests_are_those_of_the_most_demanding_moment():
    containers = [{"name": n, "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}} for n in "ab"]
    init = [
        {"name": "sidecar", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
        {"name": "once", "resources": {"requests": {"cpu": "300m"}}},
    ]
    assert requests(pod(containers=containers, initContainers=init, overhead={"cpu": "10m"})) == {
        "cpu": 360,  # the init container with the sidecar beside it, and the overhead
        "memory": 2 << 20,
    }


def test_pods_without_requests_spread_over_empty_nodes():
    snapshot = cluster(*(node(name) for name in "abc"))
    places = Counter()
    for number in range(9):
        info = pod_info(pod(f"p{number}"))
        chosen = choose(info, snapshot, seed=number).node
        snapshot.add_pod(info, chosen)
        places[chosen] += 1
    assert set(places.values()) == {3}


def test_replicas_of_one_controller_keep_apart_even_where_one_node_is_emptier():
    busy = [pod(f"x{number}", containers=asks(cpu="100m", memory="200Mi")) for number in range(2)]
    snapshot = cluster(node("full"), node("empty"), placed={"full": busy, "empty": [pod("r0", owner="rs")]})
    assert choose(pod("r1", owner="rs"), snapshot).node == "full"


def test_prefer_no_schedule_is_avoided_but_not_forbidden():
    taint = {"key": "k", "effect": "PreferNoSchedule"}
    assert choose(pod(), cluster(node("a", taints=[taint]), node("b"))).node == "b"
    assert choose(pod(), cluster(node("a", taints=[taint]))).node == "a"


def test_preferred_affinity_counts_by_weight():
    def preferring(**weights: int) -> dict:
        entries = [
            {"weight": w, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": [z]}]}}
            for z, w in weights.items()
        ]
        return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": entries}}

    snapshot = cluster(node("a", labels={"zone": "a"}), node("b", labels={"zone": "b"}))
    assert choose(pod(affinity=preferring(a=10, b=90)), snapshot).node == "b"
    assert choose(pod(affinity=preferring(a=90, b=10)), snapshot).node == "a"


def test_a_pod_counts_until_it_is_removed_wherever_it_moves():
    snapshot = cluster(node("a", cpu="1"), node("b", cpu="1"))
    first, second = pod_info(pod("p", containers=asks(cpu="1"))), pod_info(pod("q", containers=asks(cpu="1")))
    snapshot.add_pod(first, "a")
    snapshot.add_pod(first, "b")
    assert choose(second, snapshot).node == "a"
    snapshot.add_pod(second, "a")
    assert choose(pod("r", containers=asks(cpu="1")), snapshot).node is None
    assert snapshot.remove_pod("p")
    assert not snapshot.remove_pod("p")
    assert choose(pod("r", containers=asks(cpu="1")), snapshot).node == "b"


def test_pods_on_a_node_not_heard_of_yet_count_once_it_appears():
    snapshot = Snapshot()
    snapshot.add_pod(pod_info(pod("p", containers=asks(cpu="1"))), "late")
    assert snapshot.nodes == []
    snapshot.set_node(node("late", cpu="1"))
    assert choose(pod("q", containers=asks(cpu="1")), snapshot).node is None
    snapshot.remove_node("late")
    assert snapshot.nodes == []


def test_big_clusters_are_sampled_and_every_node_has_its_turn():
    assert [enough(count) for count in (3, 99, 100, 1000, 5000, 20000)] == [3, 99, 100, 420, 500, 1000]
    snapshot = cluster(*(node(f"n{number}") for number in range(300)))
    decision = decide(pod_info(pod()), snapshot.nodes, start=290, rng=random.Random(0))
    assert decision.examined == enough(300) == 144
