"""The static CPU policy on a real node: what the kernel lets a container run on, before, beside and after another's own CPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from minikube_raw.kubelet.cputopology import parse
from tests.clusters import Cluster, cluster_of_one

from .manifests import pod
from .waiting import until

CPUS = frozenset(os.sched_getaffinity(0))
STATIC = ("--cpu-manager-policy", "static", "--reserved-cpus", str(min(CPUS)))
OWN = "resources: {limits: {cpu: '1', memory: 32Mi}}"
pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs: one is reserved")


@pytest.fixture
def static(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of_one(tmp_path, *STATIC, name="static", port=6448) as made:
        yield made


def cpus(cluster: Cluster, name: str) -> frozenset[int]:
    """Where the kernel lets a pod's program run."""
    told = cluster.kubectl("exec", name, "--", "grep", "Cpus_allowed_list", "/proc/1/status").stdout
    return parse(told.split()[1])


def start(cluster: Cluster, manifest: str, name: str) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=50s")


def test_a_guaranteed_container_has_its_cpu_alone_also_after_its_kubelet_was_killed(static: Cluster) -> None:
    start(static, pod("shared"), "shared")
    assert cpus(static, "shared") == CPUS

    start(static, pod("own", container=OWN), "own")
    alone = cpus(static, "own")
    assert len(alone) == 1
    assert min(CPUS) not in alone
    assert cpus(static, "shared") == CPUS - alone
    node = static.kubectl("get", "node", "-o", "name").stdout.strip()
    metrics = static.kubectl("get", "--raw", f"/api/v1/{node.replace('node', 'nodes')}/proxy/metrics").stdout
    assert "\nkubelet_cpu_manager_exclusive_cpu_allocation_count 1\n" in metrics

    killed = static.pid("kubelet")
    os.kill(killed, signal.SIGKILL)
    until(lambda: static.pids("kubelet"), lambda pids: pids and killed not in pids, seconds=60)
    start(static, pod("late"), "late")
    assert cpus(static, "late") == CPUS - alone
    assert cpus(static, "own") == alone

    static.kubectl("delete", "pod", "own", "--grace-period=1")
    until(lambda: cpus(static, "shared"), lambda found: found == CPUS, seconds=60)
