"""Validation of paths that must stay inside a volume (apis/core/validation)."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field


def relative_path(value: str, path: str) -> Iterator[Cause]:
    """Judge a path inside something: relative, without `..`."""
    if value.startswith("/"):
        yield field.invalid(path, value, "must be a relative path")
    elif ".." in value.split("/"):
        yield field.invalid(path, value, "must not contain '..'")


def local_path(value: str, path: str) -> Iterator[Cause]:
    """Judge a relative path that must not look like the kubelet's own `..data` either."""
    wrong = list(relative_path(value, path))
    if not wrong and value.startswith(".."):
        wrong = [field.invalid(path, value, "must not start with '..'")]
    yield from wrong
