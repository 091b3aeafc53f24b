"""Attacks that other runtimes needed CVEs to learn about, each tried from inside a container."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from runtime_node import Node, container, ended, run_to_end

from minikube_raw.runtime.cri import (
    NamespaceMode,
    NamespaceOption,
    RuntimeServiceError,
    SecurityContext,
    SecurityProfile,
)
from minikube_raw.runtime.cri import ProfileType as Type
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root

UNCONFINED = SecurityProfile(Type.UNCONFINED)
POWERFUL = SecurityContext(add_capabilities=("SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"), seccomp=UNCONFINED)


def image(node: Node) -> Path:
    return node.images.images["busybox"][0]


async def run(node: Node, runtime: Runtime, script: str, security: SecurityContext | None = None) -> str:
    """What a shell script prints in a container of a pod of its own, both streams."""
    sandbox = await runtime.run_pod_sandbox(node.pod())
    status = await run_to_end(
        runtime, sandbox, container("sh", "-c", f"exec 2>&1; {script}", security=security or SecurityContext())
    )
    return node.output(status)


async def test_no_descriptor_of_ours_reaches_a_container(node: Node, runtime: Runtime) -> None:
    """CVE-2024-21626: a descriptor of the host's file system in a container is a way out of it."""
    sandbox = await runtime.run_pod_sandbox(node.pod())
    listing = container("sh", "-c", "ls -l /proc/self/fd | grep -v 'proc/[0-9]*/fd'; exec sleep 100", stdin=True)
    created = await runtime.create_container(sandbox, listing)
    await runtime.start_container(created)
    executed = await runtime.exec_sync(created, ["sh", "-c", "ls -l /proc/self/fd | grep -v 'proc/[0-9]*/fd'"])
    status = await runtime.container_status(created)
    assert status is not None
    inside = sorted(int(name) for name in os.listdir(f"/proc/{status.pid}/fd"))
    await runtime.stop_container(created, 0)
    assert inside == [0, 1, 2]
    numbers = [line.split(" -> ")[0].split()[-1] for line in executed.stdout.decode().splitlines() if " -> " in line]
    assert numbers == ["0", "1", "2"]


@pytest.mark.parametrize("number", [0, 3, 7, 8, 12])
async def test_a_working_directory_that_is_a_descriptor_leads_nowhere(
    node: Node, runtime: Runtime, number: int
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    config = container("sh", "-c", "cat ../../../../../../etc/hostname", working_dir=f"/proc/self/fd/{number}")
    created = await runtime.create_container(sandbox, config)
    with pytest.raises(RuntimeServiceError):
        await runtime.start_container(created)


async def test_a_working_directory_through_links_stays_inside(node: Node, runtime: Runtime) -> None:
    (image(node) / "out").symlink_to("../../../../../../..")
    sandbox = await runtime.run_pod_sandbox(node.pod())
    status = await run_to_end(runtime, sandbox, container("sh", "-c", "pwd; ls -d bin", working_dir="/out/out/../made"))
    assert node.output(status, "stderr") != ""  # no bin in it: it was made inside
    assert "made" in node.output(status)
    assert not Path("/made").exists()


@pytest.mark.parametrize("entry", ["/proc/self/exe", "/script"])
async def test_our_own_program_is_neither_run_nor_overwritten_from_inside(
    node: Node, runtime: Runtime, entry: str
) -> None:
    """CVE-2019-5736: /proc/self/exe of a runtime that enters a container is the host's binary."""
    interpreter = Path("/proc/self/exe").resolve()
    before = (interpreter.stat().st_mtime_ns, interpreter.stat().st_size)
    (image(node) / "script").write_text("#!/proc/self/exe\nimport os\n")
    (image(node) / "script").chmod(0o755)
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container(entry, "-c", "print('RUN BY US')"))
    try:
        await runtime.start_container(created)
        status = await ended(runtime, created)
        assert "RUN BY US" not in node.output(status)
    except RuntimeServiceError:
        pass
    assert (interpreter.stat().st_mtime_ns, interpreter.stat().st_size) == before


