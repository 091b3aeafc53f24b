"""Archives of running containers: by a CRIU that runs on this kernel, else by a script in its place that does what CRIU does to us."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from runtime_node import SHARED_PID, Node, container, eventually

from minikube_raw.runtime.cri import Mount, RuntimeServiceError
from minikube_raw.runtime.service import Runtime
from tests.criu import needs_criu

pytestmark = pytest.mark.root
# What is asked of CRIU here: where its images and its log go, who packs the layer, and that the dumped go on.
SCRIPT = """#!/bin/sh
[ "$1" = --version ] && { echo "Version: ${VERSION:-4.0}"; exit 0; }
while [ $# -gt 0 ]; do
  case $1 in
    --images-dir) images=$2;; --work-dir) work=$2;; --action-script) script=$2;; --leave-running) left=1;;
    --external) echo "$2" >>"$images/external";;
  esac
  shift
done
echo "(00.1) Error (criu/a.c:1): nothing works" >"$work/dump.log"
[ -n "$left" ] && [ -z "$FAIL" ] || exit 1
CRTOOLS_SCRIPT_ACTION=pre-dump "$script" && CRTOOLS_SCRIPT_ACTION=post-dump "$script" || exit 1
touch "$images/inventory.img" "$work/stats-dump"
"""
COUNT = "echo kept >/tmp/kept; rm /etc/group; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script is what PATH has as criu."""
    program = tmp_path / "bin/criu"
    program.parent.mkdir()
    program.write_text(SCRIPT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


async def counting(node: Node, runtime: Runtime, *, pod: dict[str, Any] | None = None, **changes: Any) -> str:
    sandbox = await runtime.run_pod_sandbox(node.pod(**(pod or {})))
    created = await runtime.create_container(sandbox, container("sh", "-c", COUNT, **changes))
    await runtime.start_container(created)
    await grown(runtime, created)
    return created


async def grown(runtime: Runtime, created: str) -> None:
    log = Path(runtime._state.containers[created].log_path)
    before = log.stat().st_size if log.exists() else 0
    await eventually(lambda: log.exists() and log.stat().st_size > before + 100)


def read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


async def checked(node: Node, runtime: Runtime, created: str, location: Path) -> list[str]:
    """Makes an archive, looks at what is in any, and that the container goes on; returns the images' names."""
    await runtime.checkpoint_container(created, str(location))
    assert location.stat().st_mode & 0o777 == 0o600
    assert os.listdir(location.parent) == [location.name]
    with tarfile.open(location) as archive:
        names = archive.getnames()
        config, spec = json.loads(read(archive, "config.dump")), json.loads(read(archive, "spec.dump"))
        assert (config["id"], config["name"], config["restored"]) == (created, "main", False)
        assert config["createdTime"] < config["checkpointedTime"]
        assert spec["process"]["args"] == ["sh", "-c", COUNT]
        assert json.loads(read(archive, "deleted.files")) == ["/etc/group"]
        with tarfile.open(fileobj=io.BytesIO(read(archive, "rootfs-diff.tar"))) as layer:
            assert read(layer, "./tmp/kept") == b"kept\n"
            assert "./etc/group" not in layer.getnames()
        assert {"dump.log", "stats-dump", "checkpoint"} < set(names)
        await grown(runtime, created)
        status = await runtime.container_status(created)
        assert status is not None
        lines = node.output(status).splitlines()
        assert lines == [str(number) for number in range(1, len(lines) + 1)]
        return [name.removeprefix("checkpoint/") for name in names if name.startswith("checkpoint/")]


@pytest.mark.usefixtures("script")
async def test_an_archive_is_laid_out_as_other_engines_lay_it_out_and_the_container_goes_on(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    created = await counting(node, runtime)
    location = tmp_path / "made/checkpoint-p_ns-c-now.tar"
    assert "inventory.img" in await checked(node, runtime, created, location)
    with tarfile.open(location) as archive:
        external = read(archive, "checkpoint/external").decode().splitlines()
        streams = json.loads(read(archive, "checkpoint/descriptors.json"))
    kinds = [each.partition("[")[0] for each in external]
    assert kinds == sorted(kinds, key=["mnt", "net", "file"].index)
    assert "mnt[/etc/hosts]:/etc/hosts" in external
    files = [each for each in external if each.startswith("file")]
    assert (streams[0], set(streams[1:]) <= set(files)) == ("", True)
    inodes = [os.stat(node.run / "containers" / created / name).st_ino for name in ("stdout", "stderr")]
    assert inodes == [int(each.partition(":")[2].rstrip("]"), 16) for each in streams[1:]]


@needs_criu
@pytest.mark.parametrize("modes", [pytest.param({}, id="own"), pytest.param({"namespaces": SHARED_PID}, id="shared")])
async def test_criu_dumps_a_container_of_ours(
    node: Node, runtime: Runtime, tmp_path: Path, modes: dict[str, Any]
) -> None:
    (tmp_path / "volume").mkdir()
    created = await counting(node, runtime, pod=modes, mounts=(Mount("/data", str(tmp_path / "volume")),))
    for number in range(2):
        images = await checked(node, runtime, created, tmp_path / f"made{number}/checkpoint-p_ns-c-now.tar")
        assert {"inventory.img", "pstree.img", "files.img", "seccomp.img"} < set(images)


@pytest.mark.usefixtures("script")
async def test_a_dump_that_fails_says_what_criu_said_and_leaves_nothing(
    node: Node, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "1")
    created = await counting(node, runtime)
    with pytest.raises(RuntimeServiceError, match=r"criu dump failed.*`criu check`.*: nothing works$"):
        await runtime.checkpoint_container(created, str(tmp_path / "made/x.tar"))
    assert os.listdir(tmp_path / "made") == []
    await grown(runtime, created)


@pytest.mark.usefixtures("script")
async def test_without_a_criu_that_is_new_enough_the_words_are_containerds_with_the_cure(
    node: Node, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await counting(node, runtime)
    monkeypatch.setenv("VERSION", "3.15.2")
    text = (
        rf'CRIU binary not found or too old \(<31600\). Failed to checkpoint container "{created}": .*install a newer'
    )
    with pytest.raises(RuntimeServiceError, match=text):
        await runtime.checkpoint_container(created, str(tmp_path / "x.tar"))
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(RuntimeServiceError, match=r"executable file not found in \$PATH; apt-get install criu"):
        await runtime.checkpoint_container(created, str(tmp_path / "x.tar"))


@pytest.mark.usefixtures("script")
async def test_what_does_not_run_or_has_a_terminal_is_refused(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    created = await counting(node, runtime, tty=True)
    with pytest.raises(RuntimeServiceError, match="a container with a terminal cannot be dumped"):
        await runtime.checkpoint_container(created, str(tmp_path / "x.tar"))
    await runtime.stop_container(created, 0)
    with pytest.raises(RuntimeServiceError, match="is not running"):
        await runtime.checkpoint_container(created, str(tmp_path / "x.tar"))


@pytest.mark.usefixtures("script")
async def test_after_its_timeout_nobody_waits_and_no_archive_comes_later(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    created = await counting(node, runtime)
    held = runtime._state.container(created)[0].lock
    async with held:
        with pytest.raises(RuntimeServiceError, match="code = DeadlineExceeded"):
            await runtime.checkpoint_container(created, str(tmp_path / "made/x.tar"), 0.2)
    await eventually(lambda: (tmp_path / "made").exists() and os.listdir(tmp_path / "made") == [])
    async with held:
        pass
