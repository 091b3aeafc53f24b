"""Pods whose handler is an OCI runtime of the host: runc and crun in everything that we promise of one, gVisor where Debian has it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from runtime_node import LOST, SHARED_PID, Node, container, ended, eventually, run_to_end

from minikube_raw.linux import features, pidfd
from minikube_raw.linux.cgroups import detect, manager
from minikube_raw.runtime import handlers, rootfs, wire
from minikube_raw.runtime.cri import (
    LinuxContainerResources,
    LinuxContainerUser,
    Mount,
    NamespaceMode,
    NamespaceOption,
    RuntimeServiceError,
    SecurityContext,
)
from minikube_raw.runtime.launching import launcher_socket
from minikube_raw.runtime.peers import Peer
from minikube_raw.runtime.service import Runtime

# gVisor without a network stack or a hypervisor of its own: what it needs of a host is there then everywhere.
ARGUMENTS = {"runc": [], "crun": [], "runsc": ["--platform=ptrace", "--network=host"]}


def found(name: str) -> Any:
    missing = pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")
    return pytest.param(name, marks=missing)


OCI = [found("runc"), found("crun")]
AND_GVISOR = pytest.mark.parametrize("handler", [*OCI, found("runsc")], indirect=True)
pytestmark = pytest.mark.root


@pytest.fixture(params=OCI)
def handler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _known(node: Node, runtime: Runtime, handler: str) -> None:
    """The node knows the handler that the test is about."""
    runtime._handlers._commands = know(node, handler)


def know(node: Node, handler: str) -> dict[str, list[str]]:
    program = shutil.which(handler)
    assert program is not None
    node.handlers = {handler: [program, *ARGUMENTS[handler]]}
    return node.handlers


async def pod(node: Node, runtime: Runtime, handler: str, **changes: Any) -> str:
    return await runtime.run_pod_sandbox(node.pod(runtime_handler=handler, **changes))


async def start(node: Node, runtime: Runtime, handler: str, *command: str, **changes: Any) -> tuple[str, str]:
    sandbox = await pod(node, runtime, handler)
    return sandbox, await begin(runtime, sandbox, *command, **changes)


async def begin(runtime: Runtime, sandbox: str, *command: str, **changes: Any) -> str:
    created = await runtime.create_container(sandbox, container(*command, **changes))
    await runtime.start_container(created)
    return created


async def keeper(runtime: Runtime, sandbox: str) -> int:
    answer, _ = await runtime._keepers.ask(runtime._state.sandboxes[sandbox], {"op": "hello"})
    return int(answer["pid"])


def kill(pid: int) -> None:
    opened = os.pidfd_open(pid)
    signal.pidfd_send_signal(opened, signal.SIGKILL)
    assert pidfd.has_ended(opened, 5)
    os.close(opened)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@AND_GVISOR
async def test_its_output_is_logged_and_its_exit_code_known(node: Node, runtime: Runtime, handler: str) -> None:
    sandbox = await pod(node, runtime, handler)
    said = "echo out; echo err >&2; id -u; hostname; echo again >/dev/stdout; exit 3"
    status = await run_to_end(runtime, sandbox, container("sh", "-c", said, security=SecurityContext(run_as_user=1000)))
    assert (status.exit_code, status.reason, node.output(status, "stderr")) == (3, "Error", "err\n")
    assert node.output(status) == "out\n1000\npod\nagain\n"
    assert status.user == LinuxContainerUser(1000, 1001, (1001, 2000))
    again = await run_to_end(runtime, sandbox, container("sh", "-c", "kill -9 $$; exit 4", attempt=1))
    assert again.exit_code in (4, 137)  # gVisor lets a first process kill itself


async def test_the_process_is_the_runtimes_and_the_keepers_child(node: Node, runtime: Runtime, handler: str) -> None:
    sandbox, created = await start(node, runtime, handler, "sleep", "1000")
    identity = runtime._state.containers[created].identity
    assert identity is not None
    assert str(identity.pid) in children(await keeper(runtime, sandbox))
    cgroups = Path(f"/proc/{identity.pid}/cgroup").read_text().splitlines()
    own = runtime._state.containers[created].record.request["cgroup"]
    joined = {line.split(":")[1]: line.split(":")[2] for line in cgroups}
    assert joined["memory" if detect() != "v2" else ""] == joined[""] == f"/{own}"


@AND_GVISOR
async def test_a_program_that_is_not_there_is_a_start_error(node: Node, runtime: Runtime, handler: str) -> None:
    sandbox = await pod(node, runtime, handler)
    created = await runtime.create_container(sandbox, container("nosuch"))
    with pytest.raises(RuntimeServiceError, match="nosuch") as raised:
        await runtime.start_container(created)
    assert raised.value.reason == "StartError"
    assert str(raised.value).count("unable to start container process") == 1
    await runtime.remove_container(created)
    assert (await run_to_end(runtime, sandbox, container("true"))).exit_code == 0


async def test_a_user_the_image_does_not_know_is_told_as_ours_is(node: Node, runtime: Runtime, handler: str) -> None:
    root, config = node.images.images["busybox"]
    node.images.images["strange"] = (root, type(config)(cmd=("sh",), user="stranger"))
    created = await runtime.create_container(await pod(node, runtime, handler), container(image="strange"))
    with pytest.raises(RuntimeServiceError, match="stranger") as raised:
        await runtime.start_container(created)
    assert raised.value.reason == "CreateContainerError"


@AND_GVISOR
async def test_exec_has_the_containers_user_and_variables_and_its_own_code(
    node: Node, runtime: Runtime, handler: str
) -> None:
    security = SecurityContext(run_as_user=1000)
    _, created = await start(node, runtime, handler, "sleep", "1000", envs=(("A", "b"),), security=security)
    result = await runtime.exec_sync(created, ["sh", "-c", "id -u; echo $A $HOME; echo no >&2; exit 7"])
    assert (result.stdout, result.stderr, result.exit_code) == (b"1000\nb /home/web\n", b"no\n", 7)
    with pytest.raises(RuntimeServiceError, match="nosuch") as raised:
        await runtime.exec_sync(created, ["nosuch"])
    assert raised.value.reason == "ExecError"


async def test_an_execs_program_goes_with_others(node: Node, runtime: Runtime, handler: str) -> None:
    _, created = await start(node, runtime, handler, "sleep", "1000")
    stat = (await runtime.exec_sync(created, ["cat", "/proc/self/stat"])).stdout.decode()
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert stat.rpartition(")")[2].split()[16] == str(usual)  # nice, the 19th field of proc_pid_stat(5)


async def test_an_exec_that_times_out_ends_with_its_children(node: Node, runtime: Runtime, handler: str) -> None:
    _, created = await start(node, runtime, handler, "sleep", "1000")
    with pytest.raises(TimeoutError):
        await runtime.exec_sync(created, ["sh", "-c", "sleep 500 & sleep 600"], timeout=0.5)
    group = manager(runtime._state.containers[created].record.request["cgroup"])
    await eventually(lambda: len(group.procs()) == 1)


async def test_exec_with_a_terminal_has_one_with_a_size(node: Node, runtime: Runtime, handler: str) -> None:
    _, created = await start(node, runtime, handler, "sleep", "1000")
    session = await runtime.exec(created, ["sh", "-c", "read x; stty size; tty; exit 5"], tty=True, stdin=True)
    try:
        await session.resize(132, 43)
        assert session.stdin is not None
        os.write(session.stdin, b"\n")
        assert await session.wait() == 5
        assert session.stdout is not None
        seen = b""
        while b"/dev/pts/" not in seen:
            seen += os.read(session.stdout, 4096)
    finally:
        session.close()
    assert b"43 132" in seen


async def test_a_container_with_a_terminal_is_attached_logged_and_outlives_its_keeper(
    node: Node, runtime: Runtime, handler: str
) -> None:
    script = "echo started; while read line; do echo got $line; [ $line = end ] && exit 6; done"
    sandbox, created = await start(node, runtime, handler, "sh", "-c", script, tty=True, stdin=True)
    await kill_keeper(runtime, sandbox)
    session = await runtime.attach(created)
    assert session.stdin is not None
    os.write(session.stdin, b"end\n")
    status = await ended(runtime, created)
    session.close()
    assert status.exit_code == 6
    assert "got end\n" in node.output(status)


async def kill_keeper(runtime: Runtime, sandbox: str) -> None:
    old = runtime._state.sandboxes[sandbox].peer
    kill(await keeper(runtime, sandbox))
    await replaced(runtime, sandbox, old)


async def replaced(runtime: Runtime, sandbox: str, old: Peer | None) -> None:
    """Waits until another keeper than the one behind `old` has taken over."""
    known = runtime._state.sandboxes[sandbox]
    await eventually(lambda: not known.replacing and known.peer not in (None, old))


async def test_limits_are_the_cgroups_and_running_out_of_memory_is_said(
    node: Node, runtime: Runtime, handler: str
) -> None:
    resources = LinuxContainerResources(memory_limit_in_bytes=24 << 20, cpu_quota=50_000, pids_limit=20)
    sandbox, created = await start(node, runtime, handler, "sleep", "1000", resources=resources)
    stats = manager(runtime._state.containers[created].record.request["cgroup"]).stats()
    assert (stats.memory_limit, stats.cpu_limit) == (24 << 20, 0.5)
    assert stats.memory_usage > 0
    changed = LinuxContainerResources(memory_limit_in_bytes=32 << 20)
    await runtime.update_container_resources(created, changed)
    assert manager(runtime._state.containers[created].record.request["cgroup"]).stats().memory_limit == 32 << 20
    greedy = container("sh", "-c", "tail /dev/zero", name="greedy", resources=resources)
    status = await run_to_end(runtime, sandbox, greedy)
    assert status.exit_code != 0
    alone = await run_to_end(runtime, sandbox, container("tail", "/dev/zero", name="alone", resources=resources))
    assert (alone.exit_code, alone.reason) == (137, "OOMKilled")


async def test_volumes_are_those_that_were_opened_and_memory_is_the_pods(
    node: Node, runtime: Runtime, handler: str, tmp_path: Path
) -> None:
    outside, volume = tmp_path / "outside", tmp_path / "volume"
    outside.mkdir()
    (volume / "sub").mkdir(parents=True)
    (volume / "sub/file").write_text("inside\n")
    (tmp_path / "single").write_text("one file\n")
    node.images.images["seen"] = node.images.images["busybox"]
    mounts = (
        Mount("/data", str(volume), sub_path="sub"),
        Mount("/fixed", str(volume), readonly=True),
        Mount("/single", str(tmp_path / "single")),
        Mount("/image", image="seen"),
    )
    sandbox = await pod(node, runtime, handler)
    created = await runtime.create_container(
        sandbox,
        container(
            "sh",
            "-c",
            "cat /data/file /single; echo new >/data/new; touch /fixed/x || echo fixed; ls /image/etc; touch /image/x; echo y >/dev/shm/x",
            mounts=mounts,
        ),
    )
    await runtime.start_container(created)
    status = await ended(runtime, created)
    assert node.output(status) == "inside\none file\nfixed\ngroup\npasswd\n"
    assert (volume / "sub/new").read_text() == "new\n"
    second = await run_to_end(runtime, sandbox, container("cat", "/dev/shm/x", name="second"))
    assert node.output(second) == "y\n"


async def test_what_the_kubelet_opened_is_mounted_though_its_name_was_swapped(
    node: Node, runtime: Runtime, handler: str, tmp_path: Path
) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/here").write_text("")
    (tmp_path / "elsewhere").mkdir()
    created = await runtime.create_container(
        await pod(node, runtime, handler), container("ls", "/data", mounts=(Mount("/data", str(tmp_path / "volume")),))
    )
    sandbox, known = runtime._state.container(created)
    opened = await runtime._containers._open_volumes(sandbox, known)
    (tmp_path / "volume").rename(tmp_path / "moved")
    (tmp_path / "volume").symlink_to("elsewhere")
    answer, _ = await runtime._keepers.ask(sandbox, {"op": "start", "container": known.record.request}, opened)
    wire.close(opened)
    assert "error" not in answer
    assert node.output(await ended(runtime, created)) == "here\n"


async def test_stop_gives_its_grace_and_then_nothing_is_left(node: Node, runtime: Runtime, handler: str) -> None:
    script = "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    sandbox, created = await start(node, runtime, handler, "sh", "-c", script)
    log = Path(runtime._state.containers[created].log_path)
    await eventually(lambda: "ready" in log.read_text())
    await runtime.stop_container(created, 20)
    status = await runtime.container_status(created)
    assert status is not None
    assert (status.exit_code, node.output(status)) == (9, "ready\nasked\n")
    deaf = await begin(runtime, sandbox, "sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000", name="deaf")
    await runtime.stop_container(deaf, 0.1)
    assert (await ended(runtime, deaf)).exit_code == 137
    own = runtime._state.sandboxes[sandbox].record.cgroup
    await runtime.remove_pod_sandbox(sandbox)
    await runtime.settled()
    assert os.listdir(node.run / "containers") == []
    assert not any((root / own).exists() for root in Path("/sys/fs/cgroup").iterdir())
    assert not Path("/sys/fs/cgroup", own).exists()


async def test_containers_can_share_their_processes(node: Node, runtime: Runtime, handler: str) -> None:
    sandbox = await pod(node, runtime, handler, namespaces=SHARED_PID)
    await begin(runtime, sandbox, "sleep", "1234", name="other")
    main = await begin(runtime, sandbox, "sleep", "1000")
    seen = (await runtime.exec_sync(main, ["ps", "-o", "pid,args"])).stdout.decode()
    assert "{pause}" in seen
    assert "sleep 1234" in seen
    await runtime.stop_container(main, 0)


async def test_a_pod_on_the_nodes_network_and_among_its_processes_leaves_no_orphan_behind(
    node: Node, runtime: Runtime, handler: str
) -> None:
    modes = NamespaceOption(network=NamespaceMode.NODE, pid=NamespaceMode.NODE, ipc=NamespaceMode.NODE)
    sandbox = await pod(node, runtime, handler, namespaces=modes)
    script = "for kind in net pid ipc uts; do readlink /proc/self/ns/$kind; done; sleep 1234 & exit 0"
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script))
    kinds = ("net", "pid", "ipc", "uts")
    assert node.output(status).split() == [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert manager(runtime._state.containers[status.id].record.request["cgroup"]).procs() == []


async def test_security_is_what_the_pod_asks_for(node: Node, runtime: Runtime, handler: str) -> None:
    sandbox = await pod(node, runtime, handler)
    asked = SecurityContext(
        run_as_user=1000,
        drop_capabilities=("ALL",),
        add_capabilities=("NET_BIND_SERVICE",),
        readonly_rootfs=True,
        no_new_privs=True,
    )
    script = "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; touch /x || echo fixed; ls /proc/acpi | wc -l"
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script, security=asked))
    words = "CapBnd: 0000000000000400 NoNewPrivs: 1 Seccomp: 2 fixed 0"
    assert " ".join(node.output(status).split()) == words
    free = SecurityContext(privileged=True)
    status = await run_to_end(
        runtime,
        sandbox,
        container("sh", "-c", "ls /dev | wc -l; grep Seccomp: /proc/self/status", name="free", security=free),
    )
    devices, *seccomp = node.output(status).split()
    assert int(devices) >= len(rootfs.host_devices())
    assert seccomp == ["Seccomp:", "0"]


async def test_an_ephemeral_container_sees_its_targets_processes(node: Node, runtime: Runtime, handler: str) -> None:
    sandbox, target = await start(node, runtime, handler, "sleep", "1234")
    debug = await run_to_end(runtime, sandbox, container("ps", "-o", "args", name="debug", pid_target=target))
    assert "sleep 1234" in node.output(debug)
    await runtime.stop_container(target, 0)
    late = await runtime.create_container(sandbox, container("ps", name="late", pid_target=target))
    with pytest.raises(RuntimeServiceError, match="does not run"):
        await runtime.start_container(late)


async def test_a_user_namespace_is_refused_in_kubelets_words(node: Node, runtime: Runtime, handler: str) -> None:
    text = f'can\'t set `spec.hostUsers: false`, RuntimeClass handler "{handler}" does not support user namespaces'
    with pytest.raises(RuntimeServiceError, match=text):
        await pod(node, runtime, handler, user_namespace=True)


@AND_GVISOR
async def test_killing_keeper_kubelet_and_launcher_disturbs_nobody(node: Node, runtime: Runtime, handler: str) -> None:
    script = "i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i; sleep 0.01; done; exit 42"
    sandbox, created = await start(node, runtime, handler, "sh", "-c", script)
    old = await keeper(runtime, sandbox)
    await runtime.close()
    assert node.launcher is not None
    node.launcher.kill()
    node.launcher.wait()
    os.unlink(launcher_socket(node.run))
    node.start_launcher()
    await node.wait_for_launcher()
    fresh = node.make_runtime()
    await fresh.start()
    try:
        assert await keeper(fresh, sandbox) == old
        await kill_keeper(fresh, sandbox)
        await fresh.exec_sync(
            created, ["touch", "/tmp/stop"]
        )  # killed with the container, maybe: that ends at its word
        status = await ended(fresh, created)
        lines = node.output(status).splitlines()
        assert (status.exit_code, status.reason) == ((42, "Error") if features.pidfd_info_exit() else LOST)
        assert lines == [str(number) for number in range(1, len(lines) + 1)]
        await fresh.remove_pod_sandbox(sandbox)
        await fresh.settled()
        assert os.listdir(node.run / "containers") == []
    finally:
        await fresh.close()


def dies_at(node: Node, handler: str, verb: str) -> dict[str, list[str]]:
    """A runtime that takes the worker that runs it along, the first time that it is asked for a verb."""
    script, mark = node.run.parent / "runtime", node.run / "died"
    died = f'case " $* " in *" {verb} "*) [ -e {mark} ] || {{ touch {mark}; kill -9 $PPID; exit 1; }};; esac'
    script.write_text(f'#!/bin/sh\n{died}\nexec {node.handlers[handler][0]} "$@"\n')
    script.chmod(0o755)
    return {handler: [str(script)]}


async def test_a_container_that_was_made_and_never_let_go_is_let_go_by_the_next_keeper(
    node: Node, runtime: Runtime, handler: str
) -> None:
    runtime._handlers._commands = dies_at(node, handler, "start")
    sandbox = await pod(node, runtime, handler)
    created = await runtime.create_container(sandbox, container("sh", "-c", "echo ran; exit 8"))
    with pytest.raises(RuntimeServiceError):
        await runtime.start_container(created)
    status = await ended(runtime, created)
    assert (status.exit_code, node.output(status)) == (8, "ran\n")


async def test_a_worker_that_is_killed_while_the_runtime_works_leaves_nothing(
    node: Node, runtime: Runtime, handler: str
) -> None:
    runtime._handlers._commands = dies_at(node, handler, "create")
    sandbox = await pod(node, runtime, handler)
    created = await runtime.create_container(sandbox, container("true"))
    old = runtime._state.sandboxes[sandbox].peer
    with pytest.raises(RuntimeServiceError):
        await runtime.start_container(created)
    await replaced(runtime, sandbox, old)
    await runtime.start_container(created)
    assert (await ended(runtime, created)).exit_code == 0
    own = runtime._state.sandboxes[sandbox].record.cgroup
    await runtime.remove_pod_sandbox(sandbox)
    await runtime.settled()
    assert os.listdir(node.run / "containers") == []
    assert not any((root / own).exists() for root in Path("/sys/fs/cgroup").iterdir())


async def test_what_no_record_owns_is_forgotten_by_its_runtime(node: Node, runtime: Runtime, handler: str) -> None:
    script, asked = node.run.parent / "runtime", node.run.parent / "asked"
    script.write_text(f'#!/bin/sh\necho "$@" >>{asked}\nexec {node.handlers[handler][0]} "$@"\n')
    script.chmod(0o755)
    runtime._handlers._commands = {handler: [str(script)]}
    _, created = await start(node, runtime, handler, "sleep", "1000")
    process = runtime._state.containers[created].open_pidfd()
    await runtime.close()
    for shelf in ("sandboxes", "containers"):
        shutil.rmtree(node.state / "records" / shelf)
    fresh = node.make_runtime()
    await fresh.start()
    try:
        assert pidfd.has_ended(process, 5)
        assert asked.read_text().splitlines()[-1].endswith(f"delete --force {created}")
        assert os.listdir(node.run / "containers") == []
    finally:
        os.close(process)
        await fresh.close()


@AND_GVISOR
async def test_a_keeper_has_no_zombies_and_no_descriptors_more(node: Node, runtime: Runtime, handler: str) -> None:
    sandbox = await pod(node, runtime, handler)
    await run_to_end(runtime, sandbox, container("true", name="first"))
    pid = await keeper(runtime, sandbox)
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for number in range(3):
        await run_to_end(runtime, sandbox, container("true", name=f"next-{number}"))
    await eventually(lambda: children(pid) == [])
    assert len(os.listdir(f"/proc/{pid}/fd")) == before


def test_a_handler_is_a_name_and_a_command(handler: str) -> None:
    path = shutil.which(handler)
    assert handlers.parse(f"{handler}={path} --debug") == (handler, [path, "--debug"])
    for wrong in (f"{path}", f"{handler}=", f"={path}", f"{handler}=relative"):
        with pytest.raises(ValueError, match="is not NAME"):
            handlers.parse(wrong)
