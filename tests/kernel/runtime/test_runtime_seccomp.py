"""What a container's seccomp profile answers to every system call, seen from inside."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyseccomp
import pytest
from runtime_node import Node, container, run_to_end

from minikube_raw.linux import capabilities
from minikube_raw.runtime import seccomp_default
from minikube_raw.runtime.cri import ProfileType, RuntimeServiceError, SecurityContext, SecurityProfile
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root

UNCONFINED = SecurityProfile(ProfileType.UNCONFINED)
UPROBES = (335, 336)  # uretprobe and uprobe: a kernel that has them lets them pass every filter (Linux ≥ 6.14 and 6.18)
NATIVE = pyseccomp.Arch.NATIVE


def compiled(directory: Path, name: str) -> Path:
    """A program of helpers/, linked statically."""
    source = Path(__file__).parent / f"helpers/{name}.c"
    command = ["gcc", "-static", "-O1", "-Wall", "-Werror", "-o", str(directory / name), str(source)]
    subprocess.run(command, check=True)
    return directory / name


@pytest.fixture(scope="session")
def every_syscall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("helpers"), "syscalls")


async def answers(node: Node, runtime: Runtime, program: Path, security: SecurityContext) -> dict[int, int]:
    """number → errno of every system call, as a container with `security` gets them."""
    root = node.images.images["busybox"][0]
    if not (root / "bin/syscalls").exists():
        (root / "bin/syscalls").write_bytes(program.read_bytes())
        (root / "bin/syscalls").chmod(0o755)
    sandbox = await runtime.run_pod_sandbox(node.pod())
    status = await run_to_end(runtime, sandbox, container("syscalls", security=security), timeout=60)
    lines = [line.split() for line in node.output(status).splitlines()]
    return {int(number): int(answer) for number, answer in lines}


def expected_refusals(names: list[str]) -> dict[int, int]:
    """number → errno that RuntimeDefault must answer, by its own table: what is not allowed there is refused."""
    document = seccomp_default.document(names, "x86_64")
    allowed = {name for rule in document["syscalls"] for name in rule["names"] if rule["action"] == "SCMP_ACT_ALLOW"}
    numbers = {pyseccomp.resolve_syscall(NATIVE, name) for name in allowed}
    newest = max(pyseccomp.resolve_syscall(NATIVE, name) for rule in document["syscalls"] for name in rule["names"])
    refused = {number: errno.EPERM for number in range(newest + 1) if number not in numbers}
    refused |= dict.fromkeys(range(newest + 1, 500), errno.ENOSYS)
    refused[pyseccomp.resolve_syscall(NATIVE, "personality")] = errno.EPERM  # minus one in 64 bits is none of the five
    if "CAP_SYS_ADMIN" not in names:
        refused[pyseccomp.resolve_syscall(NATIVE, "clone3")] = errno.ENOSYS
        refused[pyseccomp.resolve_syscall(NATIVE, "clone")] = errno.EPERM  # with all flags: new namespaces among them
    return refused


@pytest.mark.parametrize(
    "added",
    [
        pytest.param((), id="default capabilities"),
        pytest.param(("SYS_ADMIN", "SYS_PTRACE", "SYS_NICE"), id="more capabilities"),
    ],
)
async def test_every_system_call_is_answered_as_the_table_says(
    node: Node, runtime: Runtime, every_syscall: Path, added: tuple[str, ...]
) -> None:
    free = await answers(node, runtime, every_syscall, SecurityContext(add_capabilities=added, seccomp=UNCONFINED))
    found = await answers(node, runtime, every_syscall, SecurityContext(add_capabilities=added))
    names = capabilities.names(capabilities.container_set(added))
    refused = expected_refusals(names)
    for number in UPROBES:
        if free[number] != errno.ENOSYS:
            refused.pop(number, None)
    assert len(found) == 500
    wrong = {
        number: (answer, refused.get(number, free[number]))
        for number, answer in found.items()
        if answer != refused.get(number, free[number])
    }
    assert wrong == {}, "number: (answer inside, expected)"
    assert sum(number in refused for number in free) > 40


REFUSED = ("mount", "reboot", "swapon", "init_module", "kexec_load", "bpf", "keyctl", "unshare")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86_64 has system calls of two other kinds")
@pytest.mark.parametrize("kind", ["i386", "x32"])
async def test_system_calls_by_foreign_numbers_are_refused_as_well(
    node: Node, runtime: Runtime, tmp_path: Path, kind: str
) -> None:
    """int 0x80 takes the numbers of 32 bits, and bit 30 those of x32: neither is a way around the filter."""
    root = node.images.images["busybox"][0]
    shutil.copy(compiled(tmp_path, "foreign"), root / "bin/foreign")
    sandbox = await runtime.run_pod_sandbox(node.pod())
    found: dict[bool, dict[str, int]] = {}
    for confined in (False, True):
        security = SecurityContext() if confined else SecurityContext(seccomp=UNCONFINED)
        status = await run_to_end(runtime, sandbox, container("foreign", name=f"c{confined:d}", security=security))
        lines = [line.split() for line in node.output(status).splitlines() if line.startswith(kind)]
        if lines and lines[0] == [kind, "none"]:
            pytest.skip("this kernel takes no 32-bit system calls")
        found[confined] = {name: int(answer) for _, name, answer in lines}

    assert found[True] == found[False] | dict.fromkeys(REFUSED, errno.EPERM) | {"unknown": errno.ENOSYS}
    assert found[False]["mount"] != errno.EPERM
    if kind == "i386":
        assert found[True]["getpid"] == 0  # what is harmless works


async def test_the_first_process_and_one_executed_beside_it_are_filtered_alike(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container("sh", "-c", "cat /proc/self/status; sleep 100"))
    await runtime.start_container(created)
    executed = await runtime.exec_sync(created, ["cat", "/proc/self/status"])
    await runtime.stop_container(created, 0)
    status = await runtime.container_status(created)
    assert status is not None
    for text in (node.output(status), executed.stdout.decode()):
        assert "Seccomp:\t2\nSeccomp_filters:\t1\n" in text
        assert "NoNewPrivs:\t0" in text
        assert "CapEff:\t00000000a80425fb" in text


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        pytest.param(SecurityContext(privileged=True), "Seccomp:\t0", id="privileged"),
        pytest.param(SecurityContext(seccomp=UNCONFINED), "Seccomp:\t0", id="unconfined"),
        pytest.param(SecurityContext(no_new_privs=True), "Seccomp:\t2", id="no_new_privs"),
        pytest.param(SecurityContext(run_as_user=1000, drop_capabilities=("ALL",)), "Seccomp:\t2", id="user 1000"),
        pytest.param(SecurityContext(add_capabilities=("SYS_ADMIN",)), "Seccomp:\t2", id="SYS_ADMIN"),
    ],
)
async def test_a_filter_is_there_unless_it_was_not_wanted(
    node: Node, runtime: Runtime, security: SecurityContext, expected: str
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    status = await run_to_end(runtime, sandbox, container("cat", "/proc/self/status", security=security))
    assert expected in node.output(status)


def localhost(path: Path) -> SecurityContext:
    return SecurityContext(seccomp=SecurityProfile(ProfileType.LOCALHOST, str(path)))


DOCKER: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV, "excludes": {"caps": ["CAP_BPF"]}},
        {"names": ["uname"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_BOOT"]}},
    ],
}  # fmt: skip


async def test_a_profile_of_the_node_decides_and_dockers_conditions_count(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    profile = tmp_path / "docker.json"
    profile.write_text(json.dumps(DOCKER))
    sandbox = await runtime.run_pod_sandbox(node.pod())
    config = container("sh", "-c", "mkdir /x; cat /proc/sys/kernel/ostype", security=localhost(profile))
    status = await run_to_end(runtime, sandbox, config)
    assert "Invalid cross-device link" in node.output(status, "stderr")
    assert node.output(status) == "Linux\n"


async def test_a_profile_that_is_missing_is_an_error_of_creation(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    path = tmp_path / "nosuch.json"
    with pytest.raises(
        RuntimeServiceError, match=f'cannot load seccomp profile "{path}": open {path}: no such file'
    ) as it:
        await runtime.create_container(sandbox, container("true", security=localhost(path)))
    assert it.value.reason == "CreateContainerError"
    path.write_text('{"defaultAction": "SCMP_ACT_NONSENSE"}')
    with pytest.raises(RuntimeServiceError, match="SCMP_ACT_NONSENSE is not supported"):
        await runtime.create_container(sandbox, container("true", security=localhost(path)))


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        pytest.param(("capset",), "unable to apply caps: operation not permitted", id="capset"),
        pytest.param(("capset", "sendmsg"), "unable to apply caps: operation not permitted", id="capset and sendmsg"),
        pytest.param(("execve", "sendmsg"), "exec /bin/true: operation not permitted", id="execve and sendmsg"),
    ],
)
async def test_a_profile_that_refuses_what_comes_between_it_and_the_program_is_an_error_of_the_start(
    node: Node, runtime: Runtime, tmp_path: Path, refused: tuple[str, ...], said: str
) -> None:
    profile = tmp_path / "strict.json"
    rules = [{"names": list(refused), "action": "SCMP_ACT_ERRNO"}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container("true", security=localhost(profile)))

    with pytest.raises(RuntimeServiceError) as it:
        await runtime.start_container(created)

    text = f"failed to start container: unable to start container process: {said}"
    assert (it.value.reason, str(it.value)) == ("StartError", text)
    status = await runtime.container_status(created)
    assert status is not None
    assert (status.exit_code, status.reason, status.message) == (128, "StartError", text)
