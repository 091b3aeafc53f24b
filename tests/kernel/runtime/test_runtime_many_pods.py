"""Many pods asked for at once."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from runtime_node import Node, NoNetwork, container

from minikube_raw.runtime.records import SandboxRecord
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


async def steps_of_a_start(node: Node, runtime: Runtime, name: str) -> int:
    """How many instructions of Python this thread, the kubelet's, runs for a pod until its container runs."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        sandbox = await runtime.run_pod_sandbox(node.pod(name))
        await runtime.start_container(await runtime.create_container(sandbox, container("sleep", "100")))
        (found,) = await runtime.list_pod_sandboxes(runtime._state.sandboxes[sandbox].record.config.uid)
        assert found.id == sandbox
    finally:
        sys.settrace(before)
    return count


async def test_a_pod_starts_on_a_full_node_as_on_an_empty_one(node: Node, runtime: Runtime) -> None:
    await steps_of_a_start(node, runtime, "warms-up")
    empty = await steps_of_a_start(node, runtime, "first")
    others = [
        runtime._state.know_sandbox(SandboxRecord(f"s{n}", node.pod(f"p{n}"), "c", "b", 0, stopped=True))
        for n in range(20_000)  # a look at each would be far more than what a loaded machine adds
    ]
    full = await steps_of_a_start(node, runtime, "last")
    for other in others:
        runtime._state.forget_sandbox(other)
    assert full < empty + len(others)


async def test_many_pods_at_once_are_made_a_few_at_a_time(node: Node, runtime: Runtime) -> None:
    runtime.network = slow = SlowNetwork()
    made = await asyncio.gather(*(runtime.run_pod_sandbox(node.pod(f"p{n}")) for n in range(3 * AT_ONCE)))
    assert len(set(made)) == 3 * AT_ONCE
    assert 0 < slow.most <= AT_ONCE
