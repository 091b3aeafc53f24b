"""Which CPUs a container gets: whole pieces stay whole as long as possible, or as options of the static policy want it.

Machines and placements beside BIG are facts of the kubelet's own tables (pkg/kubelet/cm/cpumanager/cpu_assignment_test.go).
"""

from __future__ import annotations

import pytest

from minikube_raw.kubelet import cpuplacement
from minikube_raw.kubelet.cpudistribution import shares
from minikube_raw.kubelet.cpuoptions import ACROSS_CORES, ACROSS_NODES, BY_CACHE, WHOLE_CORES
from minikube_raw.kubelet.cpuplacement import Placement
from minikube_raw.kubelet.cputopology import CPU, parse, show

Machine = tuple[CPU, ...]


def machine(cores: int, *, threads: int = 2, sockets: int = 1, nodes: int = 1, caches: int = 0) -> Machine:
    """So many cores altogether, and as many of them in each piece; the second threads are numbered after all first ones."""
    return tuple(
        CPU(
            socket=core * sockets // cores,
            core=core,
            number=core + cores * thread,
            node=core * nodes // cores,
            cache=core * caches // cores if caches else -1,
        )
        for thread in range(threads)
        for core in range(cores)
    )


# Two sockets of four cores of two threads; thread n and n + 8 share a core, as Linux numbers them.
BIG = machine(8, sockets=2)
SINGLE = machine(4)
DUAL = tuple(CPU(socket=n % 2, core=n % 6, number=n, node=n % 2) for n in range(12))  # odd ones in the other socket
NO_SMT = machine(8, threads=1, sockets=2, nodes=2)
WIDE = machine(40, sockets=2, nodes=4)
LARGE = machine(128, sockets=2, nodes=8)
CACHES = machine(16, threads=1, caches=4)
CACHES_OF_TWO_SOCKETS = machine(16, threads=1, sockets=2, caches=4)
CACHES_OF_TWO_NODES = machine(16, threads=1, nodes=2, caches=4)
CACHES_SMT = machine(8, caches=2)


@pytest.mark.parametrize(
    ("free", "count", "chosen"),
    [
        ("0-15", 8, "0-3,8-11"),  # a socket
        ("0-15", 10, "0-4,8-12"),  # a socket and a core
        ("0-15", 2, "0,8"),  # a core
        ("0-15", 3, "0-1,8"),  # a core and half of another
        ("1-15", 1, "8"),  # the half that is left of a core
        ("1-15", 2, "1,9"),  # a core of the socket that is broken already
        ("4-7,9,12-15", 1, "9"),  # of the socket with the least left
        ("2,5,7", 3, "2,5,7"),
    ],
)
def test_what_is_taken_leaves_large_pieces_whole(free: str, count: int, chosen: str) -> None:
    assert show(Placement(BIG).take(parse(free), count)) == chosen


def test_a_container_that_starts_again_gets_the_same_if_they_are_free() -> None:
    assert show(Placement(BIG).take(parse("0-15"), 2, parse("5,6"))) == "5-6"
    assert show(Placement(BIG).take(parse("0-5,7-15"), 2, parse("5,6"))) == "4,12"


def test_more_than_are_free_is_an_error_in_the_kubelets_words() -> None:
    with pytest.raises(ValueError, match="not enough cpus available to satisfy request: requested=2, available=1"):
        Placement(BIG).take(parse("3"), 2)


@pytest.mark.parametrize(
    ("machine", "free", "count", "chosen"),
    [
        pytest.param(SINGLE, "1,3,5-7", 1, "6", id="the half of a core"),
        pytest.param(SINGLE, "0-3,6", 2, "2,6", id="the only whole core"),
        pytest.param(DUAL, "1-5,7-11", 1, "2", id="of the socket with the least left"),
        pytest.param(DUAL, "0-11", 8, "0-2,4,6-8,10", id="a socket and a core"),
        pytest.param(WIDE, "10-39,50-79", 20, "10-19,50-59", id="a node, one is taken"),
        pytest.param(WIDE, "1-39,41-79", 60, "10-39,50-79", id="a socket and a node, a core is taken"),
        pytest.param(WIDE, "0-79", 64, "0-31,40-71", id="three nodes and two cores"),
    ],
)
def test_by_default_they_are_packed(machine: Machine, free: str, count: int, chosen: str) -> None:
    assert show(Placement(machine).take(parse(free), count)) == chosen


