"""What a kubelet's server is asked about: a node with one pod, u1, whose container c waits to be started."""

from __future__ import annotations

from pathlib import Path

from fake_runtime import FakeRuntime
from pod_builders import pod

from minikube_raw.api.core import Pod
from minikube_raw.kubelet.nodeview import PodView
from minikube_raw.runtime import cri


class Node:
    def __init__(self, directory: Path) -> None:
        waiting = {"name": "c", "state": {"waiting": {"reason": "PodInitializing"}}}
        self.views = [PodView(pod(), {"containerStatuses": [waiting]})]
        self.directory = directory

    def pods(self) -> list[PodView]:
        return self.views

    def log_directory(self, _of: Pod) -> Path:
        return self.directory


async def run_sandbox(runtime: FakeRuntime) -> None:
    await runtime.run_pod_sandbox(cri.PodSandboxConfig(name="p", namespace="ns", uid="u1"))


async def start(runtime: FakeRuntime) -> str:
    """Starts the container; returns its id."""
    created = await runtime.create_container("sandbox1", cri.ContainerConfig("c", 0, "i"))
    await runtime.start_container(created)
    return created
