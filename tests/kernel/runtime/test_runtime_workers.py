"""What a keeper's workers are to it: they make things and go, and one that is killed takes along no more than its work."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from runtime_node import Node, children, container, ended, eventually, kill, parent, title, waits_for_packet

from minikube_raw.linux import process
from minikube_raw.linux.cgroups import manager
from minikube_raw.runtime import wire
from minikube_raw.runtime.cri import ContainerState, SandboxState
from minikube_raw.runtime.launching import launcher_socket
from minikube_raw.runtime.peers import Message
from minikube_raw.runtime.pods import Sandbox
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


def keeper_of(runtime: Runtime, container_id: str) -> int:
    return parent(runtime._state.containers[container_id].status().pid)


def workers(keeper: int) -> list[int]:
    """Children of a keeper that have its title; its containers' first processes have theirs."""
    found = map(int, Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split())
    return [pid for pid in found if title(pid) == title(keeper)]


def nice(pid: int) -> int | None:
    """None of one that has ended meanwhile."""
    with suppress(ProcessLookupError):
        return os.getpriority(os.PRIO_PROCESS, pid)
    return None


async def sleeping(node: Node, runtime: Runtime) -> tuple[str, str, int]:
    """A pod with a container that sleeps: (sandbox, container, keeper), which has no worker (any more)."""
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container("sleep", "1000"))
    await runtime.start_container(created)
    keeper = keeper_of(runtime, created)
    await eventually(lambda: workers(keeper) == [])
    return sandbox, created, keeper


async def test_a_keeper_at_rest_shares_most_of_its_memory(node: Node, runtime: Runtime) -> None:
    _, _, keeper = await sleeping(node, runtime)
    lines = Path(f"/proc/{keeper}/smaps_rollup").read_text().splitlines()
    its_own = next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))
    assert its_own < 1800  # kB; 2300 for one that makes its pod itself


