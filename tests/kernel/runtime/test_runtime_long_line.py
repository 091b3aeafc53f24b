"""Output without a newline: a line that never ends costs memory for a piece of it, and loses nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from runtime_node import Node, container, ended

from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root

MEGABYTES = int(os.environ.get("LONG_LINE_MB", "32"))  # the whole gigabyte: LONG_LINE_MB=1024
MOST_GROWTH = 4 << 20
MOST_CONTENT = 16 << 10  # of one record, as containerd's


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


@pytest.mark.timeout(60 + MEGABYTES)
async def test_a_line_without_end_is_logged_whole_in_bounded_memory(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    script = f"read go; dd if=/dev/zero bs=1M count={MEGABYTES} 2>/dev/null; printf end"
    created = await runtime.create_container(sandbox, container("sh", "-c", script, stdin=True, stdin_once=True))
    await runtime.start_container(created)
    answer, _ = await runtime._keepers.ask(runtime._state.sandboxes[sandbox], {"op": "hello"})
    before = peak(answer["pid"])

    session = await runtime.attach(created)
    session.close()
    status = await ended(runtime, created, timeout=60 + MEGABYTES)

    assert peak(answer["pid"]) - before < MOST_GROWTH
    size, tags, last = counted(status.log_path)
    assert size == (MEGABYTES << 20) + 3
    assert (set(tags[:-1]), last) == ({b"P"}, b"end")


def counted(log: str) -> tuple[int, list[bytes], bytes]:
    """How much content the records of a log have, their tags, and the last three bytes of content."""
    size, tags, content = 0, [], b""
    with open(log, "rb") as file:
        for record in file:
            _stamp, stream, tag, content = record.rstrip(b"\n").split(b" ", 3)
            assert (stream, len(content) <= MOST_CONTENT) == (b"stdout", True)
            size += len(content)
            tags.append(tag)
    return size, tags, content[-3:]
