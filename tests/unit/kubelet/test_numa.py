"""NUMA nodes and their CPUs, read from a sysfs made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from minikube_raw.kubelet import cputopology, numa
from minikube_raw.kubelet.cpuplacement import Placement
from minikube_raw.kubelet.cputopology import CPU, parse, show
from minikube_raw.kubelet.numa import NUMANode

# Two sockets of two nodes of two cores of two threads; the other way round, two nodes of two sockets.
SUBNUMA = tuple(CPU(socket=n % 8 // 4, core=n % 4, number=n, node=n % 8 // 2) for n in range(16))
GLUED = tuple(CPU(socket=n % 8 // 2, core=n % 2, number=n, node=n % 8 // 4) for n in range(16))


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    (tmp_path / "online").write_text("0,2\n")
    for number, distances in ((0, "10 21"), (2, "21 10")):
        node = tmp_path / f"node{number}"
        (node / "hugepages/hugepages-2048kB").mkdir(parents=True)
        (node / "hugepages/hugepages-2048kB/nr_hugepages").write_text(f"{3 * number}\n")
        (node / "distance").write_text(f"{distances}\n")
        (node / "meminfo").write_text(
            f"Node {number} MemTotal:  {1024 * (number + 1)} kB\nNode {number} MemFree: 1 kB\n"
        )
    return tmp_path


def test_a_node_has_memory_huge_pages_and_distances(sysfs: Path) -> None:
    assert numa.read(sysfs) == (
        NUMANode(0, {"memory": 1 << 20, "hugepages-2Mi": 0}, {0: 10, 2: 21}),
        NUMANode(2, {"memory": 3 << 20, "hugepages-2Mi": 12 << 20}, {0: 21, 2: 10}),
    )


def test_a_kernel_without_numa_has_one_node(tmp_path: Path) -> None:
    (node,) = numa.read(tmp_path)
    assert (node.number, node.distances) == (0, {0: 10})
    assert node.memory["memory"] > 0


def test_a_cpu_is_of_the_node_that_its_directory_links_to(tmp_path: Path) -> None:
    for number in (each.number for each in cputopology.read(tmp_path)):
        (tmp_path / f"cpu{number}/node3").mkdir(parents=True)
    assert {cpu.node for cpu in cputopology.read(tmp_path)} == {3}


def test_narrow_sets_come_first_and_of_those_the_lower_ones() -> None:
    sets = [frozenset(each) for each in ({0, 1, 2}, {1, 2}, {0, 3}, {2}, {0})]
    assert [sorted(each) for each in sorted(sets, key=numa.narrowness)] == [[0], [2], [1, 2], [0, 3], [0, 1, 2]]


@pytest.mark.parametrize(
    ("machine", "free", "count", "chosen"),
    [
        pytest.param(SUBNUMA, "0-15", 8, "0-3,8-11", id="a socket of two nodes"),
        pytest.param(SUBNUMA, "0-15", 4, "0-1,8-9", id="a node of a socket"),
        pytest.param(SUBNUMA, "1-15", 4, "2-3,10-11", id="the node that is whole, of the socket with the least left"),
        pytest.param(SUBNUMA, "1-15", 1, "8", id="the half of a core that is left"),
        pytest.param(GLUED, "0-15", 8, "0-3,8-11", id="a node of two sockets"),
        pytest.param(GLUED, "0-15", 4, "0-1,8-9", id="a socket of a node"),
    ],
)
def test_whole_sockets_and_nodes_are_taken_the_larger_first(
    machine: tuple[CPU, ...], free: str, count: int, chosen: str
) -> None:
    assert show(Placement(machine).take(parse(free), count)) == chosen


@pytest.mark.parametrize(
    ("free", "count", "nodes", "chosen"),
    [
        pytest.param("0-15", 2, {2}, "4,12", id="there is room"),
        pytest.param("0-15", 5, {2}, "4-6,12-13", id="there is not enough"),
        pytest.param("0-15", 2, None, "0,8", id="anywhere"),
    ],
)
def test_cpus_of_the_nodes_that_are_asked_for_come_first(
    free: str, count: int, nodes: set[int] | None, chosen: str
) -> None:
    assert show(Placement(SUBNUMA).take_near(parse(free), count, None if nodes is None else frozenset(nodes))) == chosen


def test_too_few_are_told_with_all_that_are_free() -> None:
    with pytest.raises(ValueError, match="not enough cpus available to satisfy request: requested=3, available=2"):
        Placement(SUBNUMA).take_near(parse("0,4"), 3, frozenset({0}))