def held_by(pid: int) -> list[str]:
    """What a process's descriptors lead to."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(path))
    return links


async def test_what_keepers_are_forked_from_holds_nothing_of_any_pod(node: Node, runtime: Runtime) -> None:
    await sleeping(node, runtime)
    await eventually(lambda: len(held_by(node.template())) <= 4)  # one more while it forks the next spare keeper
    links = held_by(node.template())
    assert [link for link in links if ":[" in link and not link.startswith(("socket", "pipe"))] == []


async def test_a_template_that_is_killed_is_replaced_and_no_keeper_of_it_ends(node: Node, runtime: Runtime) -> None:
    _, created, keeper = await sleeping(node, runtime)
    for _ in range(2):
        killed = node.template()
        kill(killed)
        for name in ("spare", "forked"):
            other = await runtime.run_pod_sandbox(node.pod(name))
            assert runtime._state.sandboxes[other].status().state is SandboxState.READY
        assert node.template() != killed
    assert (await runtime.exec_sync(created, ["echo", "still"])).stdout == b"still\n"
    assert keeper_of(runtime, created) == keeper


async def test_a_container_whose_template_and_keeper_are_killed_has_its_end_known(node: Node, runtime: Runtime) -> None:
    _, created, keeper = await sleeping(node, runtime)
    kill(node.template())
    kill(keeper)
    await eventually(lambda: parent(runtime._state.containers[created].status().pid) != keeper)
    await runtime.stop_container(created, 0)
    assert (await ended(runtime, created)).exit_code == 137


async def kill_and_have_ordered(node: Node, sandbox: Sandbox, keeper: int, template: int) -> None:
    """Kills a keeper; the template, stopped, has the order to fork another when this returns."""
    dead = sandbox.peer
    os.kill(template, signal.SIGSTOP)
    kill(keeper)
    await eventually(lambda: sandbox.peer not in (None, dead))  # the launcher has been asked for another
    with wire.connect(launcher_socket(node.run)) as launcher:
        wire.send(launcher, {"op": "take", "sandbox": "nobody's"})
        wire.receive(launcher)  # it has come to us, so it has passed the order on


async def test_a_keeper_that_dies_with_whoever_was_to_fork_its_successor_is_replaced_all_the_same(
    node: Node, runtime: Runtime
) -> None:
    sandbox, created, keeper = await sleeping(node, runtime)
    before = await runtime.container_status(created)
    template = node.template()
    await kill_and_have_ordered(node, runtime._state.sandboxes[sandbox], keeper, template)
    kill(template)
    await runtime.settled()
    assert await runtime.container_status(created) == before
    assert (await runtime.exec_sync(created, ["echo", "still"])).stdout == b"still\n"


async def test_a_keeper_that_takes_over_does_without_a_launcher_that_dies_meanwhile(
    node: Node, runtime: Runtime
) -> None:
    sandbox, created, keeper = await sleeping(node, runtime)
    before = await runtime.container_status(created)
    template = node.template()
    assert node.launcher is not None
    others, launcher = set(children(template)), node.launcher.pid
    await kill_and_have_ordered(node, runtime._state.sandboxes[sandbox], keeper, template)
    os.kill(launcher, signal.SIGSTOP)
    os.kill(template, signal.SIGCONT)
    await eventually(
        lambda: any(waits_for_packet(pid) for new in set(children(template)) - others for pid in children(new))
    )
    kill(launcher)
    await runtime.settled()
    assert await runtime.container_status(created) == before
    assert (await runtime.exec_sync(created, ["echo", "still"])).stdout == b"still\n"


@pytest.mark.parametrize("greeted", [True, False], ids=["greeted", "taking over"])
async def test_a_keeper_that_dies_right_after_its_first_answer_is_replaced(
    node: Node, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, greeted: bool
) -> None:
    sandbox, created, keeper = await sleeping(node, runtime)
    before, known = await runtime.container_status(created), runtime._state.sandboxes[sandbox]
    take_word, last = runtime._keepers._take_word, known.peer
    died: list[int] = []

    def take_last_word(sandbox: Sandbox, hello: Message) -> None:
        take_word(sandbox, hello)
        if not died and sandbox.peer is not None:
            died.append(hello["pid"])
            kill(hello["pid"])
            sandbox.peer._readable()  # as the loop may do it before whoever waited for the answer

    monkeypatch.setattr(runtime._keepers, "_take_word", take_last_word)
    if greeted and last is not None:
        known.peer = None
        last.close()  # as with a kubelet before
        await runtime._keepers.recover(known)
    else:
        kill(keeper)
    await eventually(lambda: died and known.peer is not None and not known.peer.closed and not known.replacing)
    assert known.status().state is SandboxState.READY
    assert await runtime.container_status(created) == before
    assert (await runtime.exec_sync(created, ["echo", "still"])).stdout == b"still\n"


async def test_a_process_whose_worker_is_killed_has_ended_for_its_client_and_nobody_else_notices(
    node: Node, runtime: Runtime
) -> None:
    _, created, keeper = await sleeping(node, runtime)
    session = await runtime.exec(created, ["sleep", "1000"])
    (worker,) = workers(keeper)
    os.kill(worker, signal.SIGKILL)
    assert await asyncio.wait_for(session.wait(), 10) == 137
    session.close()
    assert (await runtime.exec_sync(created, ["echo", "still"])).stdout == b"still\n"
    assert keeper_of(runtime, created) == keeper


async def test_what_makes_an_exec_goes_first_and_its_program_goes_with_others(node: Node, runtime: Runtime) -> None:
    _, created, keeper = await sleeping(node, runtime)
    usual = nice(keeper)
    session = await runtime.exec(created, ["sleep", "1000"])
    (worker,) = workers(keeper)
    assert (nice(keeper), nice(worker)) == (-10, -10)
    await session.kill()
    await session.wait()
    session.close()
    assert nice(keeper) == usual
    stat = (await runtime.exec_sync(created, ["cat", "/proc/self/stat"])).stdout.decode()
    assert stat.rpartition(")")[2].split()[16] == str(usual)  # nice, the 19th field of proc_pid_stat(5)


async def test_a_container_is_made_with_others_while_something_is_executed(node: Node, runtime: Runtime) -> None:
    sandbox, created, keeper = await sleeping(node, runtime)
    usual = nice(keeper)
    session = await runtime.exec(created, ["sleep", "1000"])
    second = await runtime.create_container(sandbox, container("true", name="second"))
    log = Path(runtime._state.containers[second].record.request["logPath"])
    log.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(log)  # nobody reads: opening it holds the worker up
    starting = asyncio.ensure_future(runtime.start_container(second))
    # beside the worker of the exec there are that of the start and the child that waits to become the container
    await eventually(lambda: Counter(map(nice, workers(keeper))) == {-10: 1, usual: 2})
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    await starting
    os.close(reader)
    await session.kill()
    session.close()


async def test_threads_of_a_loop_that_goes_first_do_not(runtime: Runtime) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    process.go_first()
    try:
        assert await runtime._state.in_thread(lambda: os.getpriority(os.PRIO_PROCESS, 0)) == usual
    finally:
        process.go_with_others()


async def test_a_keeper_whose_worker_is_killed_over_a_start_is_replaced(node: Node, runtime: Runtime) -> None:
    sandbox, created, keeper = await sleeping(node, runtime)
    second = await runtime.create_container(sandbox, container("sh", "-c", "exit 3", name="second"))
    log = Path(runtime._state.containers[second].record.request["logPath"])
    log.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(log)  # nobody reads: opening it holds the worker up
    starting = asyncio.ensure_future(runtime.start_container(second))
    await eventually(lambda: workers(keeper) != [])
    os.kill(workers(keeper)[0], signal.SIGKILL)
    with pytest.raises(Exception, match="keeper"):
        await asyncio.wait_for(starting, 60)
    log.unlink()
    await eventually(lambda: runtime._state.sandboxes[sandbox].peer is not None)
    assert [found.state for found in await runtime.list_pod_sandboxes()] == [SandboxState.READY]
    status = await runtime.container_status(created)
    assert status is not None
    assert status.state is ContainerState.RUNNING
    third = await runtime.create_container(sandbox, container("sh", "-c", "exit 4", name="third"))
    await runtime.start_container(third)
    assert (await ended(runtime, third)).exit_code == 4


async def test_a_kubelet_that_comes_before_the_first_container_finds_the_keeper_and_starts_it(
    node: Node, runtime: Runtime
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    await runtime.close()
    fresh = node.make_runtime()
    await fresh.start()
    assert [found.state for found in await fresh.list_pod_sandboxes()] == [SandboxState.READY]
    created = await fresh.create_container(sandbox, container("sh", "-c", "exit 5"))
    await fresh.start_container(created)
    assert (await ended(fresh, created)).exit_code == 5
    await fresh.close()


async def test_a_sandbox_whose_worker_is_killed_before_the_first_container_goes_on_with_another_keeper(
    node: Node, runtime: Runtime
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    known = runtime._state.sandboxes[sandbox]
    first = known.peer
    waiting = manager(f"{known.record.cgroup}/{known.record.first_container}")
    await eventually(lambda: waiting.procs() != [])
    (child,) = waiting.procs()
    (worker,) = set(workers(parent(child))) - {child}
    os.kill(worker, signal.SIGKILL)
    await eventually(lambda: known.peer not in (None, first) and not known.replacing)
    created = await runtime.create_container(sandbox, container("sh", "-c", "exit 6"))
    await runtime.start_container(created)
    assert (await ended(runtime, created)).exit_code == 6


def spares(node: Node) -> list[int]:
    """The node's keepers that wait for a pod, each with a worker of the same title."""
    found = []
    for pid in manager(f"{node.cgroup}/system").procs():
        with suppress(OSError):  # it has just ended
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"keeper spare"):
                found.append(pid)
    return found


