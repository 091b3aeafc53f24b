"""Volumes in containers: subPaths that others race with, propagation, read-only trees, places that do not fit."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime_node import Node, container, ended, eventually, run_to_end

from minikube_raw.linux import features, mounts
from minikube_raw.runtime import opening
from minikube_raw.runtime.cri import Device, Mount, MountPropagation, RuntimeServiceError, SecurityContext
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


async def say(node: Node, runtime: Runtime, script: str, *volumes: Mount, **changes: object) -> str:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    return node.output(await run_to_end(runtime, sandbox, container("sh", "-c", script, mounts=volumes, **changes)))


def swap_for_ever(volume: Path, outside: Path) -> int:
    """Forks a process that makes `x` in a volume a directory and a link to the outside by turns; returns its pid."""
    child = os.fork()
    if child:
        return child
    try:
        os.chdir(volume)
        os.symlink(outside, "link")
        while True:
            os.rename("x", "directory")
            os.rename("link", "x")
            os.rename("x", "link")
            os.rename("directory", "x")
    finally:
        os._exit(1)


@pytest.mark.parametrize("way", ["openat2", "by walking"])
def test_a_link_that_is_swapped_while_a_sub_path_is_opened_never_leads_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way != "openat2":
        monkeypatch.setenv("MINIKUBE_RAW_NO_OPENAT2", "1")
    features.forget()
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    (volume / "x").mkdir(parents=True)
    outside.mkdir()
    inside = (volume / "x").stat().st_ino
    swapper = swap_for_ever(volume, outside)
    found, refused, began = set(), 0, time.monotonic()
    try:  # for three seconds, or until the other side, which may get less of the machine, has raced often enough
        while (lasted := time.monotonic() - began) < 3 or (refused <= 1000 and lasted < 60):
            try:
                mount = opening.open_volume({"source": "", "beneath": str(volume), "path": "x"})
            except OSError:
                refused += 1
            else:
                found.add(os.fstat(mount).st_ino)
                os.close(mount)
    finally:
        os.kill(swapper, 9)
        os.waitpid(swapper, 0)
        features.forget()
    assert refused > 1000
    assert found == {inside}


async def test_a_container_that_swaps_links_leads_no_other_outside(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    (volume / "x").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").touch()
    script = f"cd /v; mkdir -p d; ln -s {outside} l; while :; do mv -T x d2; mv -T l x; mv -T x l; mv -T d2 x; done"
    node.images.images["busybox"][0].joinpath("bin/mv").symlink_to("busybox")
    node.images.images["busybox"][0].joinpath("bin/ln").symlink_to("busybox")
    sandbox = await runtime.run_pod_sandbox(node.pod())
    swapper = await runtime.create_container(
        sandbox, container("sh", "-c", script, name="swap", mounts=(Mount("/v", str(volume)),))
    )
    await runtime.start_container(swapper)

    async def try_once(number: int) -> str:
        asked = container("ls", "/got", name=f"c{number}", mounts=(Mount("/got", str(volume), sub_path="x"),))
        try:
            return node.output(await run_to_end(runtime, sandbox, asked))
        except RuntimeServiceError:
            return ""

    outputs = [await try_once(number) for number in range(30)]
    await runtime.stop_container(swapper, 0)

    assert set(outputs) == {""}


@pytest.mark.parametrize("path", ["out", "out/file", "file/deeper", "missing"])
async def test_a_sub_path_outside_or_missing_is_a_create_error(
    node: Node, runtime: Runtime, tmp_path: Path, path: str
) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/out").symlink_to("/etc")
    (tmp_path / "volume/file").touch()
    with pytest.raises(RuntimeServiceError) as caught:
        await say(node, runtime, "true", Mount("/v", str(tmp_path / "volume"), sub_path=path))
    assert (caught.value.reason, f"failed to mount {path}" in str(caught.value)) == ("CreateContainerError", True)


async def test_a_sub_path_is_the_file_or_directory_that_links_inside_lead_to(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    (volume / "..1").mkdir(parents=True)
    (volume / "..1/key").write_text("one\n")
    (volume / "..data").symlink_to("..1")
    (volume / "key").symlink_to("..data/key")

    said = await say(node, runtime, "cat /etc/passwd", Mount("/etc/passwd", str(volume), sub_path="key", readonly=True))

    assert said == "one\n"


async def test_mounts_of_the_node_arrive_and_mounts_of_a_container_leave_as_propagation_says(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    source = tmp_path / "shared"
    source.mkdir()
    mounts.tmpfs(str(source))
    mounts.set_propagation(str(source), mounts.MS_SHARED)
    for name in ("node", "from-inside", "private"):
        (source / name).mkdir()
    kinds = MountPropagation
    volumes = (
        Mount("/private", str(source)),
        Mount("/slave", str(source), propagation=kinds.HOST_TO_CONTAINER),
        Mount("/both", str(source), propagation=kinds.BIDIRECTIONAL),
    )
    wait = "while ! test -e /both/node/here; do sleep 0.02; done"
    make = "mount -t tmpfs t /both/from-inside && touch /both/from-inside/made; mount -t tmpfs p /slave/private"
    script = f"{make}; {wait}; ls /private/node /slave/node /both/node"
    sandbox = await runtime.run_pod_sandbox(node.pod())
    privileged = SecurityContext(privileged=True)
    asked = container("sh", "-c", script, mounts=volumes, security=privileged)
    started = await runtime.create_container(sandbox, asked)
    await runtime.start_container(started)

    await eventually(lambda: (source / "from-inside/made").exists())
    mounts.tmpfs(str(source / "node"))
    (source / "node/here").touch()

    status = await ended(runtime, started)
    assert node.output(status) == "/both/node:\nhere\n\n/private/node:\n\n/slave/node:\nhere\n"
    assert not os.path.ismount(source / "private")
    mounts.umount_all(str(source))


@pytest.mark.parametrize("recursive", [False, True])
async def test_read_only_covers_the_mounts_below_only_when_it_is_recursive(
    node: Node, runtime: Runtime, tmp_path: Path, recursive: bool
) -> None:
    (tmp_path / "volume/below").mkdir(parents=True)
    mounts.tmpfs(str(tmp_path / "volume/below"))
    volume = Mount("/v", str(tmp_path / "volume"), readonly=True, recursive_read_only=recursive)

    said = await say(node, runtime, "touch /v/a || echo no; touch /v/below/b || echo no", volume)

    mounts.umount_all(str(tmp_path / "volume/below"))
    assert said == ("no\nno\n" if recursive else "no\n")


async def test_volumes_inside_volumes_are_mounted_after_them_in_whatever_order_they_are_listed(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    for name in ("outer/in", "inner"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "inner/file").touch()
    said = await say(
        node, runtime, "ls /v/in", Mount("/v/in", str(tmp_path / "inner")), Mount("/v", str(tmp_path / "outer"))
    )
    assert said == "file\n"


@pytest.mark.parametrize(("place", "source"), [("/etc", "file"), ("/etc/passwd", "directory")])
async def test_a_file_over_a_directory_and_the_reverse_say_so(
    node: Node, runtime: Runtime, tmp_path: Path, place: str, source: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(RuntimeServiceError, match=f"not a directory.*{place}"):
        await say(node, runtime, "true", Mount(place, str(tmp_path / source)))


@pytest.mark.parametrize(("strict", "groups"), [(False, "1001 2000 3000"), (True, "1001 3000")])
async def test_strict_groups_leave_out_what_the_images_group_file_says(
    node: Node, runtime: Runtime, strict: bool, groups: str
) -> None:
    security = SecurityContext(run_as_user=1000, supplemental_groups=(3000,), strict_groups=strict)
    assert await say(node, runtime, "id -G", security=security) == f"{groups}\n"


@pytest.fixture
def block_device(tmp_path: Path) -> Iterator[str]:
    """A loop device over a file that says who it is."""
    (tmp_path / "disk").write_bytes(b"the disk".ljust(1 << 20, b"."))
    made = subprocess.run(["losetup", "--find", "--show", tmp_path / "disk"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


USE_DEVICE = "head -c 8 $0 && echo; test -b $0 && printf changed > $0 && echo wrote"


@pytest.mark.parametrize("place", ["/dev/disk", "/srv/disk"])
@pytest.mark.parametrize(
    ("permissions", "said"),
    [("rw", "the disk\nwrote\n"), ("r", "the disk\n"), ("", "")],
    ids=["rw", "r", "mounted only"],
)
async def test_a_device_of_the_node_is_seen_at_its_place_and_used_as_far_as_is_allowed(
    node: Node, runtime: Runtime, block_device: str, place: str, permissions: str, said: str
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    given = (
        {"devices": [Device(place, block_device, permissions)]}
        if permissions
        else {"mounts": [Mount(place, block_device)]}
    )
    status = await run_to_end(runtime, sandbox, container("sh", "-c", USE_DEVICE, place, **given))
    assert node.output(status) == said
    if permissions != "rw":
        assert "Operation not permitted" in node.output(status, "stderr")


async def test_what_is_no_device_cannot_be_given_as_one(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    for path, why in ((str(tmp_path), "is not a device node"), ("/dev/nosuch", "no such file or directory")):
        with pytest.raises(RuntimeServiceError, match=f"{path}.*{why}"):
            await runtime.create_container(sandbox, container("true", devices=(Device("/dev/x", path),)))
