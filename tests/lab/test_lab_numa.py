"""A node on a machine with two NUMA nodes: where the kernel lets pods have their CPUs and memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.api import create, in_phase, remove
from tests.lab.conftest import need_lab
from tests.lab.machine import Machine, machine

OPTIONS = (
    "--cpu-manager-policy static --reserved-cpus 0 --topology-manager-policy single-numa-node"
    " --memory-manager-policy Static --reserved-memory 0:memory=64Mi --reserved-memory 1:memory=64Mi"
    " --system-reserved memory=100Mi --eviction-hard 'memory.available<28Mi'"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machine]:
    """A cluster of one node on a machine with a CPU and half of the memory on each of two NUMA nodes."""
    need_lab()
    with machine("numa", 2, numa=2) as lab:
        lab.product(f"up --nodes 1 --timeout 240 {OPTIONS}", timeout=400)
        yield lab


def own(cpu: str, memory: str, seconds: int) -> dict[str, object]:
    return {"command": ["sleep", str(seconds)], "resources": {"limits": {"cpu": cpu, "memory": memory}}}


def allowed(lab: Machine, seconds: int) -> tuple[str, str]:
    """The CPUs and the NUMA nodes that the kernel lets a pod's program have, which is known by how long it sleeps."""
    lines = lab.run(f"grep -h _allowed_list /proc/$(pgrep -xf 'sleep {seconds}')/status").splitlines()
    cpus, nodes = (line.split()[1] for line in lines)
    return cpus, nodes


def test_a_pod_has_its_cpu_and_its_memory_on_one_node(cluster: Machine) -> None:
    create(cluster, "near", own("1", "32Mi", 3601))
    in_phase(cluster, "near", "Running")
    assert allowed(cluster, 3601) == ("1", "1")
    remove(cluster, "near")


def test_memory_alone_is_given_where_a_node_has_room_and_refused_where_none_has(cluster: Machine) -> None:
    """Three pods without CPUs of their own, of more than half of a node's memory each: two nodes have room for one each."""
    half = own("100m", "170Mi", 3602)
    create(cluster, "first", half)
    in_phase(cluster, "first", "Running")
    create(cluster, "second", own("100m", "170Mi", 3603))
    in_phase(cluster, "second", "Running")
    create(cluster, "third", half)
    refused = in_phase(cluster, "third", "Failed")

    assert [allowed(cluster, seconds)[1] for seconds in (3602, 3603)] == ["0", "1"]
    said = (refused["reason"], refused["message"])
    assert said == ("TopologyAffinityError", "Pod was rejected: Resources cannot be allocated with Topology locality")
