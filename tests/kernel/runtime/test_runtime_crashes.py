from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from runtime_node import (
    LOST,
    SHARED_PID,
    Node,
    children,
    container,
    ended,
    eventually,
    keeper_pid,
    kill,
    kill_keeper,
    run_to_end,
    running_node,
    title,
)

from minikube_raw.linux import features, pidfd, process
from minikube_raw.linux.cgroups import manager
from minikube_raw.runtime import adoption, wire
from minikube_raw.runtime.cri import ContainerState, Mount, SandboxState
from minikube_raw.runtime.launching import launcher_socket
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


async def start(node: Node, runtime: Runtime, *command: str, **changes: object) -> tuple[str, str]:
    sandbox = await runtime.run_pod_sandbox(node.pod("crash"))
    created = await runtime.create_container(sandbox, container(*command, **changes))
    await runtime.start_container(created)
    return sandbox, created


async def restart_kubelet(node: Node, runtime: Runtime) -> Runtime:
    """What is left of a kubelet that was killed: nothing but records; a new one reads them."""
    await runtime.close()
    fresh = node.make_runtime()
    await fresh.start()
    return fresh


COUNTER = "i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i; done; exit 42"


async def counting(node: Node, runtime: Runtime) -> tuple[str, str]:
    sandbox, created = await start(node, runtime, "sh", "-c", COUNTER)
    await grown(node, runtime, created)
    return sandbox, created


async def grown(node: Node, runtime: Runtime, created: str) -> None:
    """Waits until the container's log has grown: its output flows."""
    status = await runtime.container_status(created)
    assert status is not None
    size = os.path.getsize(status.log_path) if os.path.exists(status.log_path) else 0
    await eventually(lambda: os.path.exists(status.log_path) and os.path.getsize(status.log_path) > size)


async def stop_counting_and_compare(node: Node, runtime: Runtime, created: str) -> None:
    """Ends the counter from inside: its log must have every number once, and its exit code be its own."""
    await runtime.exec_sync(created, ["touch", "/tmp/stop"])
    status = await ended(runtime, created)
    numbers = node.output(status).split()
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert status.exit_code == 42


async def test_a_killed_kubelet_loses_nothing_and_finds_everything(node: Node, runtime: Runtime) -> None:
    sandbox, created = await counting(node, runtime)
    before = await runtime.container_status(created)
    fresh = await restart_kubelet(node, runtime)
    try:
        assert await fresh.container_status(created) == before
        assert [status.state for status in await fresh.list_pod_sandboxes()] == [SandboxState.READY]
        await stop_counting_and_compare(node, fresh, created)
        await fresh.remove_pod_sandbox(sandbox)
    finally:
        await fresh.close()


async def test_an_end_while_no_kubelet_was_there_is_known_afterwards(node: Node, runtime: Runtime) -> None:
    _sandbox, created = await start(node, runtime, "sh", "-c", "cat; exit 17", stdin=True, stdin_once=True)
    session = await runtime.attach(created)
    await runtime.close()
    session.close()
    record = Path(runtime._state.layout.exit_record(created))
    await eventually(record.exists)
    fresh = node.make_runtime()
    await fresh.start()
    status = await fresh.container_status(created)
    await fresh.close()
    assert status is not None
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 17)


async def test_a_killed_launcher_refuses_connections_and_disturbs_nobody(node: Node, runtime: Runtime) -> None:
    _, created = await counting(node, runtime)
    assert node.launcher is not None
    node.launcher.kill()
    node.launcher.wait()
    with pytest.raises(ConnectionRefusedError):
        wire.connect(launcher_socket(node.run))
    await grown(node, runtime, created)
    assert (await runtime.exec_sync(created, ["echo", "still"])).stdout == b"still\n"
    node.start_launcher()
    another = await runtime.run_pod_sandbox(node.pod("another"))
    assert another
    await stop_counting_and_compare(node, runtime, created)


async def test_a_killed_keeper_is_replaced_and_no_line_is_lost(node: Node, runtime: Runtime) -> None:
    sandbox, created = await counting(node, runtime)
    before = await runtime.container_status(created)
    for _ in range(12):
        await kill_keeper(runtime, sandbox)
        await grown(node, runtime, created)
    await grown(node, runtime, created)
    after = await runtime.container_status(created)
    assert after == before
    await stop_counting_and_compare(node, runtime, created)
    second = await runtime.create_container(sandbox, container("sh", "-c", "hostname; ls /dev/shm", name="second"))
    await runtime.start_container(second)
    assert node.output(await ended(runtime, second)) == "crash\n"


