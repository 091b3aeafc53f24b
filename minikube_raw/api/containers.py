"""core/v1 containers as read-only views: what runs, with which environment, resources, probes and privileges."""

from __future__ import annotations

import msgspec

from minikube_raw.api.meta import IntOrString, View
from minikube_raw.api.volumes import ObjectFieldSelector, ResourceFieldSelector, VolumeDevice, VolumeMount

QuantityText = str | int | float


class KeySelector(View, frozen=True, gc=False):
    """A key of a ConfigMap or Secret."""

    name: str = ""
    key: str = ""
    optional: bool = False


class FileKeySelector(View, frozen=True, gc=False):
    """A variable of an env file at `path` in an emptyDir (KEP-3721)."""

    volume_name: str = ""
    path: str = ""
    key: str = ""
    optional: bool = False


class EnvVarSource(View, frozen=True, gc=False):
    """Where a variable's value comes from; exactly one field is set."""

    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    file_key_ref: FileKeySelector | None = None


class EnvVar(View, frozen=True, gc=False):
    """A variable; `value` may refer to earlier ones as $(NAME)."""

    name: str = ""
    value: str = ""
    value_from: EnvVarSource | None = None


class EnvSource(View, frozen=True, gc=False):
    """A whole ConfigMap or Secret as variables."""

    name: str = ""
    optional: bool = False


class EnvFromSource(View, frozen=True, gc=False):
    """All keys of a ConfigMap or Secret, each name preceded by `prefix`."""

    prefix: str = ""
    config_map_ref: EnvSource | None = None
    secret_ref: EnvSource | None = None


class ContainerPort(View, frozen=True, gc=False):
    """A port the container listens on; `host_port` 0 means none."""

    name: str = ""
    container_port: int = 0
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")
    protocol: str = "TCP"


class ResourceRequirements(View, frozen=True, gc=False):
    """Limits and requests as quantities by resource name."""

    limits: dict[str, QuantityText] = {}
    requests: dict[str, QuantityText] = {}


class ContainerResizePolicy(View, frozen=True, gc=False):
    """What a container needs to take a changed amount: `restart_policy` is NotRequired or RestartContainer."""

    resource_name: str = ""
    restart_policy: str = ""


class ExecAction(View, frozen=True, gc=False):
    """A command run in the container; exit status 0 is success."""

    command: tuple[str, ...] = ()


class HTTPHeader(View, frozen=True, gc=False):
    """A header of a probe's request."""

    name: str = ""
    value: str = ""


class HTTPGetAction(View, frozen=True, gc=False):
    """An HTTP GET; 200–399 is success. `port` is a number or a port's name; an empty host means the pod's IP."""

    port: IntOrString = 0
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPSocketAction(View, frozen=True, gc=False):
    """A TCP connection."""

    port: IntOrString = 0
    host: str = ""


class GRPCAction(View, frozen=True, gc=False):
    """A call of grpc.health.v1.Health/Check."""

    port: int = 0
    service: str = ""


class SleepAction(View, frozen=True, gc=False):
    """A pause before the container is stopped."""

    seconds: int = 0


class Probe(View, frozen=True, gc=False):
    """A check repeated every `period_seconds`; exactly one of exec_, http_get, tcp_socket, grpc is set."""

    exec_: ExecAction | None = msgspec.field(default=None, name="exec")
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class LifecycleHandler(View, frozen=True, gc=False):
    """What to do at a point of a container's life."""

    exec_: ExecAction | None = msgspec.field(default=None, name="exec")
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(View, frozen=True, gc=False):
    """Hooks after start and before stop; `stop_signal` is a name such as SIGUSR1."""

    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str = ""


class Capabilities(View, frozen=True, gc=False):
    """Capabilities added to and dropped from the default set, without CAP_; ALL means all."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class Profile(View, frozen=True, gc=False):
    """A seccomp or AppArmor profile; `type` is RuntimeDefault, Unconfined or Localhost."""

    type: str = ""
    localhost_profile: str = ""


class SELinuxOptions(View, frozen=True, gc=False):
    """The SELinux label."""

    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class SecurityContext(View, frozen=True, gc=False):
    """A container's privileges. None means: as the pod says, and if it does not, as the image does."""

    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None
    proc_mount: str = "Default"
    seccomp_profile: Profile | None = None
    app_armor_profile: Profile | None = None
    se_linux_options: SELinuxOptions | None = None


class ContainerRestartRuleOnExitCodes(View, frozen=True, gc=False):
    """Exit codes a rule is about; `operator` is In or NotIn."""

    operator: str = ""
    values: tuple[int, ...] = ()


class ContainerRestartRule(View, frozen=True, gc=False):
    """What follows an exit with certain codes; `action` is Restart or RestartAllContainers."""

    action: str = ""
    exit_codes: ContainerRestartRuleOnExitCodes | None = None


class Container(View, frozen=True, gc=False):
    """core/v1.Container, init and ephemeral ones too. `restart_policy` Always on an init container: a sidecar."""

    name: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    resize_policy: tuple[ContainerResizePolicy, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    volume_devices: tuple[VolumeDevice, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    image_pull_policy: str = ""
    security_context: SecurityContext | None = None
    restart_policy: str = ""
    restart_policy_rules: tuple[ContainerRestartRule, ...] = ()
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    target_container_name: str = ""


class ContainerStateWaiting(View, frozen=True, gc=False):
    """Not running yet, or between two runs: ContainerCreating, ErrImagePull, CrashLoopBackOff, …"""

    reason: str = ""
    message: str = ""


class ContainerStateRunning(View, frozen=True, gc=False):
    """Running since."""

    started_at: str | None = None


class ContainerStateTerminated(View, frozen=True, gc=False):
    """Ended; `signal` is not 0 when it died of one."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = msgspec.field(default="", name="containerID")


class ContainerState(View, frozen=True, gc=False):
    """One of three."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerUser(View, frozen=True, gc=False):
    """The identity the first process has, under `linux`."""

    linux: dict[str, int | list[int]] | None = None


class ContainerStatus(View, frozen=True, gc=False):
    """core/v1.ContainerStatus. `started` None means not known yet."""

    name: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    container_id: str = msgspec.field(default="", name="containerID")
    started: bool | None = None
    allocated_resources: dict[str, QuantityText] = {}
    resources: ResourceRequirements | None = None
    user: ContainerUser | None = None
