"""What a node is: capacity read from its cgroup subtree, conditions, addresses, facts about its system, its images.

`describe` reads, `node_status` is pure; telling the API server is `registration`'s. Several nodes on one host read the same
code: each sees its own subtree, host name and network.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import psutil

from minikube_raw.api import quantity
from minikube_raw.api.quantity import Quantity
from minikube_raw.client.clock import timestamp
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.linux.cgroup_mounts import hierarchies
from minikube_raw.linux.cgroups import detect, manager
from minikube_raw.linux.pidfd import boot_id

Json = dict[str, Any]
KUBERNETES_VERSION = "v1.36.2"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MOST_IMAGES = 50
_HUGEPAGES = Path("/sys/kernel/mm/hugepages")


class Capacity(msgspec.Struct, frozen=True):
    """What pods can have at most: CPUs, bytes, pods; bytes of huge pages by page size as resources name it ("2Mi")."""

    cpus: float
    memory: int
    ephemeral_storage: int
    pods: int
    hugepages: Mapping[str, int] = {}

    def amounts(self) -> dict[str, str]:
        """As quantities by resource name."""
        millis = round(self.cpus * 1000)
        return {
            "cpu": f"{millis}m" if millis % 1000 else str(millis // 1000),
            "ephemeral-storage": f"{self.ephemeral_storage // 1024}Ki",
            **{f"hugepages-{size}": _binary(amount) for size, amount in sorted(self.hugepages.items())},
            "memory": f"{self.memory // 1024}Ki",
            "pods": str(self.pods),
        }


class System(msgspec.Struct, frozen=True):
    """Facts for people (nodeInfo)."""

    machine_id: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str
    runtime_version: str
    swap: int = 0  # bytes


class NodeImage(msgspec.Struct, frozen=True):
    """An image of the store."""

    names: tuple[str, ...]
    size: int


def read_capacity(cgroup_root: str, state_dir: str, pods: int) -> Capacity:
    """The node's subtree's limits where it has some, else the host's."""
    disk = os.statvfs(state_dir)
    cpus, memory = float(len(os.sched_getaffinity(0))), psutil.virtual_memory().total
    if cgroup_root:
        stats = manager(cgroup_root).stats()
        cpus = min(cpus, stats.cpu_limit or cpus)
        memory = min(memory, stats.memory_limit or memory)
    return Capacity(
        cpus=cpus,
        memory=memory,
        ephemeral_storage=disk.f_blocks * disk.f_frsize,
        pods=pods,
        hugepages=read_hugepages(),
    )


def read_hugepages(root: Path = _HUGEPAGES) -> dict[str, int]:
    """Bytes that the kernel keeps as huge pages, by page size ("2Mi"): all nodes of a host see the same ones."""
    kept = {}
    for path in root.glob("hugepages-*kB"):
        size = int(path.name.removeprefix("hugepages-").removesuffix("kB")) << 10
        kept[_binary(size)] = size * _number(path / "nr_hugepages")
    return kept


def _binary(amount: int) -> str:
    return str(Quantity(amount * quantity.NANO, quantity.BINARY_SI))


def kernel(options: KubeletOptions, memory: int, allocatable: Mapping[str, str]) -> qos.Kernel:
    """What this node's kernel does for every container, by the node's `options`, bytes of memory and what of it is for pods.

    v1 has no memory.oom.group, no memory.min, and no swap apart from memory.
    """
    swap = psutil.swap_memory().total if options.memory_swap_behavior == "LimitedSwap" else 0
    kept = read_hugepages()
    return qos.Kernel(
        oom_group=detect() == "v2",
        memory_qos=options.memory_qos,
        reserves_memory=options.reserves_memory,
        swap=swap if detect() == "v2" else None,
        memory=memory,
        allocatable=quantity.resource(allocatable, "memory").value(),
        hugepage_sizes=tuple(sorted(size for size, amount in kept.items() if amount)),
    )


def pressure_file(cgroup_root: str) -> str:
    """The PSI file of the node's memory, which may not exist."""
    unified = hierarchies().unified
    if not cgroup_root:
        return "/proc/pressure/memory"
    return f"{unified}/{cgroup_root}/memory.pressure" if unified else ""