async def test_a_process_that_enters_cannot_be_opened_or_traced_from_inside(node: Node, runtime: Runtime) -> None:
    """CVE-2016-9962, and the overwriting half of CVE-2019-5736: a loop inside tries every process that appears."""
    sandbox = await runtime.run_pod_sandbox(node.pod())
    script = r"""
        while :; do for p in /proc/[0-9]*; do
            case $(readlink $p/exe) in ''|/bin/busybox) ;; *) echo "SAW $(readlink $p/exe)"; (echo x > $p/exe) && echo WROTE;; esac
            [ -n "$(ls $p/fd 2>/dev/null | grep -v '^[012]$' | grep -v '^[0-9]*$')" ] && echo FD
        done; done 2>/dev/null
    """
    created = await runtime.create_container(sandbox, container("sh", "-c", script, security=POWERFUL))
    await runtime.start_container(created)
    for _ in range(30):
        assert (await runtime.exec_sync(created, ["true"])).exit_code == 0
    await runtime.stop_container(created, 0)
    status = await ended(runtime, created)
    assert "WROTE" not in node.output(status)
    assert "python" not in node.output(status)


async def test_what_hides_parts_of_proc_is_the_real_null_device(node: Node, runtime: Runtime) -> None:
    """CVE-2025-31133: an image whose /dev/null is a link decides what is bound over masked paths."""
    dev = image(node) / "dev"
    dev.mkdir()
    (dev / "null").symlink_to("/proc/sys/kernel/core_pattern")
    (dev / "console").symlink_to("/proc/sysrq-trigger")
    (dev / "pts").symlink_to("/proc/sys")
    output = await run(
        node,
        runtime,
        "ls -l /dev/null; for p in keys kcore timer_list; do [ ! -e /proc/$p ] || stat -c '%t:%T' /proc/$p; done",
    )
    assert output.splitlines()[0].startswith("crw-rw-rw-")
    assert [line for line in output.splitlines()[1:] if line != "1:3"] == []


async def test_a_terminals_names_cannot_be_links_of_the_image(node: Node, runtime: Runtime) -> None:
    """CVE-2025-52565: /dev/console is bound on a descriptor, not on what its name has become."""
    dev = image(node) / "dev"
    dev.mkdir(exist_ok=True)
    (dev / "console").symlink_to("/etc/passwd")
    sandbox = await runtime.run_pod_sandbox(node.pod())
    status = await run_to_end(
        runtime, sandbox, container("sh", "-c", "tty; ls -l /dev/console; head -c 4 /etc/passwd", tty=True)
    )
    assert "/dev/pts/0" in node.output(status)
    assert "root" in node.output(status)


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
async def test_nothing_is_mounted_through_a_link_of_the_image(node: Node, runtime: Runtime, place: str) -> None:
    """CVE-2019-16884, CVE-2023-27561 and CVE-2023-28642: /proc or /sys that is a link mounts procfs elsewhere, unmasked."""
    (image(node) / "elsewhere").mkdir()
    (image(node) / place).symlink_to("/elsewhere")
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(
        sandbox, container("sh", "-c", "ls /elsewhere; echo x > /proc/sys/kernel/domainname")
    )
    with suppress(RuntimeServiceError):  # refused, or else harmless
        await runtime.start_container(created)
        status = await ended(runtime, created)
        assert node.output(status) == ""
        assert "Read-only" in node.output(status, "stderr")


async def test_no_socket_of_ours_can_be_reached_from_the_nodes_network(node: Node, runtime: Runtime) -> None:
    """CVE-2020-15257: abstract sockets belong to the network namespace, and hostNetwork pods are in the node's."""
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=NamespaceOption(network=NamespaceMode.NODE)))
    status = await run_to_end(runtime, sandbox, container("cat", "/proc/net/unix"))
    ours = [
        line for line in node.output(status).splitlines() if "@" in line and ("minikube" in line or "keeper" in line)
    ]
    assert ours == []


async def test_release_agent_is_out_of_reach(node: Node, runtime: Runtime) -> None:
    """CVE-2022-0492: whoever mounts a v1 hierarchy writes a path that the host's kernel runs as root."""
    script = """
        for d in /sys/fs/cgroup/*; do echo /x > $d/release_agent; echo 1 > $d/notify_on_release; mkdir $d/evil; done
        mkdir /m; mount -t cgroup -o memory none /m && echo MOUNTED
    """
    output = await run(node, runtime, script)
    assert "MOUNTED" not in output
    assert "Read-only file system" in output


