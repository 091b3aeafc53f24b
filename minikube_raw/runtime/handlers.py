"""Handlers of RuntimeClasses that are OCI runtimes of the host: what the kubelet's side knows of them.

A container of such a pod is asked for with `runtime` in its request: the command, the runtime's state directory and the
config.json, which the worker makes whole and hands to the runtime (executors.py). Here too is what removes its state in the end.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from minikube_raw.linux import capabilities, namespaces

from . import bundle, handover, ociruntime, rootfs, seccomp
from .cri import ContainerConfig, NamespaceMode, NamespaceOption, PodSandboxConfig, RuntimeServiceError
from .layout import Layout
from .users import User

Json = dict[str, Any]
_SECONDS = 30.0
_NOBODY_YET = User(0, 0, [], "/")  # the worker finds out who the image means


def parse(text: str) -> tuple[str, list[str]]:
    """Reads NAME=COMMAND, a path with arguments of the runtime's own before its verbs. Raises ValueError."""
    name, _, command = text.partition("=")
    words = shlex.split(command)
    if not name or not words or not os.path.isabs(words[0]):
        raise ValueError(f"{text!r} is not NAME=/PATH [ARGUMENT…]")
    return name, words


def supports_recursive_read_only(command: Sequence[str]) -> bool:
    """Says whether a runtime knows the mount option `rro`, by its own word (`features`, OCI runtime-spec 1.1)."""
    try:
        told = subprocess.run([*command, "features"], capture_output=True, check=True, timeout=_SECONDS).stdout
        return "rro" in json.loads(told).get("mountOptions", ())
    except (OSError, subprocess.SubprocessError, ValueError, AttributeError):
        return False


class Handlers:
    """The OCI runtimes of one node by handler; every other handler is this runtime."""

    def __init__(self, layout: Layout, commands: Mapping[str, Sequence[str]]) -> None:
        self._layout, self._commands = layout, commands

    def __contains__(self, handler: str) -> bool:
        return handler in self._commands

    def check(self, config: PodSandboxConfig) -> None:
        """Raises RuntimeServiceError for a pod whose handler could not run it."""
        if config.user_namespace and config.runtime_handler in self:
            text = "can't set `spec.hostUsers: false`, RuntimeClass handler"
            text = f'{text} "{config.runtime_handler}" does not support user namespaces'
            raise RuntimeServiceError("CreatePodSandboxError", text)

    def request(self, pod: PodSandboxConfig, config: ContainerConfig, container_id: str, document: Json) -> Json:
        """Returns what a container's request has more when its pod's handler is an OCI runtime.

        `document` is the container's spec (spec.container_spec) in our own words.
        """
        if pod.runtime_handler not in self:
            return {}
        command = list(self._commands[pod.runtime_handler])
        made = _config(pod, config, document, f"{self._layout.container(container_id)}/bundle/volumes")
        made["root"] = {**document["root"], "path": self._layout.mount_point}
        return {"runtime": {"command": command, "config": made}}

    def delete(self, request: Mapping[str, Any]) -> None:
        """Has the runtime of a container, if there is one, forget it; what still runs of it is killed."""
        state = ociruntime.state_directory(request["runDir"])
        if "runtime" not in request or not os.path.isdir(state):
            return
        argv = [*request["runtime"]["command"], "--root", state, "delete", "--force", request["id"]]

        def delete() -> None:
            namespaces.unshare(namespaces.CLONE_FS | namespaces.CLONE_NEWNS)
            ociruntime.hide_other_hierarchies()
            subprocess.run(argv, capture_output=True, check=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)

        # It may have no such container any more, or be gone itself; processes and cgroups are not its to keep.
        with suppress(OSError, subprocess.SubprocessError):
            namespaces.in_thread(delete)

    def sweep(self, owned: set[str]) -> None:
        """Has runtimes forget containers that are not `owned`; their directories are the sweep's."""
        for container_id in set(os.listdir(self._layout.containers)) - owned:
            with suppress(OSError, ValueError):
                self.delete(handover.read_request(self._layout.container(container_id)))


def _config(pod: PodSandboxConfig, config: ContainerConfig, document: Json, volumes: str) -> Json:
    """config.json, but for what the worker adds: who the user is, and a PID namespace that is another's.

    Volumes are found under their numbers.
    """
    facts = bundle.Facts(
        user=_NOBODY_YET,
        namespaces=_namespaces(pod.namespaces, own_pids=not config.pid_target),
        available=capabilities.available(),
        seccomp=seccomp.document(config.security, document["process"]["capabilities"], os.uname().machine),
        devices=rootfs.host_devices() if document["linux"].get("hostDevices") else (),
    )
    places = [_place(entry, f"{volumes}/{number}") for number, entry in enumerate(document["mounts"])]
    made = bundle.config({**document, "mounts": places}, facts)
    del made["process"]["oomScoreAdj"]  # inherited from the worker's child, whom a host may refuse a lower one
    made["linux"]["cgroupsPath"] = document["linux"]["cgroupsPath"]
    made["linux"]["resources"] = {"devices": made["linux"]["resources"]["devices"]}  # the cgroup has its limits from us
    return made


def _namespaces(modes: NamespaceOption, *, own_pids: bool) -> dict[str, str]:
    """The pod's are those that the runtime is run in; a PID namespace that is shared is named by the worker."""
    own = {"network": modes.network, "ipc": modes.ipc, "uts": modes.network}
    paths = {"network": "net", "ipc": "ipc", "uts": "uts"}
    joined = {kind: f"/proc/self/ns/{paths[kind]}" for kind, mode in own.items() if mode is not NamespaceMode.NODE}
    return joined | ({"pid": ""} if own_pids and modes.pid is NamespaceMode.CONTAINER else {})


def _place(entry: Json, place: str) -> Json:
    if entry["type"] == "bind":
        return {**entry, "source": place}
    if entry["type"] == "image":
        options = ["rbind", *entry["options"]]
        return {"destination": entry["destination"], "type": "bind", "source": place, "options": options}
    return entry
