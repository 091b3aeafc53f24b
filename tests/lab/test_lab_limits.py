"""The cgroup files of pods on v2: what a kubelet was recorded to write on v1, through Kubernetes' own conversion to v2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.lab.machine import Machine

MIB = 1 << 20
NONE = -1
Written = tuple[int, int, int]  # cpu.shares, cpu.cfs_quota_us, memory.limit_in_bytes; -1 is no limit


class Recorded(NamedTuple):
    """What kubelet 1.36 (for the pod) and containerd (for the container) wrote for a pod with these resources."""

    name: str
    qos_class: str
    pod: Written
    container: Written
    resources: dict[str, Any] = {}  # noqa: RUF012 -- never changed
    of_the_pod: dict[str, Any] = {}  # noqa: RUF012


SOME = {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
SHARED = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
RECORDED = [
    Recorded("burstable", "burstable", (51, 20_000, 64 * MIB), (51, 20_000, 64 * MIB), SOME),
    Recorded("unlimited", "burstable", (2, NONE, NONE), (2, NONE, NONE), {"requests": {"memory": "1Gi"}}),
    Recorded(
        *("guaranteed", "", (102, 10_000, 32 * MIB), (102, 10_000, 32 * MIB)),
        {"limits": {"cpu": "100m", "memory": "32Mi"}},
    ),
    Recorded("besteffort", "besteffort", (2, NONE, NONE), (2, NONE, NONE)),
    Recorded("pod-level", "burstable", (102, 20_000, 64 * MIB), (204, 20_000, 64 * MIB), of_the_pod=SHARED),
]


def on_v2(written: Written) -> dict[str, str]:
    """The same in v2's files (KEP-2254: shares from 2…262144 linearly to 1…10000)."""
    shares, quota, memory = written
    return {
        "cpu.weight": str(1 + (shares - 2) * 9999 // 262_142),
        "cpu.max": f"{'max' if quota == NONE else quota} 100000",
        "memory.max": "max" if memory == NONE else str(memory),
        "memory.min": "0",
        "memory.high": "max",
    }


@pytest.fixture(scope="module")
def found(lab: Machine) -> Iterator[dict[str, dict[str, dict[str, str]]]]:
    """Pod → "pod" or "container" → file → value."""
    for row in RECORDED:
        container = {"name": "c", "image": "busybox", "command": ["sleep", "1000"], "resources": row.resources}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
        pod = {
            "kind": "Pod",
            "metadata": {"name": row.name},
            "spec": {**spec, **({"resources": row.of_the_pod} if row.of_the_pod else {})},
        }
        lab.product("pod run --timeout 240 -f -", stdin=json.dumps(pod))
    uids = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in listed(lab)}
    values: dict[str, dict[str, dict[str, str]]] = {row.name: {"pod": {}, "container": {}} for row in RECORDED}
    for line in lab.run(
        "cd /sys/fs/cgroup && grep -s '' -r minikube-raw-standalone-*/kubepods --include=*.* || true"
    ).splitlines():
        path, _, value = line.partition(":")
        *_, parent, group, file = path.split("/")
        if group.removeprefix("pod") in uids:
            values[uids[group.removeprefix("pod")]]["pod"][file] = value
            values[uids[group.removeprefix("pod")]]["pod"]["parent"] = parent
        elif parent.removeprefix("pod") in uids:
            values[uids[parent.removeprefix("pod")]]["container"][file] = value
    yield values
    for row in RECORDED:
        lab.product(f"pod rm {row.name}")


def listed(lab: Machine) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(lab.product("pod list -o json"))["items"]
    return items


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row.name)
def test_a_pod_has_the_limits_that_a_kubelet_writes(found: dict[str, Any], row: Recorded) -> None:
    pod, container = found[row.name]["pod"], found[row.name]["container"]
    assert pod["parent"] == (row.qos_class or "kubepods")
    assert {name: pod[name] for name in on_v2(row.pod)} == on_v2(row.pod)
    assert {name: container[name] for name in on_v2(row.container)} == on_v2(row.container)
    assert container["memory.oom.group"] == "1", "the kubelet's default on v2: a container ends as a whole"
    assert container["pids.max"] == "max"


def test_the_keepers_are_of_no_service_and_no_session(lab: Machine, found: dict[str, Any]) -> None:
    groups = lab.run("for pid in $(pgrep -f '^(launcher|keeper) '); do cat /proc/$pid/cgroup; done").split()
    assert len(groups) >= 2
    assert all(group.startswith("0::/minikube-raw-standalone-") and group.endswith("/system") for group in groups)
