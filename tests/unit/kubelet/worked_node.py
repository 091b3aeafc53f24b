"""A node's pod workers over a runtime made by hand: collects statuses, deletions and Events."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from fake_runtime import FakeRuntime
from pod_builders import NOW

from minikube_raw.api.core import Pod, PodStatus
from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet import convert
from minikube_raw.kubelet.classshares import ClassShares
from minikube_raw.kubelet.images import ImageManager
from minikube_raw.kubelet.objects import NoObjects
from minikube_raw.kubelet.preparation import Preparation
from minikube_raw.kubelet.tools import Tools
from minikube_raw.kubelet.volumes import VolumeManager
from minikube_raw.kubelet.workers import PodWorkers
from minikube_raw.linux.cgroups import Limits
from minikube_raw.runtime import cri


class Config(msgspec.Struct, frozen=True):
    user: str = ""


class Image(msgspec.Struct):
    id: str = "sha256:abc"
    digest: str = "sha256:def"
    references: tuple[str, ...] = ("docker.io/library/busybox:latest",)
    config: Config = Config()
    size: int = 0


class Images:
    def __init__(self) -> None:
        self.present: dict[str, Image] = {"docker.io/library/busybox:latest": Image()}

    def find(self, name: str) -> Image | None:
        return self.present.get(name)

    def obtain(self, name: str) -> Image | None:
        return None


class Node:
    """Workers with everything around them; collects statuses, deletions and Events."""

    def __init__(self, tmp_path: Any, tasks: asyncio.TaskGroup) -> None:
        self.clock = ManualClock(NOW)
        self.runtime = FakeRuntime(self.clock.now)
        self.images = Images()
        self.statuses: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.events: list[str] = []
        volumes = VolumeManager(tmp_path / "pods")
        facts = convert.NodeFacts(name="n1", ip="10.243.0.11", memory_capacity=2**30)
        images = ImageManager(self.images, self._record)
        preparation = Preparation(images, volumes, NoObjects(), lambda: facts, self.clock)
        self.tools = tools = Tools(
            self.runtime, preparation, self, self._record, self.clock, lambda: facts, str(tmp_path / "logs")
        )
        self.shares: dict[str, int] = {}
        self._tasks = tasks
        self.use(tools)

    def use(self, tools: Tools) -> None:
        """Begin anew, as a kubelet that comes after another one: whatever ran before it runs on."""
        for task in self._tasks._tasks:
            task.cancel()
        self.tools = tools
        self.workers = PodWorkers(tools, self._tasks, ClassShares(self._write))
        self.runtime.on_change(self.workers.look_again)

    def _write(self, cgroup: str, limits: Limits) -> None:
        self.shares[cgroup] = limits.cpu_shares or 0

    def set(self, pod: Pod, status: dict[str, Any], server_has: dict[str, Any]) -> None:
        self.statuses.append(status)

    def delete(self, pod: Pod) -> None:
        self.deleted.append(pod.metadata.uid)

    def forget(self, uid: str) -> None:
        pass

    def _record(self, pod: Pod, kind: str, reason: str, message: str, container: str = "") -> None:
        self.events.append(f"{kind} {reason} {message}" if kind == "Warning" else reason)

    def uid_of(self, container: cri.ContainerStatus) -> str:
        """The pod that a container belongs to."""
        return self.runtime.sandboxes[container.sandbox_id].config.uid

    @property
    def container(self) -> dict[str, Any]:
        """The first container's status, as written last."""
        return dict(self.statuses[-1]["containerStatuses"][0]) if self.statuses else {"state": {}}

    @property
    def state(self) -> str:
        """running, terminated, or the reason for waiting."""
        state = self.container["state"]
        return str(state["waiting"]["reason"]) if "waiting" in state else next(iter(state), "")

    def told(self, phase: str) -> list[dict[str, Any]]:
        """Every status of a phase that was written."""
        return [each for each in self.statuses if each["phase"] == phase]

    def phase(self) -> str:
        return str(self.statuses[-1]["phase"]) if self.statuses else ""


def with_status(wish: Pod, status: dict[str, Any]) -> Pod:
    return msgspec.structs.replace(wish, status=msgspec.convert(status, PodStatus))
