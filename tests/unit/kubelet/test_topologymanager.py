"""Pods let in by where their CPUs and their memory can be, on a machine of two NUMA nodes of four CPUs and 4 GiB each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_runtime import FakeRuntime
from pod_builders import pod
from worked_node import Node

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import cpuoptions, memorymanager, topologymanager
from minikube_raw.kubelet.admission import Refusal
from minikube_raw.kubelet.cpumanager import CPUManager
from minikube_raw.kubelet.cputopology import CPU, show
from minikube_raw.kubelet.memorymanager import MemoryManager, check_reserved, parse_reserved
from minikube_raw.kubelet.numa import NUMANode
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.room import NodeView, Room
from minikube_raw.kubelet.topologyhints import BEST_EFFORT, NONE, RESTRICTED, SINGLE, Hint
from minikube_raw.kubelet.topologymanager import TopologyManager

GI = 1 << 30
CPUS = tuple(CPU(socket=n // 4, core=n % 4, number=n, node=n // 4) for n in range(8))
NODES = tuple(
    NUMANode(number, {"memory": 4 * GI + GI // 2}, {0: 10 + 11 * number, 1: 21 - 11 * number}) for number in range(2)
)
RESERVED = {0: {"memory": GI // 2}, 1: {"memory": GI // 2}}
ROOMY = NodeView("n1", {"cpu": "8", "memory": "9Gi", "pods": "110"}, pinning=("Memory Manager",))
AFFINITY = Refusal("TopologyAffinityError", "Resources cannot be allocated with Topology locality")


class Host:
    """A machine with its managers; `restart` is a kubelet's."""

    def __init__(self, directory: Path, policy: str, scope: str = "container") -> None:
        self.runtime = FakeRuntime()
        self._file, self._policy, self._scope = directory / "memory_manager_state", policy, scope
        self.restart()

    def restart(self) -> None:
        self.cpus = CPUManager(self.runtime, "static", CPUS, frozenset({0}))
        self.memory = MemoryManager(NODES, RESERVED, self._file)
        providers = [self.memory] if self._policy == NONE else [self.cpus.promises, self.memory]
        self.topology = TopologyManager(providers, NODES, self._policy, self._scope)
        self.room = Room(lambda: ROOMY, self.topology)

    def admit(self, *pods: Pod) -> Refusal | None:
        """The last one's refusal."""
        refused = None
        for each in pods:
            refused = self.room.refusal(each, started=False)
        return refused

    def nodes(self, uid: str, container: str = "c") -> tuple[str, str]:
        """The container's CPUs, and the NUMA nodes of its memory."""
        blocks = self.memory._entries.get(uid, {}).get(container, ())
        cpus = self.cpus.promises.of(uid, container) or frozenset()
        return show(cpus), show(frozenset(number for block in blocks for number in block.nodes))


def container(name: str, cpu: int, memory: str) -> dict[str, Any]:
    return {"name": name, "image": "busybox", "resources": {"limits": {"cpu": str(cpu), "memory": memory}}}


def asking(uid: str, cpu: int, memory: str, *others: dict[str, Any], **spec: Any) -> Pod:
    return pod(containers=[container("c", cpu, memory), *others], metadata={"uid": uid, "name": uid}, **spec)


@pytest.mark.parametrize("policy", [BEST_EFFORT, RESTRICTED, SINGLE])
def test_cpus_and_memory_are_on_the_same_node(tmp_path: Path, policy: str) -> None:
    host = Host(tmp_path, policy)
    assert host.admit(asking("a", 2, "1Gi"), asking("b", 2, "3500Mi"), asking("c", 1, "1Gi")) is None
    assert host.nodes("a") == ("1-2", "0")
    assert host.nodes("b") == ("4-5", "1")
    assert host.nodes("c") == ("3", "0")


@pytest.mark.parametrize(("policy", "refusal"), [(BEST_EFFORT, None), (RESTRICTED, AFFINITY), (SINGLE, AFFINITY)])
def test_what_no_node_has_together_is_refused_by_the_strict_policies_alone(
    tmp_path: Path, policy: str, refusal: Refusal | None
) -> None:
    host = Host(tmp_path, policy)
    # CPUs are left on node 1 alone, memory on node 0.
    assert host.admit(asking("a", 3, "1Gi"), asking("b", 1, "3500Mi"), asking("wish", 1, "2Gi")) == refusal


