"""The network of a sandbox: its namespace pinned to a path, CNI ADD and DEL in threads, what plugins are told of the pod."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from minikube_raw.linux import mounts, namespaces, steps

from .cri import PodSandboxConfig, PortMapping, RuntimeServiceError

INTERFACE = "eth0"


class Attacher(Protocol):
    """What the runtime needs of cni.libcni.Network; called in threads."""

    def add(
        self,
        container_id: str,
        netns_path: str,
        ifname: str = INTERFACE,
        runtime_config: dict[str, Any] | None = None,
        args: dict[str, str] | None = None,
    ) -> Any:
        """CNI ADD; the result has `ips`, each with `ip`."""
        ...

    def delete(self, container_id: str, netns_path: str = "", ifname: str = INTERFACE) -> None:
        """CNI DEL; patient."""
        ...


def attach(
    network: Attacher | None, sandbox_id: str, config: PodSandboxConfig, netns: int, path: str
) -> Callable[[], tuple[str, ...]]:
    """Returns the work of a thread: pin the namespace (whose descriptor it owns) at `path`, ADD, return the pod's addresses.

    It raises RuntimeServiceError with the reason and text that Kubernetes shows.
    """

    def work() -> tuple[str, ...]:
        try:
            pin(netns, path)
        finally:
            os.close(netns)
        if network is None:
            raise RuntimeServiceError("NetworkNotReady", "network is not ready: the node has no pod network yet")
        try:
            with steps.step("CNI ADD", f"{INTERFACE} in {path}"):
                result = network.add(sandbox_id, path, INTERFACE, capabilities(config), arguments(sandbox_id, config))
        except Exception as error:  # a plugin's error, whatever plugin it is: the sandbox has failed and says why
            text = f'failed to setup network for sandbox "{sandbox_id}": {error}'
            raise RuntimeServiceError("CreatePodSandboxError", text) from error
        return tuple(address.ip for address in result.ips)

    return work


def pin(netns: int, path: str) -> None:
    """Binds a network namespace to a path; one that an attempt before has left there is replaced."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        namespaces.unpin(path)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    mounts.bind(f"/proc/self/fd/{netns}", path, recursive=False)


def capabilities(config: PodSandboxConfig) -> dict[str, Any]:
    """Returns CNI's runtimeConfig for a pod."""
    return (
        {"portMappings": [_port_mapping(mapping) for mapping in config.port_mappings]} if config.port_mappings else {}
    )


def _port_mapping(mapping: PortMapping) -> dict[str, Any]:
    return {
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": mapping.protocol.lower(),
        "hostIP": mapping.host_ip,
    }


def arguments(sandbox_id: str, config: PodSandboxConfig) -> dict[str, str]:
    """Returns CNI_ARGS as containerd and CRI-O give them."""
    return {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": config.namespace,
        "K8S_POD_NAME": config.name,
        "K8S_POD_INFRA_CONTAINER_ID": sandbox_id,
        "K8S_POD_UID": config.uid,
    }
