"""Memory and topology manager on a real node: what is kept of who has what, before and after its kubelet was killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minikube_raw.kubelet import numa
from minikube_raw.machine.layout import Layout
from tests.clusters import Cluster, cluster_of_one

from .manifests import pod
from .waiting import until

FIRST = min(node.number for node in numa.read())
MANAGED = (
    *("--memory-manager-policy", "Static", "--reserved-memory", f"{FIRST}:memory=228Mi"),
    *("--system-reserved", "memory=128Mi", "--eviction-hard", "memory.available<100Mi"),
    *("--topology-manager-policy", "single-numa-node", "--topology-manager-scope", "pod"),
)
OWN = "resources: {limits: {cpu: 100m, memory: 32Mi}}"


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of_one(tmp_path, *MANAGED, name="managed", port=6452) as made:
        yield made


def state(cluster: Cluster) -> Any:
    """The memory manager's file, on the tmpfs that its node has for a boot."""
    directory = Layout(cluster.folder / "state", cluster.folder / "run", cluster.name).node_run("managed-1")
    return json.loads(Path(f"/proc/{cluster.pid('kubelet')}/root{directory}/memory_manager_state").read_text())


def entries(cluster: Cluster) -> Any:
    return state(cluster)["entries"]


def start(cluster: Cluster, manifest: str, name: str) -> str:
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=50s")
    return str(cluster.get("pod", name)["metadata"]["uid"])


@pytest.mark.slow
def test_a_guaranteed_pods_memory_is_on_its_node_until_it_is_gone(managed: Cluster) -> None:
    uid = start(managed, pod("own", container=OWN), "own")
    start(managed, pod("shared"), "shared")
    block = {"numaAffinity": [FIRST], "type": "memory", "size": 32 << 20}
    assert entries(managed) == {uid: {"main": [block]}}
    allowed = managed.kubectl("exec", "own", "--", "grep", "Mems_allowed_list", "/proc/1/status").stdout
    assert allowed.split()[1] == str(FIRST)

    killed = managed.pid("kubelet")
    os.kill(killed, signal.SIGKILL)
    until(lambda: managed.pids("kubelet"), lambda pids: pids and killed not in pids, seconds=60)
    late = start(managed, pod("late", container=OWN), "late")
    assert entries(managed) == {uid: {"main": [block]}, late: {"main": [block]}}
    assert state(managed)["machineState"][str(FIRST)]["memoryMap"]["memory"]["reserved"] == 64 << 20

    managed.kubectl("delete", "pod", "own", "--grace-period=1")
    until(lambda: set(entries(managed)), lambda uids: uids == {late}, seconds=60)


def test_reservations_that_do_not_add_up_are_refused_before_a_node_starts(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "wrong")
    beside = ("--name", "wrong", "--api-port", "6453", "--pod-cidr", "10.203.0.0/16")
    done = cluster.cli("up", *beside, *MANAGED[:4], "--system-reserved", "memory=1Gi", check=False)
    assert done.returncode
    assert (
        'of type "memory" is not equal to the value "1178599424" determined by Node Allocatable feature' in done.stderr
    )
    assert "--reserved-memory" in done.stderr
