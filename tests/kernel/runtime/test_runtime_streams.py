from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import socket
from datetime import datetime
from pathlib import Path

import pytest
from runtime_node import Node, container, ended, eventually

from minikube_raw.linux.cgroups import manager
from minikube_raw.oci.manifests import ImageConfig
from minikube_raw.runtime.copying import REST_SECONDS
from minikube_raw.runtime.cri import ExecSession, RuntimeServiceError, SecurityContext
from minikube_raw.runtime.service import Runtime
from minikube_raw.runtime.streams import read_all, readable

pytestmark = pytest.mark.root


async def start(node: Node, runtime: Runtime, *command: str, **changes: object) -> str:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container(*command, **changes))
    await runtime.start_container(created)
    return created


async def read_until(fd: int | None, text: bytes, timeout: float = 10) -> bytes:
    """Reads a session's output until a text has come."""
    assert fd is not None
    seen = b""
    async with asyncio.timeout(timeout):
        while text not in seen:
            try:
                piece = os.read(fd, 4096)
            except BlockingIOError:
                await readable(fd)
                continue
            assert piece, f"the stream ended after {seen!r}"
            seen += piece
    return seen


def write(session: ExecSession, data: bytes) -> None:
    assert session.stdin is not None
    os.write(session.stdin, data)


async def test_exec_sync_gives_both_streams_and_the_exit_code(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "sleep", "100")
    result = await runtime.exec_sync(created, ["sh", "-c", "echo out; echo err >&2; exit 9"])
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 9)


async def test_exec_sees_the_container_as_its_first_process_does(node: Node, runtime: Runtime) -> None:
    node.images.images["it"] = (node.images.images["busybox"][0], ImageConfig(user="web", env=("COLOUR=blue",)))
    security = SecurityContext(no_new_privs=True)
    script = """id; env | sort; grep -E '^(Cap|NoNew|Sig[BIC])' /proc/self/status; ls /proc/self/fd | wc -l
        for kind in net mnt pid ipc uts cgroup; do readlink /proc/self/ns/$kind; done; cat /proc/self/cgroup"""
    created = await start(
        node,
        runtime,
        "sh",
        "-c",
        f"{script}; echo; exec sleep 100",
        image="it",
        security=security,
        envs=(("SIZE", "5"),),
    )
    status = await runtime.container_status(created)
    assert status is not None
    await eventually(lambda: os.path.exists(status.log_path) and node.output(status).endswith("\n\n"))
    result = await runtime.exec_sync(created, ["sh", "-c", script])
    assert result.stdout.decode() == node.output(status)[:-1]
    assert b"HOME=/home/web" in result.stdout


async def test_an_exec_that_cannot_run_says_why(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "sleep", "100")
    with pytest.raises(RuntimeServiceError, match=re.escape('exec: "nosuch": executable file not found in $PATH')):
        await runtime.exec_sync(created, ["nosuch"])


async def test_exec_in_a_container_that_has_ended_is_refused(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "true")
    await ended(runtime, created)
    with pytest.raises(RuntimeServiceError, match="not running"):
        await runtime.exec_sync(created, ["true"])


def commands_in(runtime: Runtime, created: str) -> list[str]:
    """The command lines of the processes in a container's cgroup."""
    found = []
    for pid in manager(runtime._state.containers[created].record.request["cgroup"]).procs():
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_text())
    return found


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["sleep", "4321"], id="the command"),
        pytest.param(["sh", "-c", "sleep 4321; true"], id="its children"),
    ],
)
async def test_exec_timeout_is_an_error_and_ends(node: Node, runtime: Runtime, command: list[str]) -> None:
    created = await start(node, runtime, "sleep", "100")
    with pytest.raises(TimeoutError):
        await runtime.exec_sync(created, command, timeout=0.2)
    await eventually(lambda: not any("4321" in text for text in commands_in(runtime, created)))


async def test_exec_stdin_is_passed_on_and_its_end_is_seen(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "sleep", "100")
    session = await runtime.exec(created, ["sh", "-c", "cat; echo done"], stdin=True)
    write(session, b"some words\n")
    session.close_stdin()
    assert await read_all(session.stdout) == b"some words\ndone\n"
    assert await session.wait() == 0
    session.close()


