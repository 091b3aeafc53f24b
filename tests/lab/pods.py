"""Pods of a lab machine that run without a master."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.lab.machine import Machine


def running(lab: Machine, name: str, timeout: float = 300) -> dict[str, Any]:
    """The pod, once it is ready."""
    deadline = time.monotonic() + timeout
    while True:
        items = json.loads(lab.product("pod list -o json"))["items"]
        for pod in items:
            conditions = pod["status"].get("conditions", [])
            if pod["metadata"]["name"] == name and {"type": "Ready", "status": "True"}.items() in [
                {key: condition[key] for key in ("type", "status")}.items() for condition in conditions
            ]:
                found: dict[str, Any] = pod
                return found
        assert time.monotonic() < deadline, items
        time.sleep(1)
