"""From a Pod to what the runtime is asked for: PodSandboxConfig and ContainerConfig.

Pure: images, volumes and the objects that variables refer to have been resolved before. The runtime knows nothing of
pods, so everything Kubernetes means by a field is decided here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import msgspec

from minikube_raw.api.containers import Profile
from minikube_raw.api.core import Container, FileKeySelector, Pod, SecurityContext
from minikube_raw.kubelet import admission, dns, downward, env, oomscore, qos
from minikube_raw.kubelet.pods import grace_period
from minikube_raw.runtime import cri

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
RESOURCES = "minikube-raw.io/resources"
GRACE_PERIOD = "io.kubernetes.pod.terminationGracePeriod"
_PROPAGATION = {
    "HostToContainer": cri.MountPropagation.HOST_TO_CONTAINER,
    "Bidirectional": cri.MountPropagation.BIDIRECTIONAL,
}


class NodeFacts(msgspec.Struct, frozen=True):
    """What containers are told of their node."""

    name: str
    ip: str
    cluster: dns.ClusterDNS = dns.ClusterDNS()
    resolver: cri.DNSConfig = cri.DNSConfig()
    memory_capacity: int = 0
    pod_pids_limit: int | None = None
    allocatable: Mapping[str, str] = {}
    kernel: qos.Kernel = qos.Kernel()
    security: admission.HostSecurity = admission.HostSecurity()
    seccomp_root: str = ""  # the directory that localhostProfile is relative to


class Prepared(msgspec.Struct, frozen=True):
    """What was resolved for one container: the image's id, its variables, its mounts and its devices."""

    image: str
    envs: Mapping[str, str] = {}
    mounts: tuple[cri.Mount, ...] = ()
    devices: tuple[cri.Device, ...] = ()


def sandbox_config(
    pod: Pod, attempt: int, log_directory: str, node: NodeFacts, handler: str = ""
) -> cri.PodSandboxConfig:
    """The pod's shared environment; `handler` is its RuntimeClass's."""
    meta, spec = pod.metadata, pod.spec
    hostname, qualified_name = dns.hostname_and_domain(pod, node.cluster.domain, node.name)
    return cri.PodSandboxConfig(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        attempt=attempt,
        hostname=hostname,
        qualified_name=qualified_name,
        log_directory=log_directory,
        cgroup_parent=qos.cgroup_parent(pod),
        namespaces=_namespaces(pod),
        runtime_handler=handler,
        user_namespace=pod.spec.host_users is False,
        dns=dns.pod_dns(pod, node.cluster, node.resolver),
        port_mappings=_port_mappings(pod),
        hosts=tuple((alias.ip, alias.hostnames) for alias in spec.host_aliases),
        sysctls={each.name: each.value for each in spec.security_context.sysctls},
        labels={**meta.labels, POD_NAME: meta.name, POD_NAMESPACE: meta.namespace, POD_UID: meta.uid},
        annotations={**meta.annotations, GRACE_PERIOD: str(grace_period(pod))},
        resources=qos.pod_resources(pod, node.pod_pids_limit, node.kernel),
    )


def container_config(
    pod: Pod, container: Container, attempt: int, prepared: Prepared, node: NodeFacts
) -> cri.ContainerConfig:
    """One container."""
    return cri.ContainerConfig(
        name=container.name,
        attempt=attempt,
        image=prepared.image,
        image_name=container.image,
        command=env.expand_all(container.command, prepared.envs),
        args=env.expand_all(container.args, prepared.envs),
        working_dir=container.working_dir,
        envs=tuple(prepared.envs.items()),
        mounts=prepared.mounts,
        devices=prepared.devices,
        labels=_labels(pod, container),
        annotations={GRACE_PERIOD: str(grace_period(pod)), **_note(container)},
        log_path=f"{container.name}/{attempt}.log",
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        stop_signal=container.lifecycle.stop_signal if container.lifecycle is not None else "",
        resources=container_resources(pod, container, node),
        security=security_context(pod, container.security_context or SecurityContext(), node.seccomp_root),
    )


def container_resources(pod: Pod, container: Container, node: NodeFacts) -> cri.LinuxContainerResources:
    """The limits of a container's cgroup on this node."""
    score = oomscore.adjustment(pod, container, node.memory_capacity)
    return qos.container_resources(pod, container, score, node.kernel)