def most_pids() -> int:
    """How many processes and threads the kernel can have (pid_max, threads-max)."""
    return min(_number(Path("/proc/sys/kernel", name)) for name in ("pid_max", "threads-max"))


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except OSError:
        return 0


def read_system() -> System:
    """Facts that do not change while the node runs."""
    return System(
        machine_id=_first_line("/etc/machine-id"),
        boot_id=boot_id(),
        kernel=platform.release(),
        os_image=platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        runtime_version=f"minikube-raw://{metadata.version('minikube-raw')}",
        swap=psutil.swap_memory().total,
    )


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def new_node(name: str, system: System, labels: dict[str, str], annotations: dict[str, str]) -> Json:
    """The Node object as a node registers itself."""
    own = {
        "beta.kubernetes.io/arch": system.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": system.architecture,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    }
    meta = {"name": name, "labels": own | labels, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}}


def node_status(
    name: str,
    ip: str,
    port: int,
    capacity: Capacity,
    allocatable: dict[str, str],
    system: System,
    images: Iterable[NodeImage],
    not_ready: str,
    before: dict[str, Json],
    now: float,
    pressures: Collection[str] = (),
    handlers: Collection[Json] = (),
) -> Json:
    """NodeStatus.

    `pressures` are the conditions that eviction holds; `not_ready` says what is missing, empty when nothing is; `before`:
    conditions by type as written last; `handlers` are the runtime's (runtimeclasses.described).
    """
    shown = sorted(images, key=lambda image: image.size, reverse=True)[:_MOST_IMAGES]
    return {
        "capacity": capacity.amounts(),
        "allocatable": allocatable,
        "conditions": [_condition(each, before, now) for each in _conditions(not_ready, pressures)],
        "addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": _node_info(system),
        "images": [{"names": list(image.names), "sizeBytes": image.size} for image in shown],
        **({"runtimeHandlers": list(handlers)} if handlers else {}),
    }


def _node_info(system: System) -> Json:
    swap = {"swap": {"capacity": system.swap}} if system.swap else {}
    return {
        **swap,
        "machineID": system.machine_id,
        "systemUUID": system.machine_id,
        "bootID": system.boot_id,
        "kernelVersion": system.kernel,
        "osImage": system.os_image,
        "containerRuntimeVersion": system.runtime_version,
        "kubeletVersion": KUBERNETES_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": system.architecture,
    }


# Type → (reason and message without, reason and message with it): pkg/kubelet/nodestatus/setters.go.
_PRESSURES = {
    "MemoryPressure": (
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
}


# Type → the node's Event (without, with) it; the message is "Node NAME status is now: EVENT".
PRESSURE_EVENTS = {
    "MemoryPressure": ("NodeHasSufficientMemory", "NodeHasInsufficientMemory"),
    "DiskPressure": ("NodeHasNoDiskPressure", "NodeHasDiskPressure"),
    "PIDPressure": ("NodeHasSufficientPID", "NodeHasInsufficientPID"),
}


def _conditions(not_ready: str, pressures: Collection[str]) -> list[tuple[str, str, str, str]]:
    """(type, status, reason, message) in the kubelet's order."""
    ready = ("True", "KubeletReady", "kubelet is posting ready status")
    if not_ready:
        ready = ("False", "KubeletNotReady", not_ready)
    held = [(kind, str(kind in pressures), *words[kind in pressures]) for kind, words in _PRESSURES.items()]
    return [*held, ("Ready", *ready)]


def _condition(wanted: tuple[str, str, str, str], before: dict[str, Json], now: float) -> Json:
    kind, status, reason, message = wanted
    old = before.get(kind, {})
    since = old.get("lastTransitionTime") if old.get("status") == status else None
    return {
        "type": kind,
        "status": status,
        "lastHeartbeatTime": timestamp(now),
        "lastTransitionTime": since or timestamp(now),
        "reason": reason,
        "message": message,
    }


def differs(old: Json, new: Json) -> bool:
    """Whether a status says something new; heartbeat times alone do not count, the Lease is the heartbeat."""

    def without_heartbeat(status: Json) -> Json:
        conditions = [{**each, "lastHeartbeatTime": None} for each in status.get("conditions", ())]
        return {**status, "conditions": conditions}

    return without_heartbeat(old) != without_heartbeat(new)