async def test_shared_memory_and_name_outlive_the_keeper(node: Node, runtime: Runtime) -> None:
    sandbox, created = await start(node, runtime, "sh", "-c", "echo kept > /dev/shm/it; exec sleep 100")
    first = await runtime.exec_sync(
        created, ["sh", "-c", "until cat /dev/shm/it; do :; done 2>/dev/null; readlink /proc/self/ns/ipc"]
    )
    await kill_keeper(runtime, sandbox)
    second = await runtime.create_container(
        sandbox, container("sh", "-c", "cat /dev/shm/it; readlink /proc/self/ns/ipc", name="second")
    )
    await runtime.start_container(second)
    assert node.output(await ended(runtime, second)) == first.stdout.decode()


async def test_keeper_launcher_and_kubelet_killed_at_once_leave_the_container_running(
    node: Node, runtime: Runtime
) -> None:
    sandbox, created = await counting(node, runtime)
    before = await runtime.container_status(created)
    assert node.launcher is not None
    keeper = await keeper_pid(runtime, sandbox)
    await runtime.close()
    node.launcher.kill()
    kill(keeper)
    node.launcher.wait()
    node.start_launcher()
    await node.wait_for_launcher()
    fresh = node.make_runtime()
    await fresh.start()
    try:
        after = await fresh.container_status(created)
        assert after == before
        await fresh.exec_sync(created, ["touch", "/tmp/stop"])
        assert (await ended(fresh, created)).exit_code == (42 if features.pidfd_info_exit() else LOST[0])
    finally:
        await fresh.close()


async def kill_all_holders(node: Node, runtime: Runtime, sandbox: str, *others: int) -> None:
    """Kills the keeper with the launcher, which is started again, and others, and waits until the kubelet has seen to it."""
    known = runtime._state.sandboxes[sandbox]
    old, keeper = known.peer, await keeper_pid(runtime, sandbox)
    assert node.launcher is not None
    node.launcher.kill()
    node.launcher.wait()
    for pid in (keeper, *others):
        kill(pid)
    node.start_launcher()
    await eventually(lambda: known.peer is not old and not known.replacing)


async def test_a_sandbox_whose_namespaces_nobody_holds_any_more_is_given_up(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    await kill_all_holders(node, runtime, sandbox)
    assert [status.state for status in await runtime.list_pod_sandboxes()] == [SandboxState.NOTREADY]


async def test_a_container_lives_on_though_its_keeper_its_launcher_and_its_neighbour_ended_at_once(
    node: Node, runtime: Runtime
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    pids = []
    for name in ("a", "b"):
        created = await runtime.create_container(sandbox, container("sleep", "1000", name=name))
        await runtime.start_container(created)
        pids.append(runtime._state.containers[created].status().pid)
    await kill_all_holders(node, runtime, sandbox, pids[0])
    assert (await runtime.exec_sync(created, ["echo", "still"])).stdout == b"still\n"
    assert [status.state for status in await runtime.list_pod_sandboxes()] == [SandboxState.READY]


async def test_a_shared_process_namespace_outlives_keeper_and_launcher(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=SHARED_PID))
    first = await runtime.create_container(sandbox, container("sleep", "1000", name="first"))
    await runtime.start_container(first)
    await kill_all_holders(node, runtime, sandbox)
    script = "readlink /proc/self/ns/pid; cat /proc/1/comm"
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script, name="second"))
    namespace = (await runtime.exec_sync(first, ["readlink", "/proc/self/ns/pid"])).stdout.decode()
    assert node.output(status) == f"{namespace}pause\n"


POLITE = "trap 'exit 23' TERM; echo up; while :; do sleep 0.01; done"


async def polite(node: Node, runtime: Runtime) -> tuple[str, str, int]:
    """A container that ends with 23 when asked to; (sandbox, container, its first process)."""
    sandbox, created = await start(node, runtime, "sh", "-c", POLITE)
    status = await runtime.container_status(created)
    assert status is not None
    await eventually(lambda: os.path.exists(status.log_path) and node.output(status) == "up\n")
    return sandbox, created, status.pid


def end_politely(pid: int) -> None:
    opened = os.pidfd_open(pid)
    signal.pidfd_send_signal(opened, signal.SIGTERM)
    assert pidfd.has_ended(opened, 60)
    os.close(opened)


