"""Waiting for what a cluster will do, with a deadline and a picture of what was last seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], wanted: Callable[[T], bool], *, seconds: float, pause: float = 0.1) -> T:
    """Look again and again until it is as wanted; fail with the last finding when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if wanted(found):
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s; last seen: {found}")
        time.sleep(pause)