async def test_metrics_count_who_asked_and_who_was_refused_and_what_is_given(tmp_path: Path) -> None:
    host = Host(tmp_path, SINGLE)
    assert host.admit(pod(metadata={"uid": "shared"}), asking("a", 3, "1Gi"), asking("b", 1, "1Gi")) is None
    assert host.admit(asking("wide", 4, "1Gi")) == AFFINITY
    told = [*await host.cpus.measures(), *host.memory.measures(), *host.topology.measures()]
    assert {(each.name.removeprefix("kubelet_"), *each.labels.values()): each.value for each in told} == {
        ("cpu_manager_pinning_requests_total",): 2,
        ("cpu_manager_pinning_errors_total",): 0,
        ("cpu_manager_shared_pool_size_millicores",): 3000,
        ("cpu_manager_exclusive_cpu_allocation_count",): 4,
        ("cpu_manager_allocation_per_numa", "0"): 3,
        ("cpu_manager_allocation_per_numa", "1"): 1,
        ("memory_manager_pinning_requests_total",): 2,
        ("memory_manager_pinning_errors_total",): 0,
        ("topology_manager_admission_requests_total",): 4,
        ("topology_manager_admission_errors_total",): 1,
    }


def test_memory_that_cannot_be_had_is_counted(tmp_path: Path) -> None:
    host = Host(tmp_path, NONE)
    refused = host.admit(asking("a", 1, "1Gi"), asking("wish", 1, "5Gi"))
    assert refused is not None
    assert refused.reason == "UnexpectedAdmissionError"
    assert [each.value for each in host.memory.measures()] == [2, 1]


def test_a_refused_pod_holds_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, SINGLE)
    assert host.admit(asking("a", 3, "1Gi"), asking("b", 2, "1Gi")) is None
    assert host.admit(asking("wish", 1, "1Gi", container("d", 2, "1Gi"))) == AFFINITY
    assert host.nodes("wish") == ("", "")
    assert host.admit(asking("modest", 2, "1Gi")) is None


def test_two_nodes_are_restricted_enough_but_not_single(tmp_path: Path) -> None:
    wide = asking("a", 6, "6Gi")
    assert Host(tmp_path, SINGLE).admit(wide) == AFFINITY
    host = Host(tmp_path, RESTRICTED)
    assert host.admit(wide) is None
    assert host.nodes("a") == ("1-2,4-7", "0-1")


def test_by_container_each_is_somewhere_and_by_pod_all_are_together(tmp_path: Path) -> None:
    pair = asking("a", 2, "1Gi", container("d", 2, "1Gi"))
    apart = Host(tmp_path, SINGLE)
    assert apart.admit(pair) is None
    assert (apart.nodes("a"), apart.nodes("a", "d")) == (("1-2", "0"), ("4-5", "1"))

    (tmp_path / "memory_manager_state").unlink()
    together = Host(tmp_path, SINGLE, "pod")
    assert together.admit(pair) is None
    assert (together.nodes("a"), together.nodes("a", "d")) == (("4-5", "1"), ("6-7", "1"))
    assert together.admit(asking("b", 2, "1Gi", container("d", 2, "1Gi"))) == AFFINITY


def test_init_containers_cpus_are_used_again_on_their_node(tmp_path: Path) -> None:
    host = Host(tmp_path, SINGLE)
    assert host.admit(asking("a", 3, "2Gi")) is None
    own = pod(containers=[container("c", 3, "3Gi")], init=(container("first", 2, "1Gi"),), metadata={"uid": "b"})
    assert host.admit(own) is None
    assert (host.nodes("b", "first"), host.nodes("b")) == (("4-5", "1"), ("4-6", "1"))


def test_without_a_topology_policy_memory_that_fits_nowhere_is_unexpected(tmp_path: Path) -> None:
    host = Host(tmp_path, NONE)
    why = "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"
    assert host.admit(asking("a", 1, "3Gi"), asking("b", 1, "3Gi"), asking("wish", 1, "2Gi")) == Refusal(
        "UnexpectedAdmissionError", f"Allocate failed due to {why}, which is unexpected"
    )
    host.room.release("a")
    assert host.admit(asking("wish", 1, "2Gi")) is None


def test_a_guaranteed_pod_is_not_resized_beside_it(tmp_path: Path) -> None:
    host = Host(tmp_path, NONE)
    host.admit(asking("a", 1, "1Gi"))
    message = "Resize is infeasible for Guaranteed Pods alongside Memory Manager static policy"
    assert host.room.resize(asking("a", 1, "2Gi")) == ("Infeasible", message, "Infeasible")