@pytest.fixture
def init(node: Node) -> Iterator[None]:
    """We are what the first process of a node is: we inherit the children of launchers and keepers that die, and reap them."""
    process.become_subreaper()
    yield
    assert node.launcher is not None
    while inherited := [each.pid for each in psutil.Process().children() if each.pid != node.launcher.pid]:
        for pid in inherited:  # the spare keeper of a kubelet, which may not have left yet, and then that one's worker
            if title(pid) == "keeper spare":
                kill(pid)
            os.waitpid(pid, 0)
    assert ctypes.CDLL(None).prctl(process.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


async def test_an_end_that_neither_keeper_nor_launcher_lived_to_see_is_known(
    node: Node, runtime: Runtime, init: None
) -> None:
    sandbox, created, pid = await polite(node, runtime)
    keeper = await keeper_pid(runtime, sandbox)
    assert node.launcher is not None
    node.launcher.kill()
    node.launcher.wait()
    kill(keeper)
    end_politely(pid)
    for inherited in (keeper, pid):
        os.waitpid(inherited, 0)  # noqa: ASYNC222 they have ended
    node.start_launcher()
    status = await ended(runtime, created)
    assert (status.exit_code, status.reason) == ((23, "Error") if features.pidfd_info_exit() else LOST)
    # its namespaces went with them: another sandbox has to be made
    await eventually(lambda: not runtime._state.sandboxes[sandbox].replacing)
    assert [found.state for found in await runtime.list_pod_sandboxes()] == [SandboxState.NOTREADY]
    fresh = await restart_kubelet(node, runtime)
    assert await fresh.container_status(created) == status
    await fresh.close()


async def test_an_end_that_neither_keeper_nor_kubelet_lived_to_see_is_known(node: Node, runtime: Runtime) -> None:
    sandbox, created, pid = await polite(node, runtime)
    keeper = await keeper_pid(runtime, sandbox)
    await runtime.close()
    kill(keeper)
    end_politely(pid)
    fresh = node.make_runtime()
    await fresh.start()
    status = await ended(fresh, created)
    await fresh.close()
    assert (status.exit_code, status.reason) == (23, "Error")


async def crash_over_a_stop(node: Node, runtime: Runtime, sandbox: str) -> Runtime:
    """A kubelet that stops a sandbox notes that first. This one does nothing more; returns the next."""
    record = runtime._state.sandboxes[sandbox].record
    record.stopped = True
    runtime._state.sandbox_records.write(sandbox, record)
    return await restart_kubelet(node, runtime)


async def test_an_end_after_a_kubelet_died_over_stopping_the_pod_is_known_to_the_next(
    node: Node, runtime: Runtime
) -> None:
    sandbox, created = await counting(node, runtime)
    fresh = await crash_over_a_stop(node, runtime, sandbox)
    try:
        await stop_counting_and_compare(node, fresh, created)
        await fresh.remove_pod_sandbox(sandbox)
    finally:
        await fresh.close()


async def test_what_ended_with_its_keeper_while_a_kubelet_died_over_stopping_the_pod_does_not_seem_to_run(
    node: Node, runtime: Runtime
) -> None:
    sandbox, created = await start(node, runtime, "sleep", "1000")
    status = await runtime.container_status(created)
    assert status is not None
    runtime._state.sandboxes[sandbox].record.stopped = True  # else another keeper takes over at once
    kill(await keeper_pid(runtime, sandbox))
    kill(status.pid)
    fresh = await crash_over_a_stop(node, runtime, sandbox)
    try:
        after = await fresh.container_status(created)
        assert after is not None
        assert (after.state, after.exit_code) == (ContainerState.EXITED, 137)
        await fresh.remove_pod_sandbox(sandbox)
    finally:
        await fresh.close()


@pytest.mark.parametrize("kubelet", ["the same", "the next"])
async def test_a_stop_waits_for_no_word_of_a_keeper_that_died_over_it(
    node: Node, runtime: Runtime, kubelet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minikube_raw.runtime.containers.EXIT_TIMEOUT", 3600)
    sandbox, _ = await start(node, runtime, "sleep", "1000")
    runtime._state.sandboxes[sandbox].record.stopped = True
    kill(await keeper_pid(runtime, sandbox))
    if kubelet == "the next":
        runtime = await crash_over_a_stop(node, runtime, sandbox)
    try:
        await asyncio.wait_for(runtime.remove_pod_sandbox(sandbox), 60)
        assert await runtime.list_containers() == []
    finally:
        await runtime.close()


async def test_an_end_that_a_killed_keeper_wrote_down_and_told_nobody_is_known(node: Node, runtime: Runtime) -> None:
    sandbox, created = await start(node, runtime, "sh", "-c", "trap 'exit 42' TERM; while :; do echo; sleep 0.01; done")
    await grown(node, runtime, created)  # the trap is set
    state = runtime._state
    status = await runtime.container_status(created)
    assert status is not None
    state.sandboxes[sandbox].record.stopped = True
    state.sandboxes[sandbox].peer._on_event = lambda *_: None  # type: ignore[union-attr]  # deaf to what the keeper says
    os.kill(status.pid, signal.SIGTERM)
    await eventually(lambda: state.exit_records.read(created) is not None)
    kill(await keeper_pid(runtime, sandbox))
    assert (await ended(runtime, created)).exit_code == 42


async def test_a_pod_whose_keeper_is_being_replaced_is_still_ready(node: Node, runtime: Runtime) -> None:
    sandbox, created = await counting(node, runtime)
    known = runtime._state.sandboxes[sandbox]
    keeper = await keeper_pid(runtime, sandbox)
    assert node.launcher is not None
    node.launcher.send_signal(signal.SIGSTOP)  # it holds the pod's FIFOs, and makes no new keeper yet
    kill(keeper)
    await eventually(lambda: known.replacing)
    assert [status.state for status in await runtime.list_pod_sandboxes()] == [SandboxState.READY]
    node.launcher.send_signal(signal.SIGCONT)
    await eventually(lambda: not known.replacing)
    assert [status.state for status in await runtime.list_pod_sandboxes()] == [SandboxState.READY]
    await stop_counting_and_compare(node, runtime, created)


async def test_a_container_whose_keeper_died_before_it_could_say_so_is_not_started_twice(
    node: Node, runtime: Runtime
) -> None:
    sandbox, created = await counting(node, runtime)
    before = await runtime.container_status(created)
    known = runtime._state.containers[created]
    known.record.started_at, known.identity = 0, None  # as if the keeper's answer had not come
    await kill_keeper(runtime, sandbox)
    after = await runtime.container_status(created)
    assert before is not None
    assert after is not None
    assert (after.state, after.pid) == (ContainerState.RUNNING, before.pid)
    await stop_counting_and_compare(node, runtime, created)


async def test_a_child_that_was_killed_while_it_waited_is_replaced(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    record = runtime._state.sandboxes[sandbox].record
    waiting = manager(f"{record.cgroup}/{record.first_container}")
    await eventually(lambda: bool(waiting.procs()))
    for pid in waiting.procs():
        kill(pid)
    created = await runtime.create_container(sandbox, container("sh", "-c", "exit 5"))
    await runtime.start_container(created)
    assert (await ended(runtime, created)).exit_code == 5


async def test_a_container_with_a_terminal_survives_its_keeper(node: Node, runtime: Runtime) -> None:
    sandbox, created = await start(
        node, runtime, "sh", "-c", "while read x; do echo got $x; done", tty=True, stdin=True
    )
    await kill_keeper(runtime, sandbox)
    await talk(node, runtime, created)


async def talk(node: Node, runtime: Runtime, container_id: str) -> None:
    """Writes a line to the terminal of a container, which answers."""
    session = await runtime.attach(container_id)
    assert session.stdin is not None
    os.write(session.stdin, b"after\n")
    status = await runtime.container_status(container_id)
    assert status is not None
    await eventually(lambda: "got after" in node.output(status))
    session.close()


async def test_a_keeper_that_took_over_while_its_kubelet_died_leaves_terminals_and_output_to_the_next(
    node: Node, runtime: Runtime
) -> None:
    sandbox, created = await counting(node, runtime)
    reader = container("sh", "-c", "while read x; do echo got $x; done", name="tty", tty=True, stdin=True)
    terminal = await runtime.create_container(sandbox, reader)
    await runtime.start_container(terminal)
    known, keeper = runtime._state.sandboxes[sandbox], await keeper_pid(runtime, sandbox)
    request = adoption.adopt_request(runtime._keepers._request(known.record), known.containers.values())
    await runtime.close()
    kill(keeper)
    await take_over_for_nobody(node, request)
    fresh = node.make_runtime()
    await fresh.start()
    try:
        await talk(node, fresh, terminal)
        await grown(node, fresh, created)
        await stop_counting_and_compare(node, fresh, created)
    finally:
        await fresh.close()


async def test_a_keeper_that_dies_while_a_new_kubelet_greets_it_is_replaced(node: Node, runtime: Runtime) -> None:
    sandbox, created = await counting(node, runtime)
    keeper, socket_path = await keeper_pid(runtime, sandbox), runtime._state.layout.keeper_socket(sandbox)
    await runtime.close()
    kill(keeper)
    fresh = node.make_runtime()
    with wire.listen(socket_path) as dying:  # a keeper's last moment: connected to, and never to answer
        asked = select.poll()
        asked.register(dying, select.POLLIN)
        starting = asyncio.create_task(fresh.start())
        await eventually(lambda: bool(asked.poll(0)))
    await starting
    try:
        await grown(node, fresh, created)
        await stop_counting_and_compare(node, fresh, created)
    finally:
        await fresh.close()


async def take_over_for_nobody(node: Node, request: dict[str, object]) -> None:
    """Has a keeper take over that cannot answer whoever asked, and waits for its end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, wire.connect(launcher_socket(node.run)) as launcher:
        ours.shutdown(socket.SHUT_RD)  # what a kubelet's death is to a sender
        wire.send(launcher, {"op": "run", "sandbox": request}, [theirs.fileno()])
        theirs.close()
        hung_up = select.poll()
        hung_up.register(ours, 0)
        await eventually(lambda: bool(hung_up.poll(0)))


async def test_a_keeper_holds_only_its_own_descriptors_and_shows_its_pod(node: Node, runtime: Runtime) -> None:
    for name in ("a", "b", "c"):
        sandbox = await runtime.run_pod_sandbox(node.pod(name))
        created = await runtime.create_container(sandbox, container("sleep", "100"))
        await runtime.start_container(created)
    pid = await keeper_pid(runtime, sandbox)
    # until its worker has handed all over, descriptors come and go
    await eventually(lambda: not any(title(child) == "keeper default/c" for child in children(pid)))
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    named = [link for link in links if link.startswith("/") and "/dev/null" not in link]
    ours = [runtime._state.layout.container(created), node.logs.as_posix()]
    assert [link for link in named if not link.startswith(tuple(ours))] == []
    assert sum("net:[" in link for link in links) <= 1
    assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == b"keeper default/c"


async def test_start_sweeps_what_no_record_owns(node: Node, runtime: Runtime) -> None:
    sandbox, created = await start(node, runtime, "sleep", "100")
    kept = await runtime.container_status(created)
    stray = "e" * 64
    manager(f"{node.cgroup}/kubepods/podgone/{stray}").create()
    for path in (f"run/sandboxes/{stray}", f"run/containers/{stray}", f"state/containers/{stray}/upper"):
        (node.run.parent / path).mkdir(parents=True)
    (node.run / "netns" / stray).touch()
    (node.state / "records/exits" / f"{stray}.json").write_text('{"exit_code": 0, "finished_at": 1}')
    fresh = await restart_kubelet(node, runtime)
    assert await fresh.container_status(created) == kept
    await fresh.close()
    assert [path for path in (*node.run.rglob("*"), *node.state.rglob("*")) if stray in path.as_posix()] == []
    assert not manager(f"{node.cgroup}/kubepods/podgone").exists()
    assert sandbox


async def test_a_half_written_record_is_set_aside_and_the_rest_goes_on(node: Node, runtime: Runtime) -> None:
    _, created = await start(node, runtime, "sleep", "100")
    broken = node.state / "records/sandboxes" / ("f" * 64 + ".json")
    broken.write_text('{"id": "fff')
    fresh = await restart_kubelet(node, runtime)
    status = await fresh.container_status(created)
    await fresh.close()
    assert status is not None
    assert status.state is ContainerState.RUNNING
    assert len(fresh.warnings) == 1
    assert "cannot be read" in fresh.warnings[0]
    assert not broken.exists()
    assert broken.with_name(broken.name + ".unreadable").read_text() == '{"id": "fff'


def keepers_of(node: Node, name: str) -> list[int]:
    """Keepers of the pod default/NAME that run; a child of one that waits to become a container has the same title."""
    return [pid for pid in children(node.template()) if title(pid) == f"keeper default/{name}"]


async def test_a_keeper_whose_kubelet_died_before_it_answered_ends(node: Node, runtime: Runtime) -> None:
    name = "unheard"
    await runtime.run_pod_sandbox(node.pod("first"))  # so that there is a template
    sandbox = runtime._sandboxes._record(node.pod(name))
    os.makedirs(runtime._state.layout.sandbox(sandbox.id))
    request = runtime._keepers._request(sandbox.record)
    await eventually(lambda: "keeper spare" in map(title, children(node.template())))
    others = set(children(node.template()))
    ours, theirs = wire.pair()
    with wire.connect(launcher_socket(node.run)) as launcher, theirs:
        ours.close()  # before the keeper could answer: an answer that is sent may be one that nobody reads
        wire.send(launcher, {"op": "run", "sandbox": request}, [theirs.fileno()])
    await eventually(lambda: manager(request["cgroup"]).exists())  # the keeper is at work
    await eventually(lambda: others.issuperset(children(node.template())))
    assert await runtime.run_pod_sandbox(sandbox.record.config) != sandbox.id  # whose keeper might still be at work
    await eventually(lambda: len(keepers_of(node, name)) == 1)


async def test_a_sandbox_that_a_kubelet_died_over_is_made_again_by_one_keeper(node: Node, runtime: Runtime) -> None:
    name = "halfway"
    config = node.pod(name)
    sandbox = await runtime.run_pod_sandbox(config)
    first = keepers_of(node, name)
    known = runtime._state.sandboxes[sandbox].record
    known.ready = False  # as if the kubelet had died before it wrote that
    runtime._state.sandbox_records.write(sandbox, known)
    fresh = await restart_kubelet(node, runtime)
    await fresh.run_pod_sandbox(config)
    await eventually(lambda: len(keepers_of(node, name)) == 1)
    assert keepers_of(node, name) != first
    await fresh.close()


async def test_with_an_unreadable_sandbox_record_its_keeper_and_containers_go(node: Node, runtime: Runtime) -> None:
    name = "unread"
    sandbox = await runtime.run_pod_sandbox(node.pod(name))
    created = await runtime.create_container(sandbox, container("sleep", "100"))
    await runtime.start_container(created)
    group = manager(runtime._state.containers[created].record.request["cgroup"])
    (node.state / "records/sandboxes" / f"{sandbox}.json").write_text("{")
    fresh = await restart_kubelet(node, runtime)
    assert (await fresh.list_pod_sandboxes(), await fresh.list_containers()) == ([], [])
    await eventually(lambda: not keepers_of(node, name))
    await fresh.close()
    assert not group.exists()
    left = [str(path) for path in (*node.run.rglob("*"), *node.state.rglob("*")) if created in str(path)]
    assert left == []


async def test_after_a_power_cut_nothing_of_before_is_believed(
    node: Node, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, created = await start(node, runtime, "sleep", "100")
    await runtime.close()
    monkeypatch.setattr(pidfd, "_boot_id", "another boot")
    fresh = node.make_runtime()
    await fresh.start()
    status = await fresh.container_status(created)
    assert status is not None
    assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 137, "ContainerStatusUnknown")
    assert [found.state for found in await fresh.list_pod_sandboxes()] == [SandboxState.NOTREADY]
    await fresh.remove_pod_sandbox(sandbox)
    await fresh.settled()
    assert await fresh.list_pod_sandboxes() == []
    await fresh.close()


async def test_on_a_kernel_that_does_not_tell_exit_codes_the_launcher_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIKUBE_RAW_NO_PIDFD_INFO_EXIT", "1")
    async with running_node(tmp_path) as (node, runtime):
        sandbox, created = await counting(node, runtime)
        await kill_keeper(runtime, sandbox)
        await stop_counting_and_compare(node, runtime, created)


async def test_with_every_newer_kernel_feature_off_a_container_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in features.all():
        monkeypatch.setenv(f"MINIKUBE_RAW_NO_{name.upper()}", "1")
    monkeypatch.delenv("MINIKUBE_RAW_NO_NEW_MOUNT_API")  # volumes travel as detached mounts: Linux 5.2 is the floor
    async with running_node(tmp_path) as (node, runtime):
        (tmp_path / "data").mkdir()
        sandbox = await runtime.run_pod_sandbox(node.pod())
        volume = Mount("/data", str(tmp_path / "data"), readonly=True)
        script = (
            "touch /data/x || echo refused; touch /x && echo written; grep -c . /proc/self/status > /dev/null; exit 5"
        )
        created = await runtime.create_container(sandbox, container("sh", "-c", script, mounts=(volume,)))
        await runtime.start_container(created)
        status = await ended(runtime, created)
        assert (status.exit_code, node.output(status)) == (5, "refused\nwritten\n")
        await runtime.remove_pod_sandbox(sandbox)
        await runtime.settled()
        assert runtime.warnings == []
