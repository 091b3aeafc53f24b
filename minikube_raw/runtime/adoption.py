"""What a new keeper is told when it takes over from one that died, and what is said of containers nobody can ask about."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from .pods import Container
from .records import ExitRecord

UNKNOWN_EXIT_CODE = 137


def adopt_request(request: dict[str, Any], containers: Iterable[Container]) -> dict[str, Any]:
    """Returns the request for a keeper that takes over: the sandbox with every container that ran and has no exit record."""
    entries = [
        {"request": container.record.request, "identity": msgspec.to_builtins(container.identity)}
        for container in containers
        if container.exit is None and container.identity is not None
    ]
    return {**request, "adopt": True, "containers": entries}


def lost(container: Container) -> ExitRecord:
    """Returns the end of a container whose exit code nobody knows: as Kubernetes reports it, 137 and ContainerStatusUnknown."""
    started = container.record.started_at
    return ExitRecord(exit_code=UNKNOWN_EXIT_CODE, finished_at=time.time_ns(), started_at=started, known=False)