async def test_capabilities_are_neither_inheritable_nor_ambient(node: Node, runtime: Runtime) -> None:
    """CVE-2022-29162: inheritable capabilities make file capabilities of an image effective for a user who dropped them."""
    security = SecurityContext(run_as_user=1000, add_capabilities=("NET_ADMIN",))
    output = await run(node, runtime, "grep Cap /proc/self/status", security)
    sets = dict(line.split(":\t") for line in output.splitlines())
    assert (sets["CapInh"], sets["CapAmb"], sets["CapEff"], sets["CapPrm"]) == ("0" * 16,) * 4
    assert sets["CapBnd"] == "00000000a80435fb"


async def test_what_belongs_to_the_host_is_masked_or_read_only(node: Node, runtime: Runtime) -> None:
    script = """
        for p in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger /proc/sys/vm/panic_on_oom; do
            (echo '|/evil' > $p) && echo "WROTE $p"; done
        for p in /sys/firmware /proc/acpi /proc/scsi /sys/devices/virtual/powercap; do [ -n "$(ls $p 2>/dev/null)" ] && echo "SAW $p"; done
        for p in /proc/keys /proc/kcore /proc/timer_list; do [ -n "$(head -c 1 $p 2>/dev/null)" ] && echo "READ $p"; done
        for p in /sys/kernel/uevent_helper /sys/class/net/lo/mtu; do (echo 1 > $p) && echo "WROTE $p"; done
        echo end
    """
    output = await run(node, runtime, f"({script}) 2>/dev/null")
    assert output == "end\n"


@pytest.mark.parametrize(
    ("security", "works"),
    [
        pytest.param(SecurityContext(), False, id="default: mount refused, no new user namespaces"),
        pytest.param(SecurityContext(seccomp=UNCONFINED), False, id="unconfined: mount still needs SYS_ADMIN"),
        pytest.param(SecurityContext(add_capabilities=("SYS_ADMIN",)), True, id="SYS_ADMIN may mount"),
    ],
)
async def test_mounting_takes_the_capability(
    node: Node, runtime: Runtime, security: SecurityContext, works: bool
) -> None:
    output = await run(node, runtime, "mkdir /m; mount -t tmpfs none /m && echo MOUNTED", security)
    assert ("MOUNTED" in output) is works


async def test_devices_outside_the_list_can_be_made_but_not_opened(node: Node, runtime: Runtime) -> None:
    (image(node) / "bin/mknod").symlink_to("busybox")
    script = """
        mknod /kmsg c 1 11; mknod /disk b 254 0; mknod /mem c 1 1; mknod /full c 1 7
        for d in kmsg disk mem; do head -c 1 /$d && echo "OPENED $d"; done; head -c 1 /full | wc -c
    """
    output = await run(node, runtime, script)
    assert "OPENED" not in output
    assert output.count("Operation not permitted") == 3
    assert output.endswith("1\n")


def compile_setuid_program(root: Path) -> None:
    source = root / "tmp/identity.c"
    source.write_text(
        '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("%d\\n", geteuid()); return 0; }\n'
    )
    subprocess.run(["gcc", "-static", "-o", str(root / "bin/setuid-id"), str(source)], check=True)
    (root / "bin/setuid-id").chmod(0o4755)


async def test_setuid_does_nothing_where_privileges_may_not_grow(node: Node, runtime: Runtime) -> None:
    compile_setuid_program(image(node))
    strict = SecurityContext(run_as_user=1000, no_new_privs=True)
    assert await run(node, runtime, "setuid-id", strict) == "1000\n"
    assert await run(node, runtime, "setuid-id", SecurityContext(run_as_user=1000)) == "0\n"


async def test_a_containers_output_cannot_forge_log_records(node: Node, runtime: Runtime) -> None:
    forged = "2026-01-01T00:00:00.000000000Z stdout F forged"
    sandbox = await runtime.run_pod_sandbox(node.pod())
    status = await run_to_end(runtime, sandbox, container("printf", f"a\\r{forged}\\n\\033[2Jb"))
    records = [line.decode() for line in Path(status.log_path).read_bytes().split(b"\n") if line]
    assert "forged" in node.log(status)
    assert [record for record in records if record.startswith("2026-01-01")] == []
    assert {record.split(" ")[1] for record in records} == {"stdout"}


async def test_a_containers_session_keyring_is_not_the_nodes(node: Node, runtime: Runtime) -> None:
    output = await run(node, runtime, "cat /proc/keys | wc -c", SecurityContext(seccomp=UNCONFINED))
    assert output == "0\n"
