"""What a node agent is told when it starts; the JSON file that `minikube-raw node run --config` reads.

Paths are text so that the file is plain JSON. Nothing in here is secret: keys are named by path.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

import msgspec

from minikube_raw.kubelet import cpuoptions, cputopology, reserved, shutdownperiods


class KubeletOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Without `servers` the agent has no master: it runs the pods of STATE/manifests."""

    node_name: str
    node_ip: str
    servers: tuple[str, ...] = ()  # https://host:port, tried in turn
    ca: str = ""
    client_certificate: str = ""
    client_key: str = ""
    serving_certificate: str = ""
    serving_key: str = ""
    state_dir: str  # survives a power cut: records, upper directories, volumes, logs
    run_dir: str  # belongs to one boot: sockets, namespace pins
    images_dir: str
    cgroup_root: str = ""
    cluster_cidr: str = "10.244.0.0/16"
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    uplink: str = "eth0"
    vni: int = 1
    vxlan_port: int = 8472
    port: int = 10250
    max_pods: int = 110
    pod_pids_limit: int = 4096
    container_log_max_size: int = 10 << 20  # bytes; a larger log is rotated
    container_log_max_files: int = 5  # of one container's log, the current one among them; at least 2
    static_pod_path: str = ""  # directory of static pods; empty: STATE/manifests
    labels: dict[str, str] = {}
    kube_reserved: dict[str, str] = {}  # for our own processes, by resource: see kubelet.reserved
    system_reserved: dict[str, str] = {}  # for all others
    cpu_manager_policy: str = "none"  # or static: see kubelet.cpumanager
    reserved_cpus: str = (
        ""  # under static: the CPUs nobody gets alone, as cpuset(7) lists them; empty: by what is reserved
    )
    cpu_manager_policy_options: dict[str, str] = {}  # of static: see kubelet.cpuoptions
    memory_manager_policy: str = "None"  # or Static: see kubelet.memorymanager
    reserved_memory: tuple[str, ...] = ()  # under Static: "0:memory=1Gi,…" by NUMA node, together what is not for pods
    topology_manager_policy: str = "none"  # or best-effort, restricted, single-numa-node: see kubelet.topologymanager
    topology_manager_scope: str = "container"  # or pod
    topology_manager_policy_options: dict[str, str] = {}
    eviction_hard: dict[str, str] = msgspec.field(default_factory=lambda: dict(reserved.DEFAULT_HARD))
    eviction_soft: dict[str, str] = {}
    eviction_soft_grace_period: dict[str, str] = {}
    eviction_minimum_reclaim: dict[str, str] = {}
    eviction_max_pod_grace_period: int = 0  # seconds, for soft thresholds
    eviction_pressure_transition_period: float = 300.0  # seconds a condition outlasts its cause
    image_gc_high_threshold_percent: int = 85  # of the images' disk in use; from there on unused images go; 100: never
    image_gc_low_threshold_percent: int = 80  # … until so little is in use
    image_minimum_gc_age: float = 120.0  # seconds that an image stays in any case
    image_maximum_gc_age: float = 0.0  # seconds after which an unused image goes though there is room; 0: it stays
    runtime_handlers: tuple[str, ...] = ("minikube-raw", "runc")  # what RuntimeClasses may name of this runtime
    oci_runtimes: dict[str, str] = {}  # handler → command line of an OCI runtime of the host; before those above
    allowed_unsafe_sysctls: tuple[str, ...] = ()  # names, or patterns with * at the end, that pods may set here
    memory_swap_behavior: Literal["NoSwap", "LimitedSwap"] = "NoSwap"  # KEP-2400; on cgroup v2
    memory_qos: bool = False  # KEP-2570: memory.high, on cgroup v2
    memory_reservation_policy: Literal["None", "TieredReservation"] = "None"  # with it: memory.min and memory.low too
    # Seconds by which a shutdown of the machine is delayed for its pods (KEP-2000, KEP-2712), by systemd-logind; 0: none.
    shutdown_grace_period: float = 0.0
    shutdown_grace_period_critical_pods: float = 0.0  # of those, the last ones, for critical pods
    shutdown_grace_period_by_pod_priority: dict[
        str, str
    ] = {}  # instead of both: durations by the priority they begin at

    @property
    def promises_cpus(self) -> bool:
        """Whether CPUs are given away when pods are let in: near other resources, or by whole cores."""
        by_cores = cpuoptions.WHOLE_CORES in cpuoptions.chosen(self.cpu_manager_policy_options)
        return self.topology_manager_policy != "none" or by_cores

    @property
    def reserved(self) -> list[dict[str, str]]:
        """What is not for pods; CPUs that are named are as many as are reserved, whatever else was said."""
        if not self.reserved_cpus:
            return [self.kube_reserved, self.system_reserved]
        named = {"cpu": str(len(cputopology.parse(self.reserved_cpus)))}
        others = {name: amount for name, amount in self.kube_reserved.items() if name != "cpu"}
        return [others, {**self.system_reserved, **named}]

    @property
    def shutdown_periods(self) -> tuple[shutdownperiods.Period, ...]:
        """How long pods have to end when the machine shuts down. Raises ValueError."""
        return shutdownperiods.periods(
            self.shutdown_grace_period,
            self.shutdown_grace_period_critical_pods,
            self.shutdown_grace_period_by_pod_priority,
        )

    @property
    def runtime_commands(self) -> dict[str, list[str]]:
        """The OCI runtimes' commands by handler."""
        return {handler: shlex.split(command) for handler, command in self.oci_runtimes.items()}

    @property
    def reserves_memory(self) -> bool:
        """Whether what pods ask for is kept from reclaim."""
        return self.memory_qos and self.memory_reservation_policy == "TieredReservation"

    @property
    def pods_dir(self) -> Path:
        """Volumes, one directory per pod uid."""
        return Path(self.state_dir, "pods")

    @property
    def volumes_dir(self) -> Path:
        """Volumes that outlive pods, one directory per PersistentVolume that was made for this node."""
        return Path(self.state_dir, "volumes")

    @property
    def memory_dir(self) -> Path:
        """Where the node mounts a tmpfs for volumes that must not reach a disk."""
        return Path(self.run_dir, "volumes")

    @property
    def checkpoints_dir(self) -> Path:
        """Archives of containers that were checkpointed."""
        return Path(self.state_dir, "checkpoints")

    @property
    def logs_dir(self) -> Path:
        """Container logs, one directory per pod."""
        return Path(self.state_dir, "logs")

    @property
    def manifests_dir(self) -> Path:
        """Static pods; without a master all there are."""
        return Path(self.static_pod_path or Path(self.state_dir, "manifests"))

    @property
    def socket(self) -> Path:
        """The agent's API for root on this node."""
        return Path(self.run_dir, "kubelet.sock")


def load(path: str | Path) -> KubeletOptions:
    """Read options. Raises OSError, and ValueError naming the file and the field that is wrong."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=KubeletOptions)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: {error}") from error