async def test_a_spare_keeper_that_is_killed_is_missed_by_no_pod_and_made_again(node: Node, runtime: Runtime) -> None:
    await eventually(lambda: runtime._keepers._spares._spare is not None)
    for pid in spares(node):
        with suppress(ProcessLookupError):  # a worker dies with its keeper
            os.kill(pid, signal.SIGKILL)
    await eventually(lambda: runtime._keepers._spares._spare is None)
    await sleeping(node, runtime)
    await eventually(lambda: len(spares(node)) == 2)


async def test_a_spare_keeper_ends_with_its_kubelet_and_the_next_kubelet_has_one(node: Node, runtime: Runtime) -> None:
    await eventually(lambda: len(spares(node)) == 2)
    await runtime.close()
    await eventually(lambda: spares(node) == [])
    fresh = node.make_runtime()
    await fresh.start()
    await eventually(lambda: len(spares(node)) == 2)
    await sleeping(node, fresh)
    await fresh.close()


async def test_a_pod_starts_while_the_launcher_that_made_the_spare_keeper_is_dead(node: Node, runtime: Runtime) -> None:
    await eventually(lambda: runtime._keepers._spares._spare is not None)
    assert node.launcher is not None
    node.launcher.kill()
    node.launcher.wait()
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container("sh", "-c", "exit 7"))
    await runtime.start_container(created)
    assert (await ended(runtime, created)).exit_code == 7
    node.start_launcher()
    await eventually(lambda: len(spares(node)) == 2)
