"""What the parts of the kubelet's API ask of the agent behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import msgspec

from minikube_raw.api.core import Pod

Json = dict[str, Any]


class PodView(msgspec.Struct, frozen=True):
    """A pod with the status shown last."""

    pod: Pod
    status: Json

    def as_json(self) -> Json:
        """The object as /pods lists it."""
        meta, spec = msgspec.to_builtins(self.pod.metadata), msgspec.to_builtins(self.pod.spec)
        return {"metadata": meta, "spec": spec, "status": self.status}


class Node(Protocol):
    """What the server asks of the agent."""

    def pods(self) -> list[PodView]:
        """Every pod of the node."""
        ...

    def log_directory(self, pod: Pod) -> Path:
        """Where a pod's logs lie."""
        ...
