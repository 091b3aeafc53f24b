"""Attacks by a container that changes names while another is started, or a program executed: it owns what they look up."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from runtime_node import SHARED_PID, Node, container, ended, run_to_end

from minikube_raw.linux import features
from minikube_raw.runtime.cri import Mount, NamespaceMode, NamespaceOption, RuntimeServiceError, SecurityContext
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root

NODE_PIDS = NamespaceOption(pid=NamespaceMode.NODE)
WEAK = SecurityContext(drop_capabilities=("ALL",))  # root by name only: it may not look into foreign processes
STARTS = 12
needs_idmaps = pytest.mark.skipif(not features.idmapped_mounts(), reason="this kernel has no idmapped mounts")


def node_secret(tmp_path: Path) -> tuple[Path, str]:
    """A file of the node, and its path through a process of the node."""
    (tmp_path / "secret").write_text("SECRET")
    return tmp_path / "secret", f"/proc/{os.getpid()}/root{tmp_path}/secret"


async def test_a_program_is_executed_with_the_null_device_and_not_with_what_is_called_so(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    """Whoever enters has more rights than the container: a link it follows there leads where the container may not look."""
    secret, through = node_secret(tmp_path)
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=NODE_PIDS))
    script = f"cat {through}; rm /dev/null; ln -s {through} /dev/null; echo ready; exec sleep 100"
    created = await runtime.create_container(sandbox, container("sh", "-c", script, security=WEAK))
    await runtime.start_container(created)
    status = await runtime.container_status(created)
    assert status is not None
    async with asyncio.timeout(60):
        while not os.path.exists(status.log_path) or "ready" not in node.output(status):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    executed = await runtime.exec_sync(created, ["sh", "-c", "cat; echo lost >&0; true"])

    assert "Permission denied" in node.output(status, "stderr")  # else the test would prove nothing
    assert executed.stdout == b""
    assert secret.read_text() == "SECRET"


async def test_a_program_that_enters_shows_nothing_of_the_node_to_a_container_that_may_trace(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    """What is left of CVE-2016-9962: with CAP_SYS_PTRACE one looks through /proc/PID/root and fd of whoever comes in."""
    secret, _ = node_secret(tmp_path)
    sandbox = await runtime.run_pod_sandbox(node.pod())
    script = f"""
        touch /own; ls /proc/1/root/own
        while :; do
            cat /proc/[0-9]*/root{secret}; readlink /proc/[0-9]*/fd/* | grep {tmp_path} | grep -v /std
        done 2>/dev/null
    """
    tracer = container("sh", "-c", script, security=SecurityContext(add_capabilities=("SYS_PTRACE",)))
    created = await runtime.create_container(sandbox, tracer)
    await runtime.start_container(created)
    for _ in range(STARTS * 3):
        assert (await runtime.exec_sync(created, ["true"])).exit_code == 0
    await runtime.stop_container(created, 0)
    assert node.output(await ended(runtime, created)) == "/proc/1/root/own\n"


@needs_idmaps
async def test_a_start_shows_nothing_of_the_node_to_a_container_that_may_trace_its_pods_own_users(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    secret, _ = node_secret(tmp_path)
    before = [(each, each.stat().st_mode) for each in (tmp_path, *tmp_path.parents)]
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=SHARED_PID, user_namespace=True))
    script = f"while :; do cat /proc/[0-9]*/root{secret}; done 2>/dev/null"
    tracer = container("sh", "-c", script, security=SecurityContext(add_capabilities=("SYS_PTRACE",)))
    created = await runtime.create_container(sandbox, tracer)
    await runtime.start_container(created)
    try:
        for each, mode in before:
            each.chmod(mode | 0o011)  # anybody may look the file up
        for number in range(STARTS):
            await run_to_end(runtime, sandbox, container("true", name=f"c{number}"))
    finally:
        for each, mode in before:
            each.chmod(mode)
    await runtime.stop_container(created, 0)
    assert node.output(await ended(runtime, created)) == ""


async def test_a_working_directory_is_entered_as_it_was_found(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    """Swapped for a link to the node's root between a look and the step."""
    _secret, through = node_secret(tmp_path)
    directory = os.path.dirname(through)
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=NODE_PIDS))
    script = f"while :; do rm -rf /w; ln -s {directory} /w; rm /w; mkdir /w; done"
    config = container("sh", "-c", script, working_dir="/w", security=WEAK)
    created = await runtime.create_container(sandbox, config)
    await runtime.start_container(created)
    for _ in range(STARTS * 2):
        try:
            executed = await runtime.exec_sync(created, ["cat", "secret"])
        except RuntimeServiceError:
            continue  # it was a link: refused
        assert b"SECRET" not in executed.stdout


def swapping(*names: tuple[str, str]) -> str:
    """A script that makes each name a link to its target and a file again, for ever."""
    steps = "; ".join(f"ln -sf {target} /v/{name}; rm -f /v/{name}; : > /v/{name}" for name, target in names)
    return f"while :; do {steps}; done"


async def attacker(node: Node, runtime: Runtime, sandbox: str, volume: Path, script: str) -> str:
    config = container("sh", "-c", script, name="attacker", mounts=(Mount("/v", str(volume)),))
    created = await runtime.create_container(sandbox, config)
    await runtime.start_container(created)
    return created


async def test_masks_are_the_null_device_whatever_another_container_makes_of_dev(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    """CVE-2025-31133, raced: both have one volume, which is the victim's /dev."""
    volume = tmp_path / "dev"
    volume.mkdir()
    sandbox = await runtime.run_pod_sandbox(node.pod())
    swap = swapping(("null", "/etc/passwd"), ("console", "/proc/sys/kernel/domainname"))
    await attacker(node, runtime, sandbox, volume, swap)
    show = "for p in keys kcore timer_list; do [ ! -e /proc/$p ] || stat -c %t:%T /proc/$p; done; cat"
    for number in range(STARTS):
        victim = container("sh", "-c", show, name=f"v{number}", mounts=(Mount("/dev", str(volume)),))
        status = await run_to_end(runtime, sandbox, victim)
        assert set(node.output(status).split()) == {"1:3"}, node.log(status)


@pytest.mark.parametrize("ptmx", ["link", "file", "fifo", "swapped"])
async def test_a_terminal_comes_from_a_terminal_multiplexer_or_not_at_all(
    node: Node, runtime: Runtime, tmp_path: Path, ptmx: str
) -> None:
    """CVE-2025-52565, raced: another container owns the victim's /dev/pts."""
    volume = tmp_path / "pts"
    volume.mkdir()
    sandbox = await runtime.run_pod_sandbox(node.pod())
    if ptmx == "link":
        (volume / "ptmx").symlink_to("/dev/tty")
    elif ptmx == "file":
        (volume / "ptmx").write_text("")
    elif ptmx == "fifo":
        os.mkfifo(volume / "ptmx")
    else:
        await attacker(node, runtime, sandbox, volume, swapping(("ptmx", "/dev/tty"), ("0", "/etc/passwd")))
    mounts = (Mount("/dev/pts", str(volume)),)
    for number in range(STARTS if ptmx == "swapped" else 1):
        victim = container("true", name=f"v{number}", tty=True, mounts=mounts)
        created = await runtime.create_container(sandbox, victim)
        with pytest.raises(RuntimeServiceError, match=r"ptmx|multiplexer"):
            await runtime.start_container(created)
        await ended(runtime, created)
