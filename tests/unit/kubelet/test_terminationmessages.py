"""A container's last words: from its file or its log, cut to what Kubernetes keeps, and never read through a trap."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from pod_builders import pod, run

from minikube_raw.api.core import Container
from minikube_raw.kubelet.terminationmessages import TerminationMessages

PLAIN = Container(name="c")
FALLS_BACK = Container(name="c", termination_message_policy="FallbackToLogsOnError")


@pytest.fixture
def messages(tmp_path: Path) -> TerminationMessages:
    return TerminationMessages(lambda uid: tmp_path / uid)


def test_any_user_may_write_the_file_and_the_last_4096_bytes_count(messages) -> None:
    (mount,) = messages.prepare("u1", PLAIN, 0)
    file = Path(mount.host_path)

    file.write_bytes(b"a" * 1000 + b"b" * 4096)

    assert mount.container_path == "/dev/termination-log"
    assert file.stat().st_mode & 0o777 == 0o666
    assert messages.read("u1", PLAIN, run(code=0)) == "b" * 4096


def test_each_run_has_a_file_of_its_own_and_a_second_try_starts_empty(messages) -> None:
    (first,) = messages.prepare("u1", PLAIN, 0)
    Path(first.host_path).write_text("one")
    (second,) = messages.prepare("u1", PLAIN, 1)
    Path(second.host_path).write_text("half")
    messages.prepare("u1", PLAIN, 1)

    assert messages.read("u1", PLAIN, run(code=0)) == "one"
    assert messages.read("u1", PLAIN, run(code=0, attempt=1)) == ""


@pytest.mark.parametrize("make", [pytest.param(os.symlink, id="a link"), pytest.param(None, id="a FIFO")])
def test_what_is_no_file_is_not_read(messages, tmp_path: Path, make) -> None:
    (mount,) = messages.prepare("u1", PLAIN, 0)
    (tmp_path / "secret").write_text("of the host")
    os.unlink(mount.host_path)
    if make is not None:
        make(tmp_path / "secret", mount.host_path)
    else:
        os.mkfifo(mount.host_path)

    assert messages.read("u1", PLAIN, run(code=0)) == ""


def logged(tmp_path: Path, lines: int) -> str:
    path = tmp_path / "0.log"
    path.write_text("".join(f"2026-01-01T00:00:00.000000000Z stdout F line {each}\n" for each in range(1, lines + 1)))
    return str(path)


@pytest.mark.parametrize(
    ("container", "code", "message"),
    [
        pytest.param(FALLS_BACK, 2, "".join(f"line {each}\n" for each in range(21, 101)), id="the last 80 lines after a failure"),
        pytest.param(FALLS_BACK, 0, "", id="nothing after a success"),
        pytest.param(PLAIN, 2, "", id="nothing without the policy"),
    ],
)  # fmt: skip
def test_the_log_speaks_for_a_container_that_failed_without_a_word(
    messages, tmp_path, container, code, message
) -> None:
    messages.prepare("u1", container, 0)

    assert messages.read("u1", container, run(code=code, log_path=logged(tmp_path, 100))) == message


def test_the_log_gives_2048_bytes_at_most(messages, tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("2026-01-01T00:00:00.000000000Z stdout F " + "x" * 5000 + "\n")

    assert messages.read("u1", FALLS_BACK, run(code=1, log_path=str(path))) == "x" * 2047 + "\n"


async def test_a_pods_status_carries_the_message_of_each_run(node, eventually) -> None:
    node.workers.update(pod())
    await eventually(lambda: node.state == "running")
    (mount,) = node.runtime.configs[node.runtime.named("c").id].mounts
    Path(mount.host_path).write_text("out of sorts")

    node.runtime.exit(node.runtime.named("c").id, 3)

    await eventually(lambda: node.container["restartCount"] == 1)
    assert node.container["lastState"]["terminated"]["message"] == "out of sorts"


async def test_the_messages_of_one_pod_fit_into_12_kib(node, eventually) -> None:
    names = [f"c{each}" for each in range(6)]
    node.workers.update(pod(*names, restartPolicy="Never"))
    await eventually(lambda: node.phase() == "Running")
    for name in names:
        created = node.runtime.named(name).id
        Path(node.runtime.configs[created].mounts[0].host_path).write_text("x" * 4096)
        node.runtime.exit(created, 0)

    await eventually(lambda: node.phase() == "Succeeded")

    shown = [len(each["state"]["terminated"]["message"]) for each in node.statuses[-1]["containerStatuses"]]
    assert shown == [2048] * 6


async def test_of_a_container_that_keeps_ending_the_last_two_runs_are_kept(node, eventually) -> None:
    wish = pod()
    node.workers.update(wish)
    for attempt in range(4):
        await eventually(lambda n=attempt: node.container.get("restartCount") == n and node.state == "running")
        node.runtime.exit(node.runtime.named("c").id, 1)
        node.clock.advance(0)
        await eventually(lambda n=attempt: node.state == "CrashLoopBackOff" or node.container["restartCount"] > n)
        node.clock.advance(300)

    await eventually(lambda: node.container["restartCount"] == 4)
    assert sorted(each.attempt for each in node.runtime.containers.values()) == [3, 4]
    assert msgspec.to_builtins(node.runtime.named("c"))["attempt"] == 4