async def test_exec_with_a_terminal_is_a_terminal_with_a_size(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "sleep", "100")
    session = await runtime.exec(created, ["sh"], tty=True, stdin=True)
    assert session.stdin == session.stdout
    assert session.stderr is None
    await session.resize(132, 43)
    write(session, b"tty; stty size; echo $TERM; exit 5\n")
    seen = await read_until(session.stdout, b"xterm\r\n")
    assert b"/dev/pts/0\r\n" in seen
    assert b"43 132\r\n" in seen
    assert await session.wait() == 5
    session.close()


async def test_closing_a_terminal_hangs_up_on_the_program(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "sleep", "100")
    session = await runtime.exec(created, ["sleep", "4322"], tty=True)
    session.close()
    assert await asyncio.wait_for(session.wait(), 10) == 128 + 1


async def test_attach_reads_and_writes_the_first_process(node: Node, runtime: Runtime) -> None:
    created = await start(
        node, runtime, "sh", "-c", "while read line; do echo got $line; echo err >&2; done", stdin=True
    )
    session = await runtime.attach(created)
    write(session, b"one\n")
    await read_until(session.stdout, b"got one\n")
    await read_until(session.stderr, b"err\n")
    session.close()
    again = await runtime.attach(created)
    write(again, b"two\n")
    await read_until(again.stdout, b"got two\n")
    again.close()
    status = await runtime.container_status(created)
    assert status is not None
    assert node.output(status) == "got one\ngot two\n"


async def test_with_stdin_once_the_first_clients_end_is_the_containers(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "sh", "-c", "cat; exit 4", stdin=True, stdin_once=True)
    session = await runtime.attach(created)
    write(session, b"last words\n")
    await read_until(session.stdout, b"last words\n")
    session.close()
    assert (await ended(runtime, created)).exit_code == 4


async def test_a_container_with_a_terminal_logs_and_can_be_attached_and_resized(node: Node, runtime: Runtime) -> None:
    script = "trap 'stty size' WINCH; tty; echo started; while true; do read line && echo got $line; done"
    created = await start(node, runtime, "sh", "-c", script, tty=True, stdin=True)
    session = await runtime.attach(created)
    await session.resize(90, 33)
    write(session, b"hello\n")
    await read_until(session.stdout, b"got hello\r\n")
    session.close()
    status = await runtime.container_status(created)
    assert status is not None
    assert "/dev/pts/0" in node.output(status)
    assert (await runtime.exec_sync(created, ["stty", "size", "-F", "/dev/pts/0"])).stdout == b"33 90\n"


async def test_an_attached_client_that_does_not_read_never_makes_the_container_wait(
    node: Node, runtime: Runtime
) -> None:
    created = await start(node, runtime, "sh", "-c", "sleep 0.2; yes 123456789 | head -c 3000000; exit 6")
    session = await runtime.attach(created)
    status = await ended(runtime, created)
    assert status.exit_code == 6
    assert len(node.output(status)) == 3_000_000
    session.close()


@pytest.mark.parametrize("user_namespace", [False, True], ids=["node's users", "users of its own"])
@pytest.mark.parametrize("user", [0, 1000])
async def test_dev_stdout_can_be_opened_again_by_any_user(
    node: Node, runtime: Runtime, user: int, user_namespace: bool
) -> None:
    script = "echo one > /dev/stdout; echo two > /proc/self/fd/1; echo three > /dev/stderr"
    sandbox = await runtime.run_pod_sandbox(node.pod(user_namespace=user_namespace))
    config = container("sh", "-c", script, security=SecurityContext(run_as_user=user))
    created = await runtime.create_container(sandbox, config)
    await runtime.start_container(created)
    status = await ended(runtime, created)
    assert (node.output(status), node.output(status, "stderr")) == ("one\ntwo\n", "three\n")


