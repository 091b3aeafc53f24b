"""Many pods asked for at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from runtime_node import Node, NoNetwork

from minikube_raw.runtime.sandboxes import AT_ONCE
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


class SlowNetwork(NoNetwork):
    """Takes its time, and counts how many ADDs there are at once."""

    def __init__(self) -> None:
        super().__init__()
        self._lock, self._now, self.most = threading.Lock(), 0, 0

    def add(self, *arguments: Any, **more: Any) -> Any:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.05)
        with self._lock:
            self._now -= 1
        return super().add(*arguments, **more)


async def test_many_pods_at_once_are_made_a_few_at_a_time(node: Node, runtime: Runtime) -> None:
    runtime.network = slow = SlowNetwork()
    made = await asyncio.gather(*(runtime.run_pod_sandbox(node.pod(f"p{n}")) for n in range(3 * AT_ONCE)))
    assert len(set(made)) == 3 * AT_ONCE
    assert 0 < slow.most <= AT_ONCE
