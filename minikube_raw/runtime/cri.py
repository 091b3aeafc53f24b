"""The runtime's border in CRI's words: what the kubelet asks for and what it is told.

Shapes and field names follow k8s.io/cri-api runtime v1 in snake case, so that a CRI socket can be put on this border
without redesign. Only what the runtime acts on is here; nothing in this file touches the kernel.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable
from typing import Protocol

import msgspec


class NamespaceMode(enum.StrEnum):
    """CRI NamespaceMode: whose namespace of a kind a container joins (POD is shared by the pod, NODE is the node's)."""

    POD = "POD"
    CONTAINER = "CONTAINER"
    NODE = "NODE"


class NamespaceOption(msgspec.Struct, frozen=True, gc=False):
    """Which namespaces a pod has of its own; PID is CONTAINER unless the pod shares its process namespace."""

    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.CONTAINER
    ipc: NamespaceMode = NamespaceMode.POD


class DNSConfig(msgspec.Struct, frozen=True):
    """What goes into /etc/resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class PortMapping(msgspec.Struct, frozen=True):
    """A hostPort, handed to CNI as the portMappings capability."""

    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


CREATE_ERROR = "CreateContainerError"  # the reason of what could not even be made: there is no container then
UNIFIED_KEYS = ("memory.min", "memory.low", "memory.high", "memory.oom.group", "memory.swap.max")


class LinuxContainerResources(msgspec.Struct, frozen=True, gc=False):
    """Limits for one cgroup. None means: leave what is there. cpu_quota is µs per cpu_period µs (-1: none); memory is bytes.

    memory_swap_limit_in_bytes is memory and swap together, by default no swap; hugepage_limits are bytes by page size
    ("2MB"); unified are cgroup v2 files (UNIFIED_KEYS), which v1 cannot enforce.
    """

    cpu_shares: int | None = None
    cpu_period: int = 100_000
    cpu_quota: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    memory_limit_in_bytes: int | None = None
    memory_swap_limit_in_bytes: int | None = None
    pids_limit: int | None = None
    oom_score_adj: int = 0
    hugepage_limits: dict[str, int] = {}
    unified: dict[str, str] = {}


class PodSandboxConfig(msgspec.Struct, frozen=True):
    """One pod's shared environment: namespaces, network, host name, /etc files, cgroup parent."""

    name: str
    namespace: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    qualified_name: str = ""  # host.subdomain.namespace.svc.domain, for /etc/hosts; empty without a subdomain
    log_directory: str = ""
    cgroup_parent: str = ""  # below the node's own cgroup, e.g. "kubepods/burstable/pod<uid>"
    namespaces: NamespaceOption = NamespaceOption()
    runtime_handler: str = ""  # of the pod's RuntimeClass; "" and every unknown one: this runtime
    user_namespace: bool = False  # of the pod's own, with ids that the runtime allots (CRI userns_options, mode POD)
    dns: DNSConfig = DNSConfig()
    port_mappings: tuple[PortMapping, ...] = ()
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()  # extra /etc/hosts lines: address → names
    sysctls: dict[str, str] = {}
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    resources: LinuxContainerResources = LinuxContainerResources()  # of the pod's own cgroup


class MountPropagation(enum.StrEnum):
    """CRI MountPropagation."""

    PRIVATE = "PRIVATE"
    HOST_TO_CONTAINER = "HOST_TO_CONTAINER"
    BIDIRECTIONAL = "BIDIRECTIONAL"


class Mount(msgspec.Struct, frozen=True):
    """A bind mount into the container. container_path is resolved inside the root file system.

    sub_path is resolved beneath host_path when the container is started, by descriptor: no link in it leads outside.
    With `image` (an id that the image store knows) it is that image's files that are seen, read-only, and there is no host_path.
    """

    container_path: str
    host_path: str = ""
    image: str = ""
    sub_path: str = ""
    readonly: bool = False
    recursive_read_only: bool = False
    propagation: MountPropagation = MountPropagation.PRIVATE


class Device(msgspec.Struct, frozen=True):
    """A device node of the node's for the container: its own place, the node's, and "r", "w", "rw" (CRI's "m" any container has)."""

    container_path: str
    host_path: str
    permissions: str = "rw"


class ProfileType(enum.StrEnum):
    """CRI SecurityProfile.ProfileType."""

    RUNTIME_DEFAULT = "RuntimeDefault"
    UNCONFINED = "Unconfined"
    LOCALHOST = "Localhost"


class SecurityProfile(msgspec.Struct, frozen=True):
    """CRI SecurityProfile: for seccomp `localhost_ref` is the absolute path of a file, for AppArmor a profile's name."""

    type: ProfileType = ProfileType.RUNTIME_DEFAULT
    localhost_ref: str = ""


class SecurityContext(msgspec.Struct, frozen=True):
    """CRI LinuxContainerSecurityContext. run_as_user/group None: what the image says; supplemental groups add to its own."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    strict_groups: bool = False  # supplementalGroupsPolicy Strict: the image's own /etc/group adds none
    add_capabilities: tuple[str, ...] = ()  # without CAP_, or "ALL"
    drop_capabilities: tuple[str, ...] = ()
    privileged: bool = False
    readonly_rootfs: bool = False
    no_new_privs: bool = False
    unmasked_proc: bool = False
    seccomp: SecurityProfile = SecurityProfile()
    apparmor: SecurityProfile | None = None  # None: the default one, on a node that can confine


class ContainerConfig(msgspec.Struct, frozen=True):
    """One container. Empty command/args mean the image's ENTRYPOINT/CMD, merged as Kubernetes documents it."""

    name: str
    attempt: int
    image: str  # an id (sha256:…) that the image store knows; the kubelet has resolved the reference
    image_name: str = ""  # what the user wrote, for statuses and traces
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    envs: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    log_path: str = ""  # relative to the sandbox's log_directory, e.g. "web/0.log"
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    stop_signal: str = ""  # empty: the image's, else SIGTERM
    pid_target: str = ""  # a container of the pod whose PID namespace it joins (CRI: NamespaceMode TARGET, target_id)
    resources: LinuxContainerResources = LinuxContainerResources()
    security: SecurityContext = SecurityContext()


class SandboxState(enum.StrEnum):
    """CRI PodSandboxState."""

    READY = "SANDBOX_READY"
    NOTREADY = "SANDBOX_NOTREADY"


class ContainerState(enum.StrEnum):
    """CRI ContainerState."""

    CREATED = "CONTAINER_CREATED"
    RUNNING = "CONTAINER_RUNNING"
    EXITED = "CONTAINER_EXITED"
    UNKNOWN = "CONTAINER_UNKNOWN"


class PodSandboxStatus(msgspec.Struct, frozen=True):
    """A sandbox as it is found. created_at is nanoseconds since the epoch."""

    id: str
    config: PodSandboxConfig
    state: SandboxState
    created_at: int
    ips: tuple[str, ...] = ()
    netns: str = ""


class LinuxContainerUser(msgspec.Struct, frozen=True):
    """CRI LinuxContainerUser: as whom a container's first process was started, in the ids of its user namespace."""

    uid: int
    gid: int
    supplemental_groups: tuple[int, ...] = ()  # the primary one first, as containerd gives them


class ContainerStatus(msgspec.Struct, frozen=True):
    """A container as it is found. Times are nanoseconds since the epoch, 0 where it has not happened.

    reason is Completed, Error, OOMKilled, ContainerStatusUnknown or, for a container that never ran, what stopped it
    (StartError) with message saying why.
    """

    id: str
    sandbox_id: str
    name: str
    attempt: int
    image: str
    image_name: str
    state: ContainerState
    created_at: int
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    log_path: str = ""  # absolute
    pid: int = 0  # as the node's PID namespace sees it
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    resources: LinuxContainerResources = LinuxContainerResources()  # as they were enforced last
    user: LinuxContainerUser | None = None  # None: it never ran


class ExecResult(msgspec.Struct, frozen=True):
    """What ExecSync gives back."""

    stdout: bytes
    stderr: bytes
    exit_code: int


class ExecSession(Protocol):
    """A process started in a container, or the container's own streams (attach).

    File descriptors are non-blocking and owned by the session.
    With a terminal stdin and stdout are the same descriptor and stderr is None.
    """

    stdin: int | None
    stdout: int | None
    stderr: int | None

    async def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in characters; does nothing without a terminal."""
        ...

    async def wait(self) -> int:
        """Return the exit code (128 + signal when it was killed)."""
        ...

    def close_stdin(self) -> None:
        """End the process's input; its output goes on. Does nothing with a terminal."""
        ...

    def close(self) -> None:
        """Close the descriptors; a process that is still there gets SIGHUP/EOF but is not killed."""
        ...


class RuntimeServiceError(Exception):
    """A verb failed: `reason` is the container reason Kubernetes would show (StartError, CreateContainerError, …)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RuntimeService(Protocol):
    """CRI's RuntimeService as the kubelet uses it. Every verb may be repeated: asking again continues or confirms."""

    async def run_pod_sandbox(self, config: PodSandboxConfig) -> str:
        """Make namespaces, cgroup, network and /etc files of a pod; return its id. One of the same (uid, attempt) is continued."""
        ...

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Kill what still runs, take the network down. Unknown ids are fine."""
        ...

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Remove every trace of a sandbox and its containers from the node; logs stay (they are the kubelet's)."""
        ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """Record a container and prepare its root file system; return its id."""
        ...

    async def start_container(self, container_id: str) -> None:
        """Run it. Raises RuntimeServiceError with reason StartError when its program cannot be executed."""
        ...

    async def stop_container(self, container_id: str, grace: float) -> None:
        """Send the stop signal, wait up to grace seconds, then kill the whole cgroup. Returns when it is empty."""
        ...

    async def remove_container(self, container_id: str) -> None:
        """Remove a container's files and records (its log stays); it must not run."""
        ...

    async def removals_done(self, seconds: float) -> None:
        """Wait until the files of removed containers are off the disk, for so many seconds at most."""
        ...

    def writable_layer(self, container_id: str) -> str:
        """The directory that holds what a container wrote beside its volumes, whose use counts as its rootfs (CRI's FsId)."""
        ...

    async def update_container_resources(self, container_id: str, resources: LinuxContainerResources) -> None:
        """Change the limits of a container that runs or will. What is None stays; oom_score_adj stays in any case.

        RuntimeServiceError with reason UpdateContainerResourcesError when the kernel refuses, or memory in use would not fit.
        """
        ...

    async def update_pod_sandbox_resources(self, sandbox_id: str, resources: LinuxContainerResources) -> None:
        """Change the limits of a pod's own cgroup. See runtime.resources for the order among a pod and its containers."""
        ...

    async def list_pod_sandboxes(self, uid: str | None = None) -> list[PodSandboxStatus]:
        """All sandboxes that records or the kernel know, or those of one pod."""
        ...

    async def list_containers(self, sandbox_id: str | None = None) -> list[ContainerStatus]:
        """All containers, or those of one sandbox, newest attempt first."""
        ...

    async def container_status(self, container_id: str) -> ContainerStatus | None:
        """One container, or None."""
        ...

    async def reopen_container_log(self, container_id: str) -> None:
        """Write output to a new log file of the same path: the old one was renamed. Raises RuntimeServiceError."""
        ...

    async def checkpoint_container(self, container_id: str, location: str, timeout: float = 0) -> None:
        """Write an archive of a running container to a file; after timeout seconds (0: the runtime's own) give it up."""
        ...

    async def exec_sync(self, container_id: str, command: list[str], timeout: float = 0) -> ExecResult:
        """Run a command in a container and collect its output; after timeout seconds (0: never) kill it and raise TimeoutError."""
        ...

    async def exec(
        self, container_id: str, command: list[str], *, tty: bool = False, stdin: bool = False
    ) -> ExecSession:
        """Run a command in a container with live streams."""
        ...

    async def attach(self, container_id: str) -> ExecSession:
        """Join the streams of a container's first process."""
        ...

    async def port_forward(self, sandbox_id: str, port: int) -> socket.socket:
        """Connect to a port of the sandbox's loopback; the socket is non-blocking. Raises RuntimeServiceError."""
        ...

    def on_change(self, look_again: Callable[[str], None]) -> None:
        """Call look_again(pod uid) whenever something about a pod may have changed (a container ended, a keeper died)."""
        ...

    def on_warning(self, tell: Callable[[str, str], None]) -> None:
        """Call tell(reason, message) for what stops nobody but should be an Event of the node; each limit this host cannot
        enforce is told once.
        """
        ...
