"""Where memory goes on machines of two and four NUMA nodes: Kubernetes' own cases (memorymanager/policy_static_test.go), and groups."""

from __future__ import annotations

from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import memoryblocks
from minikube_raw.kubelet.memoryblocks import (
    Block,
    CannotAllocate,
    Entries,
    allocate,
    empty,
    hints,
    occupied,
    requested,
)
from minikube_raw.kubelet.numa import NUMANode
from minikube_raw.kubelet.topologyhints import ANY, Hint

GI = 1 << 30
ANYWHERE = Hint(None, False)


def machine(nodes: int, memory: int = 4, huge: int = 0) -> memoryblocks.Machine:
    """Nodes with that many GiB beside 1 GiB of huge pages each, if any, and 512 MiB reserved."""
    sizes = {"memory": (memory + huge) * GI + GI // 2} | ({"hugepages-1Gi": huge * GI} if huge else {})
    found = tuple(NUMANode(number, sizes) for number in range(nodes))
    return empty(found, {number: {"memory": GI // 2} for number in range(nodes)})


def container(name: str, memory: str, **more: str) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": {"limits": {"cpu": "1", "memory": memory, **more}}}


def asking(memory: str, uid: str = "u1", **more: str) -> Pod:
    return pod(containers=[container("c", memory, **more)], metadata={"uid": uid, "name": uid})


def gave(entries: Entries, uid: str, name: str = "c") -> dict[str, tuple[tuple[int, ...], int]]:
    return {block.type: (block.nodes, block.size) for block in entries[uid][name]}


def filled(bare: memoryblocks.Machine, *pods: Pod, affinity: Hint = ANYWHERE) -> Entries:
    entries: Entries = {}
    for each in pods:
        for own in (*each.spec.init_containers, *each.spec.containers):
            entries = allocate(bare, entries, each, own, affinity)
    return entries


def places(bare: memoryblocks.Machine, entries: Entries, wish: Pod) -> str:
    """Hints as text: "0 1 01-"."""
    found = hints(bare, entries, wish, requested(wish, wish.spec.containers[0]))["memory"]
    return " ".join("".join(map(str, sorted(each.nodes or ()))) + "-" * (not each.preferred) for each in found)


def test_what_is_reserved_and_what_is_huge_pages_is_nobodys_plain_memory() -> None:
    table = machine(1, memory=4, huge=2)[0].memory
    assert (table["memory"].total, table["memory"].allocatable) == (6 * GI + GI // 2, 4 * GI)
    assert (table["hugepages-1Gi"].total, table["hugepages-1Gi"].allocatable) == (2 * GI, 2 * GI)


def test_memory_goes_to_the_lowest_node_that_has_room() -> None:
    entries = filled(machine(2), asking("3Gi", "a"), asking("3Gi", "b"))
    assert gave(entries, "a") == {"memory": ((0,), 3 * GI)}
    assert gave(entries, "b") == {"memory": ((1,), 3 * GI)}


def test_huge_pages_and_memory_are_on_the_same_node() -> None:
    bare = machine(2, huge=1)
    entries = filled(bare, asking("1Gi", "a", **{"hugepages-1Gi": "1Gi"}))
    assert gave(entries, "a") == {"memory": ((0,), GI), "hugepages-1Gi": ((0,), GI)}
    assert places(bare, entries, asking("1Gi", "b", **{"hugepages-1Gi": "1Gi"})) == "1"


def test_only_guaranteed_pods_have_memory_of_their_own() -> None:
    burstable = pod(containers=[{"name": "c", "image": "i", "resources": {"requests": {"memory": "1Gi"}}}])
    whole = pod(containers=[container("c", "1Gi")], resources={"limits": {"cpu": "1", "memory": "2Gi"}})
    assert requested(burstable, burstable.spec.containers[0]) == {}
    assert requested(whole, whole.spec.containers[0]) == {}
    assert filled(machine(1), burstable, whole) == {}


@pytest.mark.parametrize(
    ("before", "wish", "found"),
    [
        pytest.param([], "3Gi", "0 1 01-", id="an empty machine"),
        pytest.param([], "6Gi", "01", id="more than a node has"),
        pytest.param(["3Gi"], "3Gi", "1", id="beside one on a single node there is no group"),
        pytest.param(["6Gi"], "1Gi", "01-", id="nodes of a group are not for one alone"),
        pytest.param(["6Gi"], "3Gi", "", id="no room left"),
        pytest.param(["1Gi"], "6Gi", "", id="a group cannot take in a node that serves alone"),
        pytest.param([], "9Gi", "", id="more than the machine has"),
    ],
)
def test_hints_name_every_set_of_nodes_that_would_do(before: list[str], wish: str, found: str) -> None:
    bare = machine(2)
    entries = filled(bare, *(asking(memory, f"before{number}") for number, memory in enumerate(before)))
    assert places(bare, entries, asking(wish, "wish")) == found


def test_groups_do_not_overlap_but_take_more_of_the_same() -> None:
    bare = machine(4)
    entries = filled(bare, asking("6Gi", "a"))
    assert gave(entries, "a") == {"memory": ((0, 1), 6 * GI)}
    assert places(bare, entries, asking("5Gi", "b")) == "23"
    assert places(bare, entries, asking("2Gi", "b")) == "2 3 01- 23-"
    assert occupied(bare, entries)[0].group == (0, 1)


def test_where_a_hint_leaves_too_few_nodes_it_is_widened() -> None:
    entries = filled(machine(2), asking("6Gi"), affinity=Hint(frozenset({1}), False))
    assert gave(entries, "u1") == {"memory": ((0, 1), 6 * GI)}


@pytest.mark.parametrize(
    ("before", "wish", "affinity", "why"),
    [
        pytest.param(
            ["3Gi", "3Gi"],
            "3Gi",
            ANYWHERE,
            "failed to get the default NUMA affinity, no NUMA nodes with enough memory is available",
            id="nowhere",
        ),
        pytest.param(["6Gi"], "1Gi", ANY, "failed to find the default preferred hint", id="nowhere preferred"),
        pytest.param(
            ["3Gi"],
            "3Gi",
            Hint(frozenset({0}), True),
            "failed to find NUMA nodes to extend the current topology hint",
            id="not there",
        ),
        pytest.param(
            ["1Gi"], "2Gi", Hint(frozenset({0, 1}), False), "preferred hint violates NUMA node allocation", id="a group"
        ),
    ],
)
def test_what_cannot_be_is_told_in_the_kubelets_words(before: list[str], wish: str, affinity: Hint, why: str) -> None:
    bare = machine(2)
    entries = filled(bare, *(asking(memory, f"before{number}") for number, memory in enumerate(before)))
    own = asking(wish, "wish")
    with pytest.raises(CannotAllocate) as refused:
        allocate(bare, entries, own, own.spec.containers[0], affinity)
    assert str(refused.value) == why


def test_what_init_containers_had_is_used_again() -> None:
    bare = machine(1, memory=4)
    init = (container("small", "1Gi"), container("large", "3Gi"))
    own = pod(containers=[container("c", "2Gi"), container("d", "2Gi")], init=init)
    entries = filled(bare, own)
    assert {name: blocks[0].size // GI for name, blocks in entries["u1"].items()} == {
        "small": 0,
        "large": 0,
        "c": 2,
        "d": 2,
    }
    assert occupied(bare, entries)[0].memory["memory"].free == 0
    assert requested(own) == {"memory": 4 * GI}


def test_sidecars_keep_what_they_have() -> None:
    sidecar = container("side", "2Gi") | {"restartPolicy": "Always"}
    own = pod(containers=[container("c", "2Gi")], init=(container("first", "1Gi"), sidecar))
    entries = filled(machine(1, memory=4), own)
    assert {name: blocks[0].size // GI for name, blocks in entries["u1"].items()} == {"first": 0, "side": 2, "c": 2}


def test_asking_twice_changes_nothing_and_what_is_there_is_hinted_at() -> None:
    bare, own = machine(2), asking("3Gi")
    entries = filled(bare, own, affinity=Hint(frozenset({1}), True))
    assert filled(bare, own) != entries
    assert allocate(bare, entries, own, own.spec.containers[0], ANYWHERE) is entries
    blocks = entries["u1"]["c"]
    assert memoryblocks.known(blocks, {"memory": 3 * GI}) == {"memory": [Hint(frozenset({1}), True)]}
    assert memoryblocks.known(blocks, {"memory": 4 * GI}) is None


def test_an_entry_of_another_machine_is_an_error() -> None:
    with pytest.raises(ValueError, match="NUMA node 5 with memory does not exist"):
        occupied(machine(2), {"u": {"c": (Block((5,), "memory", 1),)}})
