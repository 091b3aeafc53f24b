"""core/v1 kinds as read-only views: Pod, Node, Namespace, ConfigMap, Secret, Service, ServiceAccount, Event.

Containers and volumes live in modules of their own and are reachable from here, so that readers say `core.Container`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from minikube_raw.api.containers import (
    Capabilities,
    Container,
    ContainerPort,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    ExecAction,
    FileKeySelector,
    GRPCAction,
    HTTPGetAction,
    KeySelector,
    Lifecycle,
    LifecycleHandler,
    Probe,
    Profile,
    QuantityText,
    ResourceRequirements,
    SecurityContext,
    SELinuxOptions,
    TCPSocketAction,
)
from minikube_raw.api.meta import Condition, IntOrString, ListMeta, ObjectMeta, View
from minikube_raw.api.volumes import (
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    DownwardAPIVolumeSource,
    EmptyDirVolumeSource,
    HostPathVolumeSource,
    KeyToPath,
    ObjectFieldSelector,
    ProjectedVolumeSource,
    ResourceFieldSelector,
    SecretVolumeSource,
    Volume,
    VolumeMount,
    VolumeProjection,
)

__all__ = [
    "Binding",
    "Capabilities",
    "ConfigMap",
    "ConfigMapVolumeSource",
    "Container",
    "ContainerPort",
    "ContainerState",
    "ContainerStateRunning",
    "ContainerStateTerminated",
    "ContainerStateWaiting",
    "ContainerStatus",
    "DownwardAPIVolumeFile",
    "DownwardAPIVolumeSource",
    "EmptyDirVolumeSource",
    "EnvFromSource",
    "EnvVar",
    "EnvVarSource",
    "Event",
    "EventSource",
    "ExecAction",
    "FileKeySelector",
    "GRPCAction",
    "HTTPGetAction",
    "HostPathVolumeSource",
    "KeySelector",
    "KeyToPath",
    "Lifecycle",
    "LifecycleHandler",
    "Namespace",
    "Node",
    "NodeSpec",
    "NodeStatus",
    "ObjectFieldSelector",
    "ObjectReference",
    "Pod",
    "PodIP",
    "PodList",
    "PodSecurityContext",
    "PodSpec",
    "PodStatus",
    "PodTemplateSpec",
    "Probe",
    "Profile",
    "ProjectedVolumeSource",
    "ResourceFieldSelector",
    "ResourceRequirements",
    "SELinuxOptions",
    "Secret",
    "SecretVolumeSource",
    "SecurityContext",
    "Service",
    "ServiceAccount",
    "ServicePort",
    "ServiceSpec",
    "TCPSocketAction",
    "Taint",
    "Toleration",
    "Volume",
    "VolumeMount",
    "VolumeProjection",
]


class ObjectReference(View, frozen=True, gc=False):
    """core/v1.ObjectReference: what an Event or a Binding is about."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class LocalObjectReference(View, frozen=True, gc=False):
    """A name in the same namespace."""

    name: str = ""


class Toleration(View, frozen=True, gc=False):
    """What taint a pod stands, and for how long; an empty key with Exists stands all, an empty effect any."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class Taint(View, frozen=True, gc=False):
    """What keeps pods off a node: NoSchedule, PreferNoSchedule or NoExecute."""

    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class Sysctl(View, frozen=True, gc=False):
    """A kernel parameter of the pod's namespaces."""

    name: str = ""
    value: str = ""


class PodSecurityContext(View, frozen=True, gc=False):
    """Privileges of all containers of a pod unless theirs say otherwise."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    fs_group_change_policy: str = ""
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: str = ""
    sysctls: tuple[Sysctl, ...] = ()
    seccomp_profile: Profile | None = None
    app_armor_profile: Profile | None = None
    se_linux_options: SELinuxOptions | None = None


class PodDNSConfigOption(View, frozen=True, gc=False):
    """An option of resolv.conf."""

    name: str = ""
    value: str | None = None


class PodDNSConfig(View, frozen=True, gc=False):
    """What is added to the resolv.conf that dnsPolicy makes."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class HostAlias(View, frozen=True, gc=False):
    """A line of the pod's /etc/hosts."""

    ip: str = ""
    hostnames: tuple[str, ...] = ()


class PodReadinessGate(View, frozen=True, gc=False):
    """A condition that must be True before the pod is Ready."""

    condition_type: str = ""


class PodOS(View, frozen=True, gc=False):
    """The operating system that a pod is for: linux or windows."""

    name: str = ""


class PodResourceClaim(View, frozen=True, gc=False):
    """A claim of a device (dynamic resource allocation) by the name that containers ask for it by."""

    name: str = ""


class PodSchedulingGate(View, frozen=True, gc=False):
    """What must go before the pod is scheduled."""

    name: str = ""


class PodSpec(View, frozen=True, gc=False):
    """core/v1.PodSpec; `affinity` and `topology_spread_constraints` stay plain data for the scheduler."""

    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    node_name: str = ""
    node_selector: dict[str, str] = {}
    affinity: dict[str, Any] | None = None
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    scheduler_name: str = "default-scheduler"
    scheduling_gates: tuple[PodSchedulingGate, ...] = ()
    priority: int = 0
    priority_class_name: str = ""
    preemption_policy: str = ""
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    readiness_gates: tuple[PodReadinessGate, ...] = ()
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    host_users: bool | None = None
    share_process_namespace: bool = False
    security_context: PodSecurityContext = PodSecurityContext()
    dns_policy: str = "ClusterFirst"
    dns_config: PodDNSConfig | None = None
    hostname: str = ""
    hostname_override: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = msgspec.field(default=False, name="setHostnameAsFQDN")
    host_aliases: tuple[HostAlias, ...] = ()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    enable_service_links: bool = True
    runtime_class_name: str = ""
    overhead: dict[str, QuantityText] = {}
    resources: ResourceRequirements | None = None
    resource_claims: tuple[PodResourceClaim, ...] = ()
    os: PodOS = PodOS()


