"""interim"""

from __future__ import annotations

from typing import Any


def record_update(kind: Any, old: Any, new: Any, context: Any, moment: str) -> None:
    return None


def same_but_times(a: bytes, b: bytes) -> bool:
    return False
