"""Whom a node ends for a critical pod, how few, and what happens until they are gone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pod_builders import pod

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import preemption
from minikube_raw.kubelet.preemption import NothingToPreempt, choose
from minikube_raw.kubelet.room import NodeView, Room, held

NODE_CRITICAL, CLUSTER_CRITICAL = 2_000_001_000, 2_000_000_000


def asking(name: str, *, guaranteed: bool = False, priority: int = 0, **requests: Any) -> Pod:
    resources = {"requests": requests, "limits": requests if guaranteed else {}} if requests else {}
    containers = [{"name": "c", "image": "busybox", "resources": resources}]
    return pod(metadata={"name": name, "uid": name}, containers=containers, priority=priority)


def critical(priority: int = NODE_CRITICAL, **requests: Any) -> Pod:
    return asking("critical", priority=priority, **requests)


SURE = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("others", "missing", "gone"),
    [
        pytest.param(
            [asking("sure", guaranteed=True, **SURE), asking("burst", cpu="1")], {"cpu": 500}, "burst", id="class first"
        ),
        pytest.param(
            [asking("sure", guaranteed=True, **SURE), asking("burst", cpu="1"), asking("best")],
            {"cpu": 1500},
            "burst sure",
            id="guaranteed only for the rest",
        ),
        pytest.param(
            [asking("a", cpu="300m"), asking("b", cpu="300m"), asking("c", cpu="2")],
            {"cpu": 600},
            "c",
            id="fewest pods",
        ),
        pytest.param([asking("large", cpu="2"), asking("small", cpu="700m")], {"cpu": 600}, "small", id="smallest pod"),
        pytest.param(
            [asking("cpu", cpu="1"), asking("both", cpu="1", memory="1Gi")],
            {"cpu": 500, "memory": 1 << 20},
            "both",
            id="nearest over all that is missing",
        ),
        pytest.param([asking("best"), asking("burst", cpu="1")], {"pods": 1}, "best", id="a place for a pod"),
    ],
)
def test_the_least_important_and_fewest_pods_go(others: list[Pod], missing: dict[str, int], gone: str) -> None:
    going = choose(critical(), [held(each) for each in others], missing)
    assert " ".join(sorted(each.pod.metadata.name for each in going)) == gone


def test_critical_pods_go_for_none_but_more_critical_ones() -> None:
    other = [held(asking("other", cpu="1", priority=CLUSTER_CRITICAL))]
    assert choose(critical(NODE_CRITICAL), other, {"cpu": 1}) == other
    with pytest.raises(NothingToPreempt, match=r"reclaim resources: \[\(res: cpu, q: 1\), \]"):
        choose(critical(CLUSTER_CRITICAL), other, {"cpu": 1})


# -- the room they leave -------------------------------------------------------------------------------------------------


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def room(told: list[str]) -> Room:
    made = Room(lambda: NodeView("n1", {"cpu": "2", "memory": "4Gi", "pods": "10"}))
    made.on_preempt(lambda each: told.append(each.metadata.name))
    return made


def test_a_critical_pod_is_admitted_and_waits_until_others_have_left(room: Room, told: list[str]) -> None:
    assert room.refusal(asking("a", cpu="1500m"), started=False) is None
    wish = critical(cpu="1")

    assert room.refusal(wish, started=False) is None
    assert (told, room.awaits("critical")) == (["a"], True)
    late = room.refusal(asking("late", cpu="100m"), started=False)
    assert late is not None
    assert late.reason == "OutOfcpu"  # the room that is being left is taken

    room.release("a")
    assert not room.awaits("critical")
    assert room.refusal(wish, started=False) is None
    assert told == ["a"]


def test_a_critical_pod_that_the_node_cannot_hold_at_all_is_refused_and_nobody_goes(
    room: Room, told: list[str]
) -> None:
    room.refusal(asking("a", cpu="1"), started=False)

    refused = room.refusal(critical(cpu="4"), started=False)

    assert refused is not None
    assert refused.reason == "UnexpectedAdmissionError"
    assert refused.message == (
        "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to "
        "preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 2000), ]"
    )
    assert told == []


def test_what_is_not_about_resources_refuses_a_critical_pod_without_preemption(room: Room, told: list[str]) -> None:
    room.refusal(asking("a", cpu="2"), started=False)
    spec = msgspec.structs.replace(critical(cpu="1").spec, node_selector={"disk": "ssd"})

    refused = room.refusal(msgspec.structs.replace(critical(), spec=spec), started=False)

    assert refused is not None
    assert (refused.reason, told) == ("NodeAffinity", [])


async def test_a_static_pod_starts_when_the_pod_that_went_for_it_has_ended(node, eventually) -> None:
    node.tools.room._node = lambda: NodeView("n1", {"cpu": "1", "memory": "4Gi", "pods": "10"})
    node.workers.update(asking("a", cpu="1"))
    await eventually(lambda: node.phase() == "Running")
    static = asking("static", cpu="500m")
    meta = msgspec.structs.replace(static.metadata, annotations={"kubernetes.io/config.source": "file"})

    node.workers.update(msgspec.structs.replace(static, metadata=meta))

    await eventually(lambda: node.runtime.verbs().count("start_container") == 2)
    (ended,) = node.told("Failed")
    assert (ended["reason"], ended["message"]) == ("Preempting", preemption.MESSAGE)
    (target,) = [each for each in ended["conditions"] if each["type"] == "DisruptionTarget"]
    assert (target["reason"], target["message"]) == (
        "TerminationByKubelet",
        "Pod was preempted by Kubelet to accommodate a critical pod.",
    )
    assert "Warning Preempting Preempted in order to admit critical pod" in node.events
    assert node.runtime.verbs().index("stop_container") < node.runtime.verbs().index("run_pod_sandbox", 1)
