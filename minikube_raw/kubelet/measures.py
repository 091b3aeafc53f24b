"""What parts of the kubelet count of their own work, for /metrics. Names and texts are the kubelet's (pkg/kubelet/metrics)."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple


class Measure(NamedTuple):
    """One sample; `kind` is "counter" or "gauge"."""

    name: str
    kind: str
    text: str
    value: float
    labels: Mapping[str, str] = {}


class Attempts:
    """How often a thing was tried, as a context manager around each try, and how often an exception ended it."""

    def __init__(self) -> None:
        self._made = self._failed = 0

    def __enter__(self) -> None:
        self._made += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._failed += kind is not None

    def measures(self, name: str, made: str, failed: str) -> list[Measure]:
        """NAME_requests_total and NAME_errors_total, with their texts."""
        return [
            Measure(f"{name}_requests_total", "counter", made, self._made),
            Measure(f"{name}_errors_total", "counter", failed, self._failed),
        ]