class PodIP(View, frozen=True, gc=False):
    """An address in podIPs or hostIPs."""

    ip: str = ""


class PodStatus(View, frozen=True, gc=False):
    """core/v1.PodStatus; `phase` is Pending, Running, Succeeded, Failed or Unknown."""

    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    reason: str = ""
    message: str = ""
    nominated_node_name: str = ""
    host_ip: str = msgspec.field(default="", name="hostIP")
    host_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="hostIPs")
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    start_time: str | None = None
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    ephemeral_container_statuses: tuple[ContainerStatus, ...] = ()
    qos_class: str = ""
    observed_generation: int = 0
    resources: ResourceRequirements | None = None
    allocated_resources: dict[str, QuantityText] = {}


class Pod(View, frozen=True, gc=False):
    """core/v1.Pod."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodList(View, frozen=True, gc=False):
    """core/v1.PodList."""

    metadata: ListMeta = ListMeta()
    items: tuple[Pod, ...] = ()


class PodTemplateSpec(View, frozen=True, gc=False):
    """What a controller makes pods from."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


class Binding(View, frozen=True, gc=False):
    """core/v1.Binding: the scheduler's decision, posted to a pod's binding subresource."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    target: ObjectReference = ObjectReference()


class NodeSpec(View, frozen=True, gc=False):
    """core/v1.NodeSpec."""

    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: tuple[str, ...] = msgspec.field(default=(), name="podCIDRs")
    provider_id: str = msgspec.field(default="", name="providerID")
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeAddress(View, frozen=True, gc=False):
    """`type` is InternalIP, ExternalIP or Hostname."""

    type: str = ""
    address: str = ""


class DaemonEndpoint(View, frozen=True, gc=False):
    """A port; the wire spells it with a capital."""

    port: int = msgspec.field(default=0, name="Port")


class NodeDaemonEndpoints(View, frozen=True, gc=False):
    """Where the node's kubelet listens."""

    kubelet_endpoint: DaemonEndpoint = DaemonEndpoint()


class NodeSystemInfo(View, frozen=True, gc=False):
    """What runs on the node, for people."""

    machine_id: str = msgspec.field(default="", name="machineID")
    system_uuid: str = msgspec.field(default="", name="systemUUID")
    boot_id: str = msgspec.field(default="", name="bootID")
    kernel_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""
    kubelet_version: str = ""
    kube_proxy_version: str = ""
    operating_system: str = ""
    architecture: str = ""


class ContainerImage(View, frozen=True, gc=False):
    """An image present on the node."""

    names: tuple[str, ...] = ()
    size_bytes: int = 0


class NodeStatus(View, frozen=True, gc=False):
    """core/v1.NodeStatus."""

    capacity: dict[str, QuantityText] = {}
    allocatable: dict[str, QuantityText] = {}
    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    daemon_endpoints: NodeDaemonEndpoints = NodeDaemonEndpoints()
    node_info: NodeSystemInfo = NodeSystemInfo()
    images: tuple[ContainerImage, ...] = ()


class Node(View, frozen=True, gc=False):
    """core/v1.Node."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class NamespaceSpec(View, frozen=True, gc=False):
    """core/v1.NamespaceSpec."""

    finalizers: tuple[str, ...] = ()


class NamespaceStatus(View, frozen=True, gc=False):
    """`phase` is Active or Terminating."""

    phase: str = ""
    conditions: tuple[Condition, ...] = ()


class Namespace(View, frozen=True, gc=False):
    """core/v1.Namespace."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


class ConfigMap(View, frozen=True, gc=False):
    """core/v1.ConfigMap; `binary_data` values are base64."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}
    immutable: bool = False


class Secret(View, frozen=True, gc=False):
    """core/v1.Secret; `data` values are base64."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] = {}
    type: str = "Opaque"
    immutable: bool = False


class ServiceAccount(View, frozen=True, gc=False):
    """core/v1.ServiceAccount."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    secrets: tuple[ObjectReference, ...] = ()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    automount_service_account_token: bool | None = None


class ServicePort(View, frozen=True, gc=False):
    """A port of a Service; `target_port` 0 means the same number."""

    name: str = ""
    protocol: str = "TCP"
    port: int = 0
    target_port: IntOrString = 0
    node_port: int = 0
    app_protocol: str = ""


class ServiceSpec(View, frozen=True, gc=False):
    """core/v1.ServiceSpec."""

    type: str = "ClusterIP"
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    external_name: str = ""
    session_affinity: str = "None"
    publish_not_ready_addresses: bool = False
    internal_traffic_policy: str = ""
    external_traffic_policy: str = ""
    ip_families: tuple[str, ...] = ()


class Service(View, frozen=True, gc=False):
    """core/v1.Service."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()


class EventSource(View, frozen=True, gc=False):
    """Who saw it."""

    component: str = ""
    host: str = ""


class EventSeries(View, frozen=True, gc=False):
    """How often it was seen again."""

    count: int = 0
    last_observed_time: str | None = None


class Event(View, frozen=True, gc=False):
    """core/v1.Event; `type` is Normal or Warning, `event_time` a MicroTime."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    source: EventSource = EventSource()
    type: str = ""
    count: int = 0
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    series: EventSeries | None = None
    action: str = ""
    related: ObjectReference | None = None
    reporting_controller: str = msgspec.field(default="", name="reportingComponent")
    reporting_instance: str = ""
