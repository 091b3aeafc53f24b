from __future__ import annotations

from tests.podnamespaces import host, make_pod, pod

__all__ = ["host", "make_pod", "pod"]
