"""The memory manager: under the static policy the memory of Guaranteed pods is on NUMA nodes where it was found room for.

`memoryblocks` decides; who has what is kept in a file of the boot, so that a kubelet that comes after knows it. The kernel is
told by cpuset.mems, when a container is made. Words are the kubelet's (pkg/kubelet/cm/memorymanager).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from minikube_raw.api import quantity
from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet import cputopology, memoryblocks, numa, reserved
from minikube_raw.kubelet.measures import Attempts, Measure
from minikube_raw.kubelet.memoryblocks import CannotAllocate, Entries, Machine, Sizes
from minikube_raw.kubelet.numa import NUMANode
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.topologyhints import Hint, Hints
from minikube_raw.linux import durability
from minikube_raw.runtime import cri

NONE, STATIC = "None", "Static"
POLICIES = (NONE, STATIC)
STATE_FILE = "memory_manager_state"


def make(options: KubeletOptions, capacity: int) -> MemoryManager | None:
    """The manager of a node by its options; None where the policy is. Raises ValueError."""
    if options.memory_manager_policy not in POLICIES:
        raise ValueError(
            f"unknown memory manager policy {options.memory_manager_policy!r}: it is one of {', '.join(POLICIES)}"
        )
    if options.memory_manager_policy == NONE:
        return None
    machine, kept = numa.read(), parse_reserved(options.reserved_memory)
    check_reserved(kept, machine, options.reserved, options.eviction_hard, capacity)
    return MemoryManager(machine, kept, Path(options.run_dir, STATE_FILE))


class State(msgspec.Struct, rename="camel"):
    """What the file says: the machine as it is occupied, and by whom."""

    policy_name: str
    machine_state: Machine
    entries: Entries


class MemoryManager:
    """The static policy of one node. Raises ValueError for a file that is none of this machine's."""

    def __init__(self, machine: Sequence[NUMANode], reserved: Mapping[int, Sizes], file: Path) -> None:
        self._bare = memoryblocks.empty(machine, reserved)
        self._file = file
        self._entries = self._read()
        self._attempts = Attempts()

    # -- as the topology manager asks: see topologymanager.Provider --------------------------------------------------

    def hints(self, pod: Pod, container: Container | None) -> Hints:
        """Where the memory of a container, or of a whole pod, could be; nothing for one that has none of its own."""
        wanted = memoryblocks.requested(pod, container)
        own = self._entries.get(pod.metadata.uid, {})
        names = list(own) if container is None else [name for name in own if name == container.name]
        if names:
            return memoryblocks.known(own[names[0]], wanted) or {}
        return memoryblocks.hints(self._bare, self._entries, pod, wanted)

    def allocate(self, pod: Pod, container: Container, affinity: Hint) -> None:
        """Give a container its memory, once. Raises ValueError."""
        if not memoryblocks.requested(pod, container):
            return
        try:
            with self._attempts:
                entries = memoryblocks.allocate(self._bare, self._entries, pod, container, affinity)
        except CannotAllocate as error:
            raise ValueError(f"[memorymanager] {error}") from error
        self._keep(entries)

    def measures(self) -> list[Measure]:
        """What /metrics tells of it."""
        text = "The number of memory pages allocations which required pinning"
        return self._attempts.measures("kubelet_memory_manager_pinning", f"{text}.", f"{text} that failed.")

    def release(self, uid: str) -> None:
        """The pod has ended. Twice is fine."""
        self._keep({known: own for known, own in self._entries.items() if known != uid})

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Only these pods are left on the node."""
        self._keep({known: own for known, own in self._entries.items() if known in uids})

    # -- as containers are made --------------------------------------------------------------------------------------

    def placed(self, config: cri.ContainerConfig, pod: Pod) -> cri.ContainerConfig:
        """The config with the NUMA nodes on which the container's memory is to be; others may have theirs anywhere."""
        blocks = self._entries.get(pod.metadata.uid, {}).get(config.name, ())
        nodes = frozenset(number for block in blocks for number in block.nodes)
        if not nodes:
            return config
        return msgspec.structs.replace(
            config, resources=msgspec.structs.replace(config.resources, cpuset_mems=cputopology.show(nodes))
        )

    # -- what is remembered ------------------------------------------------------------------------------------------

    def _keep(self, entries: Entries) -> None:
        if entries != self._entries:
            self._entries = entries
            state = State(STATIC, memoryblocks.occupied(self._bare, entries), entries)
            durability.write_file(self._file, msgspec.json.encode(state))

    def _read(self) -> Entries:
        try:
            state = msgspec.json.decode(self._file.read_bytes(), type=State)
            expected = memoryblocks.occupied(self._bare, state.entries)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise self._unusable(str(error)) from error
        if state.policy_name != STATIC or expected != state.machine_state:
            raise self._unusable("[memorymanager] the expected machine state is different from the real one")
        return state.entries

    def _unusable(self, why: str) -> ValueError:
        return ValueError(f"{self._file}: {why}: drain the node and remove the file")


def parse_reserved(texts: Collection[str]) -> dict[int, dict[str, int]]:
    """Bytes by NUMA node and resource of "0:memory=1Gi,hugepages-2Mi=64Mi", as --reserved-memory has it. Raises ValueError."""
    found: dict[int, dict[str, int]] = {}
    for text in texts:
        number, colon, pairs = text.partition(":")
        if not colon or not number.isdecimal() or int(number) in found:
            raise ValueError(f"invalid reserved memory {text!r}: it is NUMA-NODE:RESOURCE=AMOUNT,…, once for each node")
        amounts = dict(pair.partition("=")[::2] for pair in pairs.split(","))
        found[int(number)] = {name: quantity.parse(amount).value() for name, amount in amounts.items()}
    return found


def check_reserved(
    kept: Mapping[int, Sizes],
    machine: Sequence[NUMANode],
    node: Sequence[Mapping[str, str]],
    hard: Mapping[str, str],
    capacity: int,
) -> None:
    """What is reserved on NUMA nodes must be what is kept from pods altogether, and something. Raises ValueError.

    `node`: kube- and system-reserved; `hard`: eviction thresholds; `capacity`: bytes of the node's memory.
    """
    for number in kept.keys() - {each.number for each in machine}:
        raise ValueError(
            f"the reserved memory configuration references a NUMA node {number} that does not exist on this machine"
        )
    names = {memoryblocks.MEMORY, *(name for sizes in kept.values() for name in sizes)}
    for name in sorted(names):
        wanted = sum(quantity.resource(each, name).value() for each in node)
        if name == memoryblocks.MEMORY and "memory.available" in hard:
            wanted += reserved.threshold(hard["memory.available"]).of(capacity)
        total = sum(sizes.get(name, 0) for sizes in kept.values())
        if total != wanted:
            raise ValueError(
                f'the total amount "{total}" of type "{name}" is not equal to the value "{wanted}"'
                " determined by Node Allocatable feature"
            )
    if not any(sizes.get(memoryblocks.MEMORY) for sizes in kept.values()):
        raise ValueError("[memorymanager] you should specify the system reserved memory")