async def test_a_kubelet_that_comes_after_knows_who_has_what(tmp_path: Path) -> None:
    host = Host(tmp_path, SINGLE)
    host.admit(asking("a", 2, "1Gi"), asking("b", 2, "3500Mi"), asking("gone", 1, "100Mi"))

    host.restart()
    host.room.refusal(asking("b", 2, "3500Mi"), started=True)
    host.room.refusal(asking("a", 2, "1Gi"), started=True)
    host.topology.forget_all_but({"a", "b"})

    assert [host.nodes(uid)[1] for uid in ("a", "b", "gone")] == ["0", "1", ""]
    assert host.nodes("b")[0] == "4-5"


def test_the_file_says_what_a_kubelets_says(tmp_path: Path) -> None:
    host = Host(tmp_path, NONE)
    host.admit(asking("a", 1, "3Gi"))
    state = msgspec.json.decode((tmp_path / "memory_manager_state").read_bytes())
    assert state["policyName"] == "Static"
    assert state["entries"] == {"a": {"c": [{"numaAffinity": [0], "type": "memory", "size": 3 * GI}]}}
    assert state["machineState"]["0"] == {
        "numberOfAssignments": 1,
        "memoryMap": {
            "memory": {
                "total": 4 * GI + GI // 2,
                "systemReserved": GI // 2,
                "allocatable": 4 * GI,
                "reserved": 3 * GI,
                "free": GI,
            }
        },
        "nodes": [0],
    }


@pytest.mark.parametrize("content", [b"{", b'{"policyName": "Static"}'])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "memory_manager_state").write_bytes(content)
    with pytest.raises(ValueError, match=r"memory_manager_state: .*: drain the node and remove the file"):
        Host(tmp_path, NONE)


def test_a_file_of_another_machine_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path, NONE)
    host.admit(asking("a", 1, "3Gi"))
    with pytest.raises(ValueError, match="the expected machine state is different from the real one"):
        MemoryManager(NODES, {0: {"memory": GI}}, tmp_path / "memory_manager_state")


async def test_a_container_is_made_on_its_nodes(tmp_path: Path, node: Node, eventually: Any) -> None:
    host = Host(tmp_path, SINGLE)
    cpus = CPUManager(node.runtime, "static", CPUS, frozenset({0}))
    topology = TopologyManager([cpus.promises, host.memory], NODES, SINGLE)
    room = Room(lambda: ROOMY, topology)
    node.use(msgspec.structs.replace(node.tools, cpus=cpus, memory=host.memory, room=room))
    for wish in (asking("a", 1, "3500Mi"), asking("b", 2, "3Gi"), pod("c", metadata={"uid": "plain", "name": "plain"})):
        node.workers.update(wish)
        await eventually(
            lambda uid=wish.metadata.uid: any(node.uid_of(each) == uid for each in node.runtime.containers.values())
        )
    await eventually(lambda: len(node.runtime.containers) == 3)

    made = {node.uid_of(each): each.resources for each in node.runtime.containers.values()}
    assert (made["a"].cpuset_cpus, made["a"].cpuset_mems) == ("1", "0")
    assert (made["b"].cpuset_cpus, made["b"].cpuset_mems) == ("4-5", "1")
    assert made["plain"].cpuset_mems is None


async def test_cpus_that_were_promised_are_no_others(tmp_path: Path, node: Node, eventually: Any) -> None:
    cpus = CPUManager(node.runtime, "static", CPUS, frozenset({0}))
    topology = TopologyManager([cpus.promises], NODES, SINGLE)
    assert topology.refusal(asking("early", 2, "1Gi")) is None
    node.use(msgspec.structs.replace(node.tools, cpus=cpus))  # its pods have not been promised anything

    node.workers.update(asking("late", 1, "1Gi"))
    await eventually(lambda: node.runtime.containers)

    (made,) = node.runtime.containers.values()
    assert made.resources.cpuset_cpus == "3"
    later = CPUManager(node.runtime, "static", CPUS, frozenset({0}))
    await later.recover()
    assert later.promises.of("late", "c") == {3}


# -- what is reserved, and options -----------------------------------------------------------------------------------------


def test_reserved_memory_is_what_is_kept_from_pods_altogether() -> None:
    kept = parse_reserved(["0:memory=600Mi,hugepages-2Mi=4Mi", "1:memory=524Mi"])
    assert kept == {0: {"memory": 600 << 20, "hugepages-2Mi": 4 << 20}, 1: {"memory": 524 << 20}}
    amounts = [{"memory": "512Mi"}, {"memory": "512Mi", "cpu": "1", "hugepages-2Mi": "4Mi"}]
    check_reserved(kept, NODES, amounts, {"memory.available": "100Mi"}, 8 * GI)
    with pytest.raises(ValueError, match='the total amount "1178599424" of type "memory" is not equal to the value'):
        check_reserved(kept, NODES, amounts, {"memory.available": "10%"}, 8 * GI)
    with pytest.raises(ValueError, match="references a NUMA node 1 that does not exist on this machine"):
        check_reserved(kept, NODES[:1], amounts, {}, 8 * GI)
    with pytest.raises(ValueError, match="you should specify the system reserved memory"):
        check_reserved({}, NODES, [], {}, 8 * GI)


