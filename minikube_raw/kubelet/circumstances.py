"""What a pod's status depends on besides the pod and what the runtime found of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from minikube_raw.api.core import ResourceRequirements
from minikube_raw.kubelet.ending import Ending


class Waiting(msgspec.Struct, frozen=True):
    """Why a container does not run (yet)."""

    reason: str
    message: str = ""


class Circumstances(msgspec.Struct, frozen=True):
    """What the status depends on besides pod and runtime."""

    host_ip: str
    now: float  # seconds since the epoch
    waiting: Mapping[str, Waiting] = {}  # by container name
    image_names: Mapping[str, tuple[str, str]] = {}  # image id → (image, imageID) as statuses show them
    unready: frozenset[str] = frozenset()  # container ids whose readiness probe has not succeeded
    not_started: frozenset[str] = frozenset()  # container ids whose startup probe has not succeeded
    messages: Mapping[str, str] = {}  # container id → its termination message
    actual: Mapping[str, ResourceRequirements] = {}  # by container name: what its cgroup has, where it is being resized
    whole: ResourceRequirements | None = None  # what the pod's own cgroup has, in the words of spec.resources
    resizing: Sequence[tuple[str, bool, str, str]] = ()  # conditions of a resize
    restarting: bool = False  # all containers are being restarted (RestartAllContainers), and some may still run
    recursive_read_only: bool = False  # what the node can
    terminating: bool = False
    terminated: bool = False  # containers and sandbox are gone for good
    ending: Ending | None = None  # the pod is ended, or has ended, as a whole
