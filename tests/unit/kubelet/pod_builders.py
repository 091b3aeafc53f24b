"""Pods and findings in as few words as a case needs."""

from __future__ import annotations

from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.kubelet.pods import from_manifest
from minikube_raw.kubelet.syncpod import Found, found
from minikube_raw.runtime import cri

NOW = 1_700_000_000.0


def pod(*names: str, init: tuple[Any, ...] = (), metadata: dict[str, Any] | None = None, **spec: Any) -> Pod:
    """A pod with containers of those names (default: c)."""
    containers = spec.pop("containers", None) or [{"name": name, "image": "busybox"} for name in names or ("c",)]
    inits = [{"name": each, "image": "busybox"} if isinstance(each, str) else each for each in init]
    meta = {"name": "p", "namespace": "ns", "uid": "u1", "generation": 1, **(metadata or {})}
    return from_manifest({"metadata": meta, "spec": {"containers": containers, "initContainers": inits, **spec}})


def sandbox(*, ready: bool = True, attempt: int = 0, uid: str = "u1") -> cri.PodSandboxStatus:
    state = cri.SandboxState.READY if ready else cri.SandboxState.NOTREADY
    config = cri.PodSandboxConfig(name="p", namespace="ns", uid=uid, attempt=attempt)
    return cri.PodSandboxStatus(id=f"s{attempt}", config=config, state=state, created_at=0, ips=("10.244.1.5",))


def run(
    name: str = "c", *, attempt: int = 0, code: int | None = None, ago: float = 1.0, **more: Any
) -> cri.ContainerStatus:
    """A container: running, or ended with `code` some seconds ago."""
    ended = int((NOW - ago) * 1e9)
    state = cri.ContainerState.RUNNING if code is None else cri.ContainerState.EXITED
    fields: dict[str, Any] = {
        "id": f"{name}{attempt}",
        "sandbox_id": "s0",
        "name": name,
        "attempt": attempt,
        "image": "sha256:abc",
        "image_name": "busybox",
        "state": state,
        "created_at": ended - 10**9,
        "started_at": ended - 10**9,
        "finished_at": 0 if code is None else ended,
        "exit_code": code or 0,
    }
    return cri.ContainerStatus(**{**fields, **more})


def finding(*runs: cri.ContainerStatus, sandboxes: tuple[cri.PodSandboxStatus, ...] | None = None) -> Found:
    """What the runtime has of the pod; a ready sandbox unless said otherwise."""
    return found(list(sandboxes if sandboxes is not None else (sandbox(),)), list(runs))
