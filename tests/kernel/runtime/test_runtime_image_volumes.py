"""Images as volumes (KEP-4639): their files are seen as they are layered, read-only, and nothing of them is executed."""

from __future__ import annotations

from pathlib import Path

import pytest
from runtime_node import Node, container, run_to_end

from minikube_raw.linux import features
from minikube_raw.oci.manifests import ImageConfig
from minikube_raw.runtime.cri import ContainerStatus, Mount
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root
OWN_USERS = pytest.mark.skipif(not features.idmapped_mounts(), reason="this kernel has no idmapped mounts")


@pytest.fixture(params=[1, 2], ids=["one layer", "two layers"])
def data(request: pytest.FixtureRequest, node: Node, tmp_path: Path) -> Path:
    """An image named data: a file `name`, a program and a directory with a link to the outside; its uppermost layer."""
    base, top = tmp_path / "base", tmp_path / "top"
    for layer in (base, top):
        layer.mkdir()
        (layer / "name").write_text(f"{layer.name}\n")
    last = top if request.param == 2 else base
    (base / "run").write_text("#!/bin/sh\necho ran\n")
    (base / "run").chmod(0o755)
    (base / "inner").mkdir()
    (base / "inner/file").write_text("inside\n")
    (base / "inner/out").symlink_to("/etc")
    node.images.images["data"] = (last, ImageConfig())
    node.images.layers["data"] = [top, base] if request.param == 2 else [base]
    return last


async def see(
    node: Node, runtime: Runtime, script: str, *, sub_path: str = "", own_users: bool = False
) -> ContainerStatus:
    """What a script printed beside the image mounted at /v."""
    sandbox = await runtime.run_pod_sandbox(node.pod(user_namespace=own_users))
    mounted = Mount(container_path="/v", image="data", sub_path=sub_path, readonly=True)
    return await run_to_end(runtime, sandbox, container("sh", "-c", script, mounts=(mounted,)))


@pytest.mark.parametrize("own_users", [False, pytest.param(True, marks=OWN_USERS)], ids=["shared users", "own users"])
async def test_its_files_are_seen_read_only_and_not_executed(
    node: Node, runtime: Runtime, data: Path, own_users: bool
) -> None:
    script = "cat /v/name /v/inner/file; stat -c %u /v/run; touch /v/new; /v/run; grep ' /v ' /proc/self/mountinfo"
    status = await see(node, runtime, script, own_users=own_users)

    *lines, mounted = node.output(status).splitlines()
    assert lines == [data.name, "inside", "0"]
    assert {"ro", "noexec"} <= set(mounted.split()[5].split(","))
    complaints = node.output(status, "stderr")
    assert "Read-only file system" in complaints
    assert "Permission denied" in complaints
    assert not (data / "new").exists()


async def test_a_part_of_it_is_seen_by_sub_path(node: Node, runtime: Runtime, data: Path) -> None:
    directory = await see(node, runtime, "ls /v; cat /v/file", sub_path="inner")
    file = await see(node, runtime, "cat /v", sub_path="name")

    assert node.output(directory).split() == ["file", "out", "inside"]
    assert node.output(file) == f"{data.name}\n"


@pytest.mark.parametrize("path", ["inner/out/passwd", "nosuch", "../base"])
async def test_no_sub_path_leads_out_of_it(node: Node, runtime: Runtime, data: Path, path: str) -> None:
    with pytest.raises(Exception, match=r"no such file|cross-device"):
        await see(node, runtime, "cat /v", sub_path=path)


async def test_nothing_of_it_stays_mounted(node: Node, runtime: Runtime, data: Path) -> None:
    await see(node, runtime, "true")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    assert [line for line in lines if str(node.run) in line and "nsfs" not in line] == []
    assert [line for line in lines if str(data) in line] == []