async def connected(runtime: Runtime, sandbox: str) -> socket.socket:
    """Dial until the server inside listens."""
    while True:
        try:
            return await runtime.port_forward(sandbox, 8080)
        except RuntimeServiceError:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("user_namespace", [False, True], ids=["node's users", "users of its own"])
async def test_ports_of_a_pod_are_reached_by_its_own_loopback(
    node: Node, runtime: Runtime, user_namespace: bool
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod(user_namespace=user_namespace))
    script = "ip link set lo up; echo here | nc -l -p 8080; sleep 100"
    security = SecurityContext(add_capabilities=("NET_ADMIN",))
    created = await runtime.create_container(sandbox, container("sh", "-c", script, security=security))
    await runtime.start_container(created)
    async with asyncio.timeout(60):
        with await connected(runtime, sandbox) as connection:
            assert await asyncio.get_running_loop().sock_recv(connection, 10) == b"here\n"
    refused = r"IPv4: dial tcp4 127\.0\.0\.1:9: connect: connection refused IPv6 dial tcp6 \[::1\]:9"
    with pytest.raises(RuntimeServiceError, match=refused):
        await runtime.port_forward(sandbox, 9)


async def test_two_hundred_thousand_lines_arrive_in_order_and_whole(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "seq", "1", "200000")
    status = await ended(runtime, created, 60)
    assert node.output(status).split() == [str(number) for number in range(1, 200_001)]
    assert_cut_only_after_a_wait(node.log(status).splitlines())


def assert_cut_only_after_a_wait(log: list[str]) -> None:
    """No line is cut where a read or a write ended, unless its writer was stopped for as long as a line's rest is waited for."""
    for number, (before, record) in enumerate(itertools.pairwise(log)):
        if record.split(" ", 3)[2] == "P":
            waited = (nanoseconds(record) - nanoseconds(before)) / 1e9
            around = "\n".join(log[max(0, number - 1) : number + 4])
            assert waited > 0.9 * REST_SECONDS, (
                f"record {number + 2} of {len(log)} is a piece after {waited} s:\n{around}"
            )


def nanoseconds(record: str) -> int:
    """The time stamp of a log's record."""
    seconds, rest = record.split(" ", 1)[0].split(".")
    return int(datetime.fromisoformat(f"{seconds}+00:00").timestamp()) * 10**9 + int(rest[:9])


async def test_a_prompt_without_a_new_line_is_seen_while_the_program_waits(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "sh", "-c", "printf 'name? '; read name; echo $name", stdin=True)
    status = await runtime.container_status(created)
    assert status is not None
    await eventually(lambda: node.log(status).endswith(" stdout P name? \n"))
    session = await runtime.attach(created)
    write(session, b"Ada\n")
    await read_until(session.stdout, b"Ada\n")
    session.close()
    assert node.output(await ended(runtime, created)) == "name? Ada\n"


async def test_output_without_any_new_line_is_cut_into_pieces_and_held_nowhere(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "sh", "-c", "head -c 50000000 /dev/zero; sleep 0.1")
    sandbox = next(iter(runtime._state.sandboxes.values()))
    assert sandbox.peer is not None
    hello, _ = await sandbox.peer.request({"op": "hello"}, timeout=60)
    status = await ended(runtime, created, 60)
    assert sum(len(line) - 40 for line in Path(status.log_path).read_bytes().splitlines()) == 50_000_000
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{hello['pid']}/status").read_text())
    assert peak is not None
    assert int(peak[1]) < 40_000


async def test_a_log_that_was_renamed_goes_on_in_a_new_file(node: Node, runtime: Runtime) -> None:
    created = await start(node, runtime, "sh", "-c", "while read line; do echo $line; done", stdin=True)
    status = await runtime.container_status(created)
    assert status is not None
    session = await runtime.attach(created)
    write(session, b"before\n")
    await read_until(session.stdout, b"before\n")
    os.rename(status.log_path, status.log_path + ".1")
    await runtime.reopen_container_log(created)
    write(session, b"after\n")
    await read_until(session.stdout, b"after\n")
    session.close()
    assert " F before\n" in Path(status.log_path + ".1").read_text()
    assert node.output(status) == "after\n"