@pytest.mark.parametrize(
    ("machine", "free", "count", "chosen"),
    [
        pytest.param(SINGLE, "0-7", 3, "0-2", id="three cores"),
        pytest.param(DUAL, "0-11", 3, "0,2,4", id="of one socket"),
        pytest.param(DUAL, "0-11", 6, "0,2,4,6,8,10", id="a socket as a whole"),
        pytest.param(DUAL, "0-11", 8, "0-4,6,8,10", id="a socket and two cores"),
        pytest.param(NO_SMT, "0-7", 2, "0-1", id="cores of one thread"),
        pytest.param(WIDE, "0-79", 8, "0-7", id="of one node"),
    ],
)
def test_across_cores_none_gives_two_while_others_could_give_one(
    machine: Machine, free: str, count: int, chosen: str
) -> None:
    assert show(Placement(machine, {ACROSS_CORES}).take(parse(free), count)) == chosen


@pytest.mark.parametrize(
    ("machine", "free", "count", "chosen"),
    [
        pytest.param(CACHES, "1-15", 10, "1-2,4-11", id="two and a part of the one that is broken already"),
        pytest.param(CACHES_OF_TWO_SOCKETS, "0-15", 4, "0-3", id="the first"),
        pytest.param(CACHES_OF_TWO_SOCKETS, "2-15", 6, "2-7", id="one and the part of another"),
        pytest.param(CACHES_OF_TWO_SOCKETS, "8-15", 4, "8-11", id="the first of the other socket"),
        pytest.param(
            CACHES_OF_TWO_NODES, "3-8,12", 2, "4-5", id="of the node with the least left that has one for both"
        ),
        pytest.param(CACHES_OF_TWO_NODES, "0-3,8-10,12-15", 2, "0-1", id="though another node's has less left"),
        pytest.param(CACHES_SMT, "2-7,10-15", 6, "4-6,12-14", id="the one that has enough, by whole cores"),
        pytest.param(CACHES_SMT, "1-7,9-15", 10, "1,4-7,9,12-15", id="one and a core of the other"),
        pytest.param(CACHES_SMT, "0-15", 5, "0-2,8-9", id="an odd number"),
        pytest.param(CACHES_SMT, "0-2,4-5,8-9,12", 6, "0-1,4,8-9,12", id="no cache has enough: whole cores of several"),
        pytest.param(BIG, "0-15", 3, "0-1,8", id="a machine that tells of none: as by default"),
    ],
)
def test_by_caches_as_few_as_can_be_are_shared(machine: Machine, free: str, count: int, chosen: str) -> None:
    assert show(Placement(machine, {BY_CACHE}).take(parse(free), count)) == chosen


def test_a_cache_with_half_a_core_left_still_gives_whole_cores() -> None:
    assert show(Placement(CACHES_SMT, {BY_CACHE}).take(parse("1-7,8-15"), 2)) == "1,9"


LIVE = "0,128,30,31,158,159,43-47,171-175,62,63,190,191,75-79,203-207,94,96,222,223,101-111,229-239,126,127,254,255"
LESS_OF_TWO = "0-8,10-18,20-39,40-48,50-58,60-79"
FOURTH_HAS_MORE = "0-3,10-13,20-23,30-36,40-43,50-53,60-63,70-76"


