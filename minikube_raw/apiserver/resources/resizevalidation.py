"""Validation of resizePolicy: what a container wants done when its resources change (apis/core/validation, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources.strategy import Object

_RESIZABLE = ("cpu", "memory")
_POLICIES = ("NotRequired", "RestartContainer")


def resize_policies(container: Object, path: str, spec: Object) -> Iterator[Cause]:
    """Judge a container's resizePolicy."""
    seen: set[str] = set()
    at = f"{path}.resizePolicy"
    for item in container.get("resizePolicy") or ():
        policy = item or {}
        name, restart = policy.get("resourceName") or "", policy.get("restartPolicy") or ""
        if name in seen:
            yield field.duplicate(at, name)
        seen.add(name)
        for value, known in ((name, _RESIZABLE), (restart, _POLICIES)):
            if not value:
                yield field.required(at)
            elif value not in known:
                yield field.not_supported(at, value, known)
        if spec.get("restartPolicy") == "Never" and restart != "NotRequired":
            yield field.invalid(at, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'")