def _note(container: Container) -> dict[str, str]:
    """How a container remembers what it was created with, for a kubelet that comes after a resize (see `resizing`)."""
    resources = container.resources
    asks = resources.limits or resources.requests
    return {RESOURCES: msgspec.json.encode(resources).decode()} if asks else {}


def variables(
    pod: Pod,
    container: Container,
    referred: env.Referred,
    at: downward.Addresses,
    node: NodeFacts,
    file_key: Callable[[FileKeySelector], str | None] = lambda wanted: None,
) -> dict[str, str]:
    """The container's environment; `file_key` looks up what env files have. Raises env.ConfigError."""
    sources = env.EnvSources(
        fields=lambda path: downward.field(pod, path, at),
        resource_field=lambda selector: downward.resource_field(pod, selector, container, node.allocatable),
        config_maps=referred.config_maps,
        secrets=referred.secrets,
        services=referred.services,
        file_key=file_key,
    )
    return env.environment(pod, container, sources)


def mount_propagation(asked: str) -> cri.MountPropagation:
    """A volumeMount's mountPropagation in CRI's words."""
    return _PROPAGATION.get(asked, cri.MountPropagation.PRIVATE)


def security_context(pod: Pod, own: SecurityContext, seccomp_root: str = "") -> cri.SecurityContext:
    """The container's securityContext over the pod's."""
    shared = pod.spec.security_context
    groups = shared.supplemental_groups + ((shared.fs_group,) if shared.fs_group is not None else ())
    capabilities = own.capabilities
    return cri.SecurityContext(
        run_as_user=own.run_as_user if own.run_as_user is not None else shared.run_as_user,
        run_as_group=own.run_as_group if own.run_as_group is not None else shared.run_as_group,
        supplemental_groups=groups,
        strict_groups=shared.supplemental_groups_policy == "Strict",
        add_capabilities=capabilities.add if capabilities else (),
        drop_capabilities=capabilities.drop if capabilities else (),
        privileged=own.privileged,
        readonly_rootfs=own.read_only_root_filesystem,
        no_new_privs=_no_new_privs(own),
        unmasked_proc=own.proc_mount == "Unmasked",
        seccomp=_seccomp(own.seccomp_profile or shared.seccomp_profile, seccomp_root),
        apparmor=_apparmor(own.app_armor_profile or shared.app_armor_profile),
    )


def _seccomp(asked: Profile | None, root: str) -> cri.SecurityProfile:
    """A pod that says nothing gets RuntimeDefault, as under the kubelet's --seccomp-default."""
    if asked is None or not asked.type:
        return cri.SecurityProfile()
    name = asked.localhost_profile
    return cri.SecurityProfile(cri.ProfileType(asked.type), os.path.join(root, name) if name else "")


def _apparmor(asked: Profile | None) -> cri.SecurityProfile | None:
    if asked is None or not asked.type:
        return None
    return cri.SecurityProfile(cri.ProfileType(asked.type), asked.localhost_profile)


def _no_new_privs(own: SecurityContext) -> bool:
    """allowPrivilegeEscalation: false, unless privileged; beside SYS_ADMIN a kubelet heeds it too, whatever the API's text says."""
    return own.allow_privilege_escalation is False and not own.privileged


def _namespaces(pod: Pod) -> cri.NamespaceOption:
    mode = cri.NamespaceMode
    pid = mode.POD if pod.spec.share_process_namespace else mode.CONTAINER
    return cri.NamespaceOption(
        network=mode.NODE if pod.spec.host_network else mode.POD,
        pid=mode.NODE if pod.spec.host_pid else pid,
        ipc=mode.NODE if pod.spec.host_ipc else mode.POD,
    )


def _port_mappings(pod: Pod) -> tuple[cri.PortMapping, ...]:
    if pod.spec.host_network:
        return ()
    return tuple(
        cri.PortMapping(port.container_port, port.host_port, port.protocol, port.host_ip)
        for container in (*pod.spec.init_containers, *pod.spec.containers)
        for port in container.ports
        if port.host_port
    )


def _labels(pod: Pod, container: Container) -> dict[str, str]:
    meta = pod.metadata
    return {
        POD_NAME: meta.name,
        POD_NAMESPACE: meta.namespace,
        POD_UID: meta.uid,
        CONTAINER_NAME: container.name,
    }
