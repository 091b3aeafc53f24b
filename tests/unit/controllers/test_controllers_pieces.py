"""The small pure parts of the controllers: ranking, taints, ranges, expectations, the owner graph."""

from __future__ import annotations

import msgspec
import pytest

from minikube_raw.api.core import Node, Pod, Taint, Toleration
from minikube_raw.api.meta import ObjectMeta, OwnerReference, decode
from minikube_raw.client.clock import ManualClock, timestamp
from minikube_raw.client.resources import PODS
from minikube_raw.controllers.expectations import TIMEOUT, Expectations
from minikube_raw.controllers.nodeipam import Ranges
from minikube_raw.controllers.nodetaints import reconciled, tolerated_for
from minikube_raw.controllers.ownergraph import OwnerGraph
from minikube_raw.controllers.podcontrol import slow_start
from minikube_raw.controllers.pods import available_in, to_delete

NOW = 1_700_000_000.0


def pod(
    name: str,
    *,
    node: str = "n",
    phase: str = "Running",
    ready: float | None = 100,
    age: float = 100,
    restarts: int = 0,
    cost: str = "",
) -> Pod:
    conditions = (
        [] if ready is None else [{"type": "Ready", "status": "True", "lastTransitionTime": timestamp(NOW - ready)}]
    )
    annotations = {"controller.kubernetes.io/pod-deletion-cost": cost} if cost else {}
    status = {"phase": phase, "conditions": conditions, "containerStatuses": [{"restartCount": restarts}]}
    metadata = {"name": name, "uid": name, "annotations": annotations, "creationTimestamp": timestamp(NOW - age)}
    return decode(msgspec.json.encode({"metadata": metadata, "spec": {"nodeName": node}, "status": status}), Pod)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(pod("x", node="", ready=None), pod("y"), id="without a node"),
        pytest.param(pod("x", phase="Pending", ready=None), pod("y"), id="pending"),
        pytest.param(pod("x", ready=None), pod("y"), id="not ready"),
        pytest.param(pod("x", cost="-5"), pod("y"), id="cheap to lose"),
        pytest.param(pod("x", ready=10), pod("y", ready=1000), id="ready for a short time"),
        pytest.param(pod("x", restarts=3), pod("y"), id="restarted often"),
        pytest.param(pod("x", age=10), pod("y", age=10000), id="young"),
        pytest.param(pod("x", ready=None, cost="9"), pod("y", cost="-9"), id="readiness before cost"),
    ],
)
def test_which_pod_goes_first(first, second):
    assert to_delete([second, first], 1, [], NOW) == [first]


def test_the_crowded_node_loses_a_pod_first():
    lonely, crowded = pod("a", node="one"), pod("b", node="many")
    assert to_delete([lonely, crowded], 1, [lonely, crowded, pod("c", node="many")], NOW) == [crowded]


def test_a_pod_is_available_once_it_was_ready_long_enough():
    assert available_in(pod("p", ready=10), 0, NOW) == 0
    assert available_in(pod("p", ready=10), 30, NOW) == 20
    assert available_in(pod("p", ready=None), 0, NOW) is None


async def test_a_failure_is_met_once_and_not_for_every_replica():
    calls = []

    async def step() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise OSError("quota")

    assert len(await slow_start(100, step)) == 4
    assert len(calls) == 7  # 1 + 2 + 4, and no further batch


def node(*, ready: str = "True", taints: list | None = None, unschedulable: bool = False, **conditions: str) -> Node:
    entries = [{"type": "Ready", "status": ready}] + [{"type": k, "status": v} for k, v in conditions.items()]
    spec = {"taints": taints or [], "unschedulable": unschedulable}
    return decode(msgspec.json.encode({"spec": spec, "status": {"conditions": entries}}), Node)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param(node(), [], id="healthy"),
        pytest.param(node(ready="Unknown"), ["unreachable:NoSchedule", "unreachable:NoExecute"], id="unknown"),
        pytest.param(node(ready="False"), ["not-ready:NoSchedule", "not-ready:NoExecute"], id="not ready"),
        pytest.param(node(unschedulable=True), ["unschedulable:NoSchedule"], id="cordoned"),
        pytest.param(node(MemoryPressure="True"), ["memory-pressure:NoSchedule"], id="memory"),
        pytest.param(
            node(taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]), [], id="recovered"
        ),
    ],
)
def test_taints_follow_conditions(view, expected):
    found = [f"{taint.key.removeprefix('node.kubernetes.io/')}:{taint.effect}" for taint in reconciled(view, NOW)]
    assert found == expected


