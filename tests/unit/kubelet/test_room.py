"""Pods that were bound to a node which has no room for them, in the words a kubelet 1.36 wrote."""

from __future__ import annotations

from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.api.core import Pod, Taint
from minikube_raw.kubelet.admission import Refusal
from minikube_raw.kubelet.room import NodeView, Room, held
from minikube_raw.kubelet.room import first_refusal as refusal_of

ALLOCATABLE = {"cpu": "2", "memory": "24581692Ki", "ephemeral-storage": "10Gi", "pods": "3"}
NODE = NodeView("n1", ALLOCATABLE, {"disk": "ssd"})


def asking(uid: str = "u1", **requests: str) -> Pod:
    names = {name.replace("_", "-"): amount for name, amount in requests.items()}
    resources = {"requests": names} if names else {}
    return pod(metadata={"uid": uid}, containers=[{"name": "c", "image": "i", "resources": resources}])


def listening(port: int, ip: str = "", protocol: str = "TCP") -> Pod:
    ports = [{"containerPort": 80, "hostPort": port, "hostIP": ip, "protocol": protocol}]
    return pod(containers=[{"name": "c", "image": "i", "ports": ports}])


def first_refusal(wish: Pod, node: NodeView, others: list[Pod]) -> Refusal | None:
    return refusal_of(held(wish), node, [held(other) for other in others])


REFUSED = [
    pytest.param(
        asking(cpu="100"),
        [asking(cpu="1500m")],
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 100000, used: 1500, capacity: 2000",
        id="cpu",
    ),
    pytest.param(
        asking(memory="1Ti"),
        [asking(memory="24Mi")],
        "OutOfmemory",
        "Node didn't have enough resource: memory, requested: 1099511627776, used: 25165824, capacity: 25171652608",
        id="memory",
    ),
    pytest.param(
        asking(ephemeral_storage="11Gi"),
        [],
        "OutOfephemeral-storage",
        "Node didn't have enough resource: ephemeral-storage, requested: 11811160064, used: 0, capacity: 10737418240",
        id="disk",
    ),
    pytest.param(
        asking(),
        [asking("a"), asking("b"), asking("c")],
        "OutOfpods",
        "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
        id="pods",
    ),
    pytest.param(
        pod(nodeSelector={"no": "such"}),
        [],
        "NodeAffinity",
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        id="labels",
    ),
    pytest.param(
        listening(18081),
        [listening(18081, "10.0.0.1")],
        "NodePorts",
        "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        id="ports",
    ),
]


@pytest.mark.parametrize(("wish", "others", "reason", "message"), REFUSED)
def test_what_does_not_fit_is_refused_in_the_kubelets_words(wish, others, reason, message) -> None:
    refused = first_refusal(wish, NODE, others)
    assert refused is not None
    assert (refused.reason, refused.message) == (reason, message)


@pytest.mark.parametrize(
    ("wish", "others"),
    [
        pytest.param(asking(cpu="500m"), [asking(cpu="1500m")], id="exactly what is left"),
        pytest.param(pod(nodeSelector={"disk": "ssd"}), [], id="a label the node has"),
        pytest.param(listening(80, "10.0.0.1"), [listening(80, "10.0.0.2")], id="one port on two addresses"),
        pytest.param(listening(80), [listening(80, protocol="UDP")], id="one port of two protocols"),
        pytest.param(asking(**{"example.com/dev": "1"}), [], id="an extended resource nobody offers"),
    ],
)
def test_what_fits_is_admitted(wish: Pod, others: list[Pod]) -> None:
    assert first_refusal(wish, NODE, others) is None


def test_a_taint_that_evicts_refuses_and_one_that_does_not_schedule_is_the_schedulers() -> None:
    tainted = NodeView("n1", ALLOCATABLE, taints=(Taint(key="k", effect="NoExecute"),))
    refused = first_refusal(asking(), tainted, [])
    assert refused is not None
    assert refused.reason == "TaintToleration"
    assert (
        first_refusal(asking(), NodeView("n1", ALLOCATABLE, taints=(Taint(key="k", effect="NoSchedule"),)), []) is None
    )


@pytest.mark.parametrize(
    ("wish", "pressures", "admitted"),
    [
        pytest.param(asking(), ["MemoryPressure"], False, id="best effort under memory pressure"),
        pytest.param(asking(memory="1Mi"), ["MemoryPressure"], True, id="burstable under memory pressure"),
        pytest.param(asking(memory="1Mi"), ["DiskPressure"], False, id="anything under disk pressure"),
        pytest.param(pod(priority=2_000_001_000), ["DiskPressure"], True, id="critical"),
    ],
)
def test_a_node_under_pressure_takes_only_what_it_can_bear(wish: Pod, pressures: list[str], admitted: bool) -> None:
    refused = first_refusal(wish, NodeView("n1", ALLOCATABLE, pressures=pressures), [])
    assert (refused is None) is admitted
    if refused is not None:
        assert (refused.reason, refused.message) == ("Evicted", f"The node had condition: [{pressures[0]}]. ")


def test_room_is_held_until_released_and_what_runs_already_is_never_refused() -> None:
    room = Room(lambda: NODE)

    def admit(wish: Pod, **how: Any) -> bool:
        return room.refusal(wish, started=how.get("started", False)) is None

    assert admit(asking("a", cpu="2"))
    assert not admit(asking("b", cpu="1"))
    assert admit(asking("c", cpu="1"), started=True)
    assert admit(asking("a", cpu="2"))
    room.release("a")
    room.release("c")
    assert admit(asking("b", cpu="1"))


def test_a_resize_that_comes_after_the_end_takes_no_room() -> None:
    room = Room(lambda: NODE)
    wish = asking("a", cpu="1")
    room.refusal(wish, started=False)
    room.release("a")

    assert room.resize(asking("a", cpu="2")) is None
    assert not room.admitted()
