"""Cgroup values and oom_score_adj as a kubelet 1.36 wrote them on a node with 2 CPUs and 24684092Ki of memory."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pod_builders import pod

from minikube_raw.kubelet import oomscore, qos
from minikube_raw.kubelet.classshares import ClassShares
from minikube_raw.linux.cgroups import Limits

CAPACITY = 24_684_092 * 1024
NONE = None
SMALL = {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
FIXED = {"limits": {"cpu": "100m", "memory": "32Mi"}}
POD_LEVEL = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
OVERHEAD = {"cpu": "50m", "memory": "16Mi"}
# name, container's resources, what else the spec has, class, then (shares, quota, memory) of pod and container, oom_score_adj
RECORDED = [
    pytest.param({}, {}, "besteffort/", (2, NONE, NONE), (2, NONE, NONE), 1000, id="best effort"),
    pytest.param(
        SMALL, {}, "burstable/", (51, 20_000, 67_108_864), (51, 20_000, 67_108_864), 999, id="burstable with limits"
    ),
    pytest.param(
        {"requests": {"memory": "1Gi"}}, {}, "burstable/", (2, NONE, NONE), (2, NONE, NONE), 958, id="memory request alone"
    ),
    pytest.param(
        FIXED, {}, "", (102, 10_000, 33_554_432), (102, 10_000, 33_554_432), -997, id="guaranteed by limits alone"
    ),
    pytest.param(
        {}, {"resources": POD_LEVEL}, "burstable/", (102, 20_000, 67_108_864), (204, 20_000, 67_108_864), 999,
        id="limits of the pod as a whole",
    ),
    pytest.param(
        FIXED, {"overhead": OVERHEAD}, "", (153, 15_000, 50_331_648), (102, 10_000, 33_554_432), -997, id="overhead"
    ),
]  # fmt: skip


def values(resources: Any) -> tuple[Any, ...]:
    return resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes


@pytest.mark.parametrize(("resources", "spec", "parent", "of_pod", "of_container", "oom"), RECORDED)
def test_cgroup_values_are_the_kubelets(resources, spec, parent, of_pod, of_container, oom) -> None:
    wish = pod(containers=[{"name": "c", "image": "i", "resources": resources}], **spec)
    container = wish.spec.containers[0]
    assert qos.cgroup_parent(wish) == f"kubepods/{parent}podu1"
    assert values(qos.pod_resources(wish)) == of_pod
    score = oomscore.adjustment(wish, container, CAPACITY)
    assert values(qos.container_resources(wish, container, score)) == of_container
    assert score == oom


def test_a_sidecar_is_killed_no_sooner_than_the_main_container() -> None:
    wish = pod(
        init=({"name": "side", "image": "i", "restartPolicy": "Always", "resources": {"requests": {"memory": "1Mi"}}},),
        containers=[{"name": "c", "image": "i", "resources": {"requests": {"memory": "1Gi"}}}],
    )
    scores = {
        each.name: oomscore.adjustment(wish, each, CAPACITY)
        for each in (*wish.spec.init_containers, *wish.spec.containers)
    }
    assert scores == {"side": 958, "c": 958}


def test_a_node_critical_pod_goes_last_whatever_it_asks_for() -> None:
    wish = pod(priorityClassName="system-node-critical")
    assert oomscore.adjustment(wish, wish.spec.containers[0], CAPACITY) == -997


def test_what_a_pod_asks_beyond_its_containers_counts_for_each_of_them() -> None:
    wish = pod("a", "b", resources={"requests": {"memory": "2Gi"}})
    assert oomscore.adjustment(wish, wish.spec.containers[0], CAPACITY) == 958


def test_what_is_beyond_the_containers_is_shared_with_init_containers_too() -> None:
    sidecar = {"name": "side", "image": "i", "restartPolicy": "Always"}
    wish = pod("a", init=(sidecar,), resources={"requests": {"memory": "2Gi"}})
    assert oomscore.adjustment(wish, wish.spec.containers[0], CAPACITY) == 958


def test_overhead_alone_gives_a_best_effort_pod_no_weight_against_others() -> None:
    wish = pod(overhead=OVERHEAD)
    assert qos.cgroup_parent(wish) == "kubepods/besteffort/podu1"
    assert values(qos.pod_resources(wish)) == (2, NONE, NONE)


def test_the_burstable_class_has_the_shares_of_all_its_pods_with_overhead() -> None:
    written: dict[str, Limits] = {}
    shares = ClassShares(written.__setitem__)
    shares.add(pod(containers=[{"name": "c", "image": "i", "resources": SMALL}], overhead=OVERHEAD))
    assert written == {"kubepods/besteffort": Limits(cpu_shares=2), "kubepods/burstable": Limits(cpu_shares=102)}
    shares.remove("u1")
    assert written["kubepods/burstable"] == Limits(cpu_shares=2)


def test_memory_that_is_kept_for_a_pod_is_kept_in_every_cgroup_above_it() -> None:
    written: dict[str, Limits] = {}
    shares = ClassShares(written.__setitem__, reserves=True)
    shares.add(pod(containers=[{"name": "c", "image": "i", "resources": SMALL}]))
    wish = pod(containers=[{"name": "c", "image": "i", "resources": FIXED}])
    shares.add(msgspec.structs.replace(wish, metadata=msgspec.structs.replace(wish.metadata, uid="u2")))

    both = Limits(memory_min=48 << 20, memory_low=16 << 20)
    assert (written[""], written["kubepods"]) == (both, both)
    assert written["kubepods/burstable"] == Limits(cpu_shares=51, memory_low=16 << 20)
    shares.remove("u1")
    assert written["kubepods"] == Limits(memory_min=32 << 20, memory_low=0)


HIGH = str(int((16 + 0.9 * 48) * (1 << 20)) // 4096 * 4096)


@pytest.mark.parametrize(
    ("resources", "of_the_pod", "of_the_container"),
    [
        (SMALL, {"memory.low": str(16 << 20)}, {"memory.low": str(16 << 20), "memory.high": HIGH}),
        (FIXED, {"memory.min": str(32 << 20)}, {"memory.min": str(32 << 20)}),
        (
            {"requests": {"memory": "64Mi"}},
            {"memory.low": str(64 << 20)},
            {"memory.low": str(64 << 20), "memory.high": str(int((64 + 0.9 * 960) * (1 << 20)) // 4096 * 4096)},
        ),
        ({}, {}, {"memory.high": str(int(0.9 * (1 << 30)) // 4096 * 4096)}),
    ],
)
def test_on_v2_memory_qos_keeps_what_is_asked_for_and_slows_down_before_the_limit(
    resources: dict, of_the_pod: dict[str, str], of_the_container: dict[str, str]
) -> None:
    wish = pod(containers=[{"name": "c", "image": "i", "resources": resources}])
    kernel = qos.Kernel(oom_group=True, memory_qos=True, reserves_memory=True, allocatable=1 << 30)
    got = qos.container_resources(wish, wish.spec.containers[0], 0, kernel)
    assert got.unified == {"memory.oom.group": "1", **of_the_container}
    assert qos.pod_resources(wish, kernel=kernel).unified == of_the_pod


def test_without_a_reservation_policy_memory_qos_slows_down_alone() -> None:
    wish = pod(containers=[{"name": "c", "image": "i", "resources": SMALL}])
    got = qos.container_resources(wish, wish.spec.containers[0], 0, qos.Kernel(memory_qos=True))
    assert got.unified == {"memory.high": HIGH}


def test_where_containers_may_swap_their_pod_does_not_keep_them_from_it() -> None:
    wish = pod(containers=[{"name": "c", "image": "i", "resources": SMALL}])
    assert qos.pod_resources(wish, kernel=qos.Kernel(swap=8 << 30)).unified == {"memory.swap.max": "max"}
    assert qos.pod_resources(wish, kernel=qos.Kernel(swap=0)).unified == {}


@pytest.mark.parametrize(
    ("resources", "priority", "swap"),
    [
        ({"requests": {"memory": "1Gi"}}, 0, 2 << 30),
        ({"requests": {"memory": "1Gi"}, "limits": {"memory": "3Gi"}}, 0, 2 << 30),
        ({"requests": {"memory": "1Gi", "cpu": "1"}, "limits": {"memory": "1Gi", "cpu": "2"}}, 0, 0),
        ({"limits": {"memory": "1Gi", "cpu": "1"}}, 0, 0),
        ({}, 0, 0),
        ({"requests": {"cpu": "1"}}, 0, 0),
        ({"requests": {"memory": "1Gi"}}, 2_000_000_000, 0),
    ],
)
def test_limited_swap_is_for_burstable_containers_by_what_they_ask_of_the_memory(
    resources: dict, priority: int, swap: int
) -> None:
    wish = pod(containers=[{"name": "c", "image": "i", "resources": resources}], priority=priority)
    limited = qos.Kernel(swap=8 << 30, memory=4 << 30)
    got = [qos.container_resources(wish, wish.spec.containers[0], 0, each).unified for each in (limited, qos.Kernel())]
    assert got == [{"memory.swap.max": str(swap)}, {}]


def test_on_v2_a_container_without_a_limit_does_not_swap_either() -> None:
    wish = pod(containers=[{"name": "c", "image": "i"}])
    got = qos.container_resources(wish, wish.spec.containers[0], 0, qos.Kernel(swap=0, memory=4 << 30))
    assert got.unified == {"memory.swap.max": "0"}


def test_huge_pages_that_are_not_asked_for_are_not_to_be_had_where_the_node_has_some() -> None:
    wish = pod(
        containers=[{"name": "c", "image": "i", "resources": {"limits": {"memory": "1Gi", "hugepages-2Mi": "4Mi"}}}]
    )
    got = qos.container_resources(wish, wish.spec.containers[0], 0, qos.Kernel(hugepage_sizes=("2Mi", "1Gi")))
    assert got.hugepage_limits == {"2MB": 4 << 20, "1GB": 0}


def test_a_pod_may_have_the_huge_pages_of_all_its_containers() -> None:
    asked = {"limits": {"memory": "1Gi", "hugepages-2Mi": "4Mi"}}
    containers = [{"name": name, "image": "i", "resources": asked} for name in ("a", "b")]
    both = pod(containers=containers)
    whole = pod(containers=containers, resources={"limits": {"memory": "1Gi", "hugepages-2Mi": "6Mi"}})
    kernel = qos.Kernel(hugepage_sizes=("2Mi",))
    assert qos.pod_resources(both, kernel=kernel).hugepage_limits == {"2MB": 8 << 20}
    assert qos.pod_resources(whole, kernel=kernel).hugepage_limits == {"2MB": 6 << 20}