@pytest.mark.parametrize("text", ["memory=1Gi", "x:memory=1Gi", "0:memory", "0:memory=lots"])
def test_reserved_memory_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_reserved([text])


@pytest.mark.parametrize(
    ("policy", "scope", "options", "nodes", "why"),
    [
        ("strict", "pod", {}, 1, "unknown topology manager policy 'strict'"),
        (SINGLE, "node", {}, 1, "unknown topology manager scope 'node'"),
        (SINGLE, "pod", {"prefer-far": "true"}, 1, "unknown Topology Manager Policy option: prefer-far"),
        (SINGLE, "pod", {"prefer-closest-numa-nodes": "yes"}, 1, "bad value for option"),
        (SINGLE, "pod", {"max-allowable-numa-nodes": "4"}, 1, "the minimum value of max-allowable-numa-nodes is 8"),
        (SINGLE, "pod", {}, 9, "unsupported on machines with more than 8 NUMA Nodes"),
    ],
)
def test_options_that_cannot_be_are_named(
    policy: str, scope: str, options: dict[str, str], nodes: int, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        topologymanager.check(policy, scope, options, nodes)


def test_large_machines_are_for_those_who_ask_for_them() -> None:
    assert not topologymanager.check(SINGLE, "pod", {"max-allowable-numa-nodes": "16"}, 9)
    assert not topologymanager.check(NONE, "container", {}, 9)
    assert topologymanager.check(BEST_EFFORT, "pod", {"prefer-closest-numa-nodes": "true"}, 2)


def options(**given: Any) -> KubeletOptions:
    return KubeletOptions(node_name="n", node_ip="", state_dir="", run_dir="", images_dir="", **given)


def test_who_has_no_static_policy_keeps_no_pod_away() -> None:
    assert memorymanager.make(options(), GI) is None
    for policy in (NONE, SINGLE):
        manager = topologymanager.make(options(topology_manager_policy=policy), None, None)
        assert manager.refusal(asking("a", 600, "600Gi")) is None
    with pytest.raises(ValueError, match="unknown memory manager policy 'static'"):
        memorymanager.make(options(memory_manager_policy="static"), GI)


# Two sockets of two NUMA nodes of two CPUs each.
SUBNUMA = tuple(CPU(socket=n // 4, core=n % 4, number=n, node=n // 2) for n in range(8))
QUARTERS = tuple(NUMANode(number, {"memory": GI}) for number in range(4))


@pytest.mark.parametrize(
    ("options", "refusal", "cpus"),
    [
        pytest.param((), AFFINITY, "", id="on two nodes where one would do: not restricted enough"),
        pytest.param(("align-by-socket",), None, "1-2", id="on two nodes of one socket"),
    ],
)
def test_by_socket_its_nodes_are_as_good_as_one(options: tuple[str, ...], refusal: Refusal | None, cpus: str) -> None:
    promises = CPUManager(FakeRuntime(), "static", SUBNUMA, frozenset({0, 3, 4, 6}), options).promises
    manager = TopologyManager([promises], QUARTERS, RESTRICTED)
    assert manager.refusal(asking("wish", 2, "1Mi")) == refusal
    assert show(promises.of("wish", "c") or frozenset()) == cpus


@pytest.mark.parametrize(("options", "cpus"), [((), "1,5"), (("align-by-socket",), "2-3")])
def test_by_socket_its_other_nodes_are_taken_before_those_of_another(options: tuple[str, ...], cpus: str) -> None:
    promises = CPUManager(FakeRuntime(), "static", SUBNUMA, frozenset({0, 4, 6, 7}), options).promises
    wish = asking("wish", 2, "1Mi")
    promises.allocate(wish, wish.spec.containers[0], Hint(frozenset({0}), False))
    assert show(promises.of("wish", "c") or frozenset()) == cpus


def test_sockets_without_nodes_of_their_own_and_a_single_node_do_not_go_with_it() -> None:
    cpuoptions.check_by_socket(SUBNUMA, RESTRICTED)
    with pytest.raises(ValueError, match="policy single-numa-node is incompatible"):
        cpuoptions.check_by_socket(SUBNUMA, SINGLE)
    with pytest.raises(ValueError, match="more sockets than NUMA nodes"):
        cpuoptions.check_by_socket([CPU(socket=n, core=n, number=n) for n in range(2)], RESTRICTED)