@pytest.mark.parametrize(
    ("machine", "free", "count", "group", "chosen"),
    [
        pytest.param(SINGLE, "0-7", 3, 1, "0-1,4", id="one node is enough"),
        pytest.param(DUAL, "0-11", 6, 1, "0,2,4,6,8,10", id="a node as a whole"),
        pytest.param(DUAL, "1-5,7-11", 1, 1, "1", id="of the node that has more left"),
        pytest.param(DUAL, "1-5,7-11", 1, 2, "2", id="half a core cannot be distributed"),
        pytest.param(DUAL, "0-11", 3, 2, "0,2,6", id="nor a core and a half"),
        pytest.param(DUAL, "0-11", 8, 1, "0-3,6-9", id="two cores of each node"),
        pytest.param(WIDE, "0-34,40-74", 2, 1, "20,60", id="of as good ones, that of the socket with the least left"),
        pytest.param(WIDE, "0-79", 64, 1, "0-7,10-17,20-27,30-37,40-47,50-57,60-67,70-77", id="of each node"),
        pytest.param(WIDE, "0-79", 48, 1, "0-7,10-17,20-27,40-47,50-57,60-67", id="of the first three"),
        pytest.param(
            WIDE,
            "1-29,32-39,41-69,72-79",
            48,
            1,
            "1-8,10-17,20-27,41-48,50-57,60-67",
            id="of those that have more left",
        ),
        pytest.param(
            WIDE,
            "2-29,31-39,42-69,71-79",
            48,
            1,
            "10-17,20-27,31-38,50-57,60-67,71-78",
            id="of the last three, likewise",
        ),
        pytest.param(
            WIDE,
            "0-2,10-12,20-22,30-32,40-41,50-51,60-61,70-71",
            16,
            1,
            "0-1,10-11,20-21,30-31,40-41,50-51,60-61,70-71",
            id="whole cores of each node",
        ),
        pytest.param(WIDE, "0-79", 26, 1, "0-6,10-16,40-45,50-55", id="thirteen of each of two"),
        pytest.param(WIDE, "0-79", 26, 2, "0-6,10-15,40-46,50-55", id="by cores one gives more"),
        pytest.param(
            WIDE, "0-79", 62, 1, "0-7,10-17,20-27,30-37,40-47,50-57,60-66,70-76", id="the first two give the remainder"
        ),
        pytest.param(
            WIDE, "0-79", 62, 2, "0-7,10-17,20-27,30-36,40-47,50-57,60-67,70-76", id="by cores the first three"
        ),
        pytest.param(
            WIDE, LESS_OF_TWO, 62, 1, "0-7,10-17,20-27,30-37,40-46,50-56,60-67,70-77", id="those with more left give it"
        ),
        pytest.param(
            WIDE,
            LESS_OF_TWO,
            62,
            2,
            "0-7,10-16,20-27,30-37,40-47,50-56,60-67,70-77",
            id="by cores one of the others too",
        ),
        pytest.param(
            WIDE, FOURTH_HAS_MORE, 34, 1, "0-3,10-13,20-23,30-34,40-43,50-53,60-63,70-74", id="the only one that has it"
        ),
        pytest.param(
            LARGE, LIVE, 28, 1, "43-47,75-79,96,101-105,171-174,203-206,229-232", id="as seen on a live machine"
        ),
    ],
)
def test_across_nodes_each_of_the_fewest_gives_as_many(
    machine: Machine, free: str, count: int, group: int, chosen: str
) -> None:
    options = {ACROSS_NODES} | ({WHOLE_CORES} if group > 1 else set())
    assert show(Placement(machine, options).take(parse(free), count)) == chosen


def test_where_no_nodes_can_give_evenly_they_are_packed() -> None:
    assert show(Placement(NO_SMT, {ACROSS_NODES}).take(parse("0-3,4"), 5)) == "0-4"


def test_what_remains_comes_from_nodes_that_have_it_in_whole_cores() -> None:
    # The first two have three CPUs more than an even share, of which the third is half a core.
    steps = shares({0: 5, 1: 5, 2: 4, 3: 2}, 14, group=2)
    assert steps == [(0, 2), (1, 2), (2, 2), (3, 2), (0, 2), (1, 2), (2, 2)]


def test_reserved_cpus_are_chosen_by_the_options_too() -> None:
    assert show(cpuplacement.reserved_cpus("", 2000, BIG, {ACROSS_CORES})) == "0-1"


@pytest.mark.parametrize(
    ("named", "millis", "found"), [("", 500, "0"), ("", 1001, "0,8"), ("3-4", 500, "3-4"), ("3", 0, "3")]
)
def test_reserved_are_those_that_are_named_or_as_many_as_are_kept(named: str, millis: int, found: str) -> None:
    assert show(cpuplacement.reserved_cpus(named, millis, BIG)) == found


@pytest.mark.parametrize(
    ("named", "millis", "why"), [("", 0, "greater than zero"), ("14-17", 0, "16-17 are not among")]
)
def test_a_node_must_keep_some_that_it_has(named: str, millis: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cpuplacement.reserved_cpus(named, millis, BIG)