def test_taints_of_others_and_the_time_of_ours_are_kept():
    others = {"key": "k", "value": "v", "effect": "NoSchedule"}
    ours = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule", "timeAdded": "2020-01-01T00:00:00Z"}
    found = reconciled(node(ready="Unknown", taints=[others, ours]), NOW)
    assert [(taint.key, taint.time_added) for taint in found] == [
        ("k", None),
        ("node.kubernetes.io/unreachable", "2020-01-01T00:00:00Z"),
        ("node.kubernetes.io/unreachable", timestamp(NOW)),
    ]


UNREACHABLE = Taint(key="node.kubernetes.io/unreachable", effect="NoExecute")


@pytest.mark.parametrize(
    ("tolerations", "override", "expected"),
    [
        pytest.param([], None, 0.0, id="not at all"),
        pytest.param([Toleration(operator="Exists")], None, None, id="for ever"),
        pytest.param([Toleration(operator="Exists")], 5.0, None, id="for ever, whatever is set"),
        pytest.param(
            [Toleration(key=UNREACHABLE.key, operator="Exists", toleration_seconds=300)],
            None,
            300.0,
            id="the pod's time",
        ),
        pytest.param(
            [Toleration(key=UNREACHABLE.key, operator="Exists", toleration_seconds=300)], 5.0, 5.0, id="the lab's time"
        ),
        pytest.param(
            [Toleration(operator="Exists", toleration_seconds=9), Toleration(operator="Exists", toleration_seconds=4)],
            None,
            4.0,
            id="the shortest",
        ),
        pytest.param([Toleration(operator="Exists", toleration_seconds=-1)], None, 0.0, id="negative is at once"),
    ],
)
def test_how_long_a_taint_is_stood(tolerations, override, expected):
    assert tolerated_for(tolerations, UNREACHABLE, override) == expected


def test_node_ranges_do_not_overlap_and_freed_ones_come_back_last():
    ranges = Ranges("10.244.0.0/22", 24)
    assert ranges.occupy("10.244.1.0/24", "known")
    assert [str(ranges.take(name)) for name in "abc"] == ["10.244.0.0/24", "10.244.2.0/24", "10.244.3.0/24"]
    assert ranges.take("d") is None
    assert not ranges.occupy("10.244.2.0/24", "thief")
    assert ranges.release("b")
    assert not ranges.release("b")
    assert str(ranges.take("d")) == "10.244.2.0/24"


def test_a_range_of_another_size_takes_all_it_covers_and_one_elsewhere_nothing():
    ranges = Ranges("10.244.0.0/22", 24)
    assert ranges.occupy("10.244.0.0/23", "big")
    assert ranges.occupy("192.168.0.0/24", "foreign")
    assert str(ranges.take("a")) == "10.244.2.0/24"


def test_expectations_are_met_by_what_is_seen_or_by_time():
    clock = ManualClock()
    expectations = Expectations(clock)
    assert expectations.met("rs")
    expectations.expect("rs", "default/a")
    expectations.expect("rs", "uid-b")
    expectations.seen("rs", "default/a")
    assert not expectations.met("rs")
    expectations.seen("rs", "uid-b")
    expectations.seen("rs", "uid-b")
    assert expectations.met("rs")
    expectations.expect("rs", "lost")
    clock.advance(TIMEOUT)
    assert expectations.met("rs")


def test_the_owner_graph_knows_dependents_of_owners_nobody_has_seen():
    graph = OwnerGraph()
    owner = OwnerReference(uid="o", block_owner_deletion=True)
    child = graph.put(PODS, ObjectMeta(uid="c", owner_references=(owner,)))
    missing = graph.get("o")
    assert missing is not None
    assert not missing.present
    assert graph.dependents(missing) == graph.blocking(missing) == [child]
    graph.put(PODS, ObjectMeta(uid="o"))
    assert graph.remove("o") == {"c"}
    graph.put(PODS, ObjectMeta(uid="c"))
    assert graph.get("o") is None, "nobody hangs on it any more"
