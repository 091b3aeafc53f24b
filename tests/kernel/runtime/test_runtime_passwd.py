"""An image's /etc/passwd is read by root: whatever it is, it is the image's own, and read in bounded time and memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime_node import Node, container, eventually, run_to_end

from minikube_raw.oci.manifests import ImageConfig
from minikube_raw.runtime.cri import Mount, NamespaceMode, NamespaceOption, RuntimeServiceError, SecurityContext
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root

WEB = "web:x:1000:1001::/:\n"
UNKNOWN = "unable to find user"


def link(target: str) -> Callable[[Path, Path], None]:
    return lambda passwd, host_file: passwd.symlink_to(target.format(host_file=host_file, pid=os.getpid()))


def write(text: str) -> Callable[[Path, Path], None]:
    return lambda passwd, _: passwd.write_text(text)  # type: ignore[arg-type,return-value]


def other_directory(passwd: Path, host_file: Path) -> None:
    """/etc itself is a link."""
    passwd.parent.joinpath("group").unlink()
    passwd.parent.rmdir()
    passwd.parent.symlink_to(host_file.parent)


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        pytest.param(link("../../../../../../{host_file}"), UNKNOWN, id="link up to a file of the node"),
        pytest.param(link("{host_file}"), UNKNOWN, id="link to a file of the node"),
        pytest.param(link("/proc/{pid}/root{host_file}"), UNKNOWN, id="link through a process of the node"),
        pytest.param(link("/proc/self/root/{host_file}"), UNKNOWN, id="link through ourselves"),
        pytest.param(link("/proc/self/fd/3"), UNKNOWN, id="link to a descriptor"),
        pytest.param(other_directory, UNKNOWN, id="etc is a link to a directory of the node"),
        pytest.param(link("/tmp/passwd"), "1000 1001\n", id="link inside the image"),
        pytest.param(link("passwd"), UNKNOWN, id="link to itself"),
        pytest.param(lambda passwd, _: os.mkfifo(passwd), UNKNOWN, id="fifo"),
        pytest.param(lambda passwd, _: passwd.mkdir(), UNKNOWN, id="directory"),
        pytest.param(write("x" * (5 << 20) + "\n" + WEB), UNKNOWN, id="larger than any passwd"),
        pytest.param(write("x" * (3 << 20) + "\n" + WEB), "1000 1001\n", id="a line of 3 MB before"),
        pytest.param(write(f"a:x:{'9' * 100_000}:0::/:\n" + WEB), "1000 1001\n", id="an id of 100,000 digits before"),
        pytest.param(write(":" * (2 << 20) + "\n" + WEB), "1000 1001\n", id="two million fields before"),
        pytest.param(write("web:x:1000:1001::/\0:\n"), "null byte", id="a home with a NUL"),
        pytest.param(write("web:x:1000:1001::/a\x1b[2J\r:\n"), "1000 1001\n", id="a home with escapes"),
    ],
)
async def test_a_hostile_passwd_is_the_images_own(
    node: Node, runtime: Runtime, tmp_path: Path, make: Callable[[Path, Path], None], outcome: str
) -> None:
    (tmp_path / "etc").mkdir()
    host_file = tmp_path / "etc/passwd"
    host_file.write_text("web:x:0:0::/root:\n")
    root = node.images.images["busybox"][0]
    (root / "tmp/passwd").write_text(WEB)
    (root / "etc/passwd").unlink()
    make(root / "etc/passwd", host_file)
    node.images.images["hostile"] = (root, ImageConfig(user="web", cmd=("sh", "-c", "echo $(id -u) $(id -g)")))
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=NamespaceOption(pid=NamespaceMode.NODE)))
    try:
        found = node.output(await run_to_end(runtime, sandbox, container(image="hostile")))
    except RuntimeServiceError as error:
        found = str(error)
    assert outcome in found
    assert (outcome == found) is outcome.endswith("\n")


@pytest.mark.parametrize("user", ["1000", "4294967295", "00"])
async def test_an_image_cannot_say_that_a_number_is_the_name_of_root(node: Node, runtime: Runtime, user: str) -> None:
    """runAsUser and runAsNonRoot are about numbers: a user of root's ids with such a name would get around both."""
    root = node.images.images["busybox"][0]
    (root / "etc/passwd").write_text(f"{user}:x:0:0::/:\nroot:x:0:0::/:\n")
    (root / "etc/group").write_text(f"{user}:x:0:\n")
    show = ("sh", "-c", "echo $(id -u) $(id -g)")
    node.images.images["hostile"] = (root, ImageConfig(user=f"{user}:{user}", cmd=show))
    sandbox = await runtime.run_pod_sandbox(node.pod())
    if user == "1000":
        security = SecurityContext(run_as_user=1000, run_as_group=1000)
        told = await run_to_end(runtime, sandbox, container(*show, name="told", security=security))
        assert node.output(told) == "1000 1000\n"
    try:
        found = node.output(await run_to_end(runtime, sandbox, container(image="hostile")))
    except RuntimeServiceError as error:
        found = str(error)
    assert {"1000": "1000 1000\n", "00": "0 0\n", "4294967295": "unable to find user 4294967295"}[user] in found


async def test_a_container_cannot_change_who_is_executed_in_it(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    """A volume over /etc that the container's user may write to: what is executed later is who the first process is."""
    root = node.images.images["busybox"][0]
    (root / "etc/passwd").write_text(WEB)
    node.images.images["hostile"] = (root, ImageConfig(user="web"))
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o777)
    volume.chmod(0o777)
    script = "echo web:x:0:0::/: > /etc/passwd; echo disk:x:6:web > /etc/group; echo made > /etc/made; exec sleep 100"
    sandbox = await runtime.run_pod_sandbox(node.pod())
    config = container("sh", "-c", script, image="hostile", mounts=(Mount("/etc", str(volume)),))
    created = await runtime.create_container(sandbox, config)
    await runtime.start_container(created)
    await eventually((volume / "made").exists)

    executed = await runtime.exec_sync(created, ["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"])

    assert executed.stdout == b"1000 1001 1001 2000\n"  # logs, of the image's own group file
