"""The image store: what goes in comes out, what is broken never becomes visible, and nothing in use is deleted."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from image_archives import Layout, Tar, digest

from minikube_raw.linux import removal
from minikube_raw.oci import exports
from minikube_raw.oci.images import ImageError, ImageInUse, ImageNotFound, ImageStore
from minikube_raw.oci.plainroots import PlainRootStore
from minikube_raw.oci.snapshots import Snapshots

pytestmark = pytest.mark.root
BASE = Tar().dir("etc").add("etc/os", data=b"base").add("bin/sh", data=b"#!").bytes()
TOP = Tar().add("etc/os", data=b"top").bytes()


def contents(store: ImageStore) -> tuple[list[str], list[str], list[str]]:
    """References, blobs and unpacked layers; and whatever is unfinished, which must be nothing."""
    assert os.listdir(store.root / "work") == []
    references = sorted(name for image in store.list() for name in image.references)
    return references, store.content.digests(), sorted(os.listdir(store.root / "l"))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("as_tar", [True, False], ids=["tar", "directory"])
def test_an_oci_layout_is_loaded(
    compress: Callable[[bytes], bytes], as_tar: bool, store: ImageStore, layout: Layout, tmp_path: Path
) -> None:
    config = {"Entrypoint": ["/bin/sh"], "Cmd": None, "Env": ["A=1"], "User": "7", "ExposedPorts": {"80/tcp": {}}}
    layout.image("box:v1", [BASE, TOP], compress=compress, config=config)

    names = store.load(layout.tar(tmp_path / "box.tar") if as_tar else layout.root)

    assert names == ["docker.io/library/box:v1"]
    image = store.resolve("box:v1")
    assert image is not None
    assert image.config.entrypoint == ("/bin/sh",)
    assert (image.config.cmd, image.config.user, image.config.exposed_ports) == ((), "7", ("80/tcp",))
    upper, lower = store.layers(image)
    assert (upper / "etc/os").read_text() == "top"
    assert (lower / "etc/os").read_text() == "base"
    assert len(f"{upper.name}:") * 100 < 4096
    assert store.resolve(image.id) == store.resolve(image.digest) == store.resolve(f"box@{image.digest}") == image
    assert store.resolve("box") is None
    assert store.resolve("box:v2") is None
    assert store.resolve(f"other@{image.digest}") is None


@pytest.mark.parametrize("archive_format", exports.FORMATS)
def test_a_saved_image_loads_elsewhere_with_the_same_id(
    archive_format: str, store: ImageStore, layout: Layout, tmp_path: Path
) -> None:
    layout.image("box:v1", [BASE, TOP])
    store.load(layout.root)
    image = store.resolve("box:v1")
    assert image is not None

    for name in ("a.tar", "b.tar"):
        with (tmp_path / name).open("wb") as file:
            exports.save([image], store.content, file, archive_format=archive_format)
    other = ImageStore(tmp_path / "other")
    names = other.load(tmp_path / "a.tar")

    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert names == ["docker.io/library/box:v1"]
    loaded = other.resolve(image.id)
    assert loaded is not None
    assert (loaded.id, loaded.diff_ids, loaded.config) == (image.id, image.diff_ids, image.config)


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo as the other side")
@pytest.mark.parametrize("transport", exports.FORMATS)
def test_skopeo_reads_what_we_save_and_we_read_what_it_writes(
    transport: str, store: ImageStore, layout: Layout, tmp_path: Path
) -> None:
    store.load(layout.image("box:v1", [BASE, TOP]).root)
    image = store.resolve("box:v1")
    assert image is not None
    with (tmp_path / "ours.tar").open("wb") as file:
        exports.save([image], store.content, file, archive_format=transport)

    theirs = f"{transport}:{tmp_path}/theirs.tar:other/box:v2"
    for source, target in (
        (f"{transport}:{tmp_path}/ours.tar", f"dir:{tmp_path}/dir"),
        (f"oci:{store.root}:docker.io/library/box:v1", theirs),  # the store itself is an OCI layout
    ):
        subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", source, target], check=True)

    assert store.load(tmp_path / "theirs.tar") == ["docker.io/other/box:v2"]
    again = store.resolve("other/box:v2")
    assert again is not None
    assert (again.diff_ids, store.layers(again)) == (image.diff_ids, store.layers(image))


def test_docker_saves_old_form_with_links_between_layers_is_loaded(store: ImageStore, tmp_path: Path) -> None:
    config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(BASE)] * 2}}).encode()
    listing = [{"Config": "c.json", "RepoTags": ["box:v1", "quay.io/a/b:x"], "Layers": ["1/layer.tar", "2/layer.tar"]}]
    tar = Tar().symlink("2/layer.tar", "../1/layer.tar").add("1/layer.tar", data=BASE).add("c.json", data=config)
    (tmp_path / "box.tar.gz").write_bytes(
        gzip.compress(tar.add("manifest.json", data=json.dumps(listing).encode()).bytes())
    )

    assert store.load(tmp_path / "box.tar.gz") == ["docker.io/library/box:v1", "quay.io/a/b:x"]
    image = store.resolve("quay.io/a/b:x")
    assert image is not None
    assert len(store.layers(image)) == 2


def test_of_an_index_the_image_for_this_machine_is_taken(store: ImageStore, layout: Layout) -> None:
    layout.image(None, [BASE], platform={"os": "linux", "architecture": "s390x"})
    layout.image(
        None, [TOP], platform={"os": "linux", "architecture": {"x86_64": "amd64"}.get(os.uname().machine, "arm64")}
    )
    nested = {"schemaVersion": 2, "manifests": layout.descriptors}
    index = layout.blob(json.dumps(nested).encode(), "application/vnd.oci.image.index.v1+json")
    layout.path(layout.descriptors[0]["digest"]).unlink()  # other platforms' images need not be there
    layout.descriptors = [{**index, "annotations": {"org.opencontainers.image.ref.name": "latest"}}]
    layout.write()

    assert store.load(layout.root) == ["docker.io/library/layout:latest"]
    image = store.resolve("layout")
    assert image is not None
    assert image.diff_ids == (digest(TOP),)


def damage_blob(layout: Layout) -> None:
    blob = max((layout.root / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")


def truncate_blob(layout: Layout) -> None:
    blob = max((layout.root / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(blob, blob.stat().st_size // 2)


def drop_config(layout: Layout) -> None:
    manifest = json.loads(layout.path(layout.descriptors[0]["digest"]).read_text())
    layout.path(manifest["config"]["digest"]).unlink()


def no_index(layout: Layout) -> None:
    (layout.root / "index.json").unlink()


def huge_index(layout: Layout) -> None:
    (layout.root / "index.json").write_bytes(b" " * (5 << 20))


def traversing_digest(layout: Layout) -> None:
    layout.descriptors[0]["digest"] = "sha256:../../../../etc/passwd"
    layout.write()


def other_algorithm(layout: Layout) -> None:
    layout.descriptors[0]["digest"] = "md5:" + "0" * 32
    layout.write()


def lying_size(layout: Layout) -> None:
    layout.descriptors[0]["size"] += 1
    layout.write()


def deep_json(layout: Layout) -> None:
    (layout.root / "index.json").write_text('{"manifests":' + "[" * 100_000)


def foreign_platform(layout: Layout) -> None:
    index = {"manifests": [{**layout.descriptors[0], "platform": {"os": "windows", "architecture": "amd64"}}]}
    layout.descriptors = [layout.blob(json.dumps(index).encode(), "application/vnd.oci.image.index.v1+json")]
    layout.write()


@pytest.mark.parametrize("as_tar", [True, False], ids=["tar", "directory"])
@pytest.mark.parametrize(
    ("falsify", "message"),
    [
        (damage_blob, "has digest"),
        (truncate_blob, "has digest|bytes"),
        (drop_config, "missing"),
        (no_index, r"index\.json"),
        (huge_index, "larger than"),
        (traversing_digest, "not a sha256 digest"),
        (other_algorithm, "not a sha256 digest"),
        (lying_size, "descriptor says"),
        (deep_json, "not an image index"),
        (foreign_platform, "there is windows/amd64"),
    ],
)
def test_a_false_layout_is_refused_whole(
    falsify: Callable[[Layout], None], message: str, as_tar: bool, store: ImageStore, layout: Layout, tmp_path: Path
) -> None:
    layout.image("box:v1", [BASE, TOP])
    falsify(layout)

    with pytest.raises(ImageError, match=message):
        store.load(layout.tar(tmp_path / "box.tar") if as_tar else layout.root)

    assert contents(store) == ([], [], [])


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (Tar().add("../x").bytes(), {}, "leads outside"),
        (BASE, {"diff_ids": [digest(b"other")]}, "its config says"),
        (BASE, {"diff_ids": [digest(BASE), digest(TOP)]}, "diff_ids"),
        (BASE, {"compress": lambda data: gzip.compress(data)[:-20]}, "damaged"),
        (BASE, {"compress": lambda data: zstandard.compress(data)[:-5]}, "ends|digest|damaged|unpacks to"),
        (BASE, {"compress": lambda data: gzip.compress(data) + b"garbage"}, "damaged"),
        (b"\x1f\x8bnothing", {"compress": bytes}, "damaged"),
        (b"no archive" * 100, {}, "not a tar"),
    ],
    ids=["escape", "wrong diff_id", "too many diff_ids", "cut gzip", "cut zstd", "gzip and more", "no gzip", "no tar"],
)
def test_a_layer_that_cannot_be_unpacked_never_becomes_an_image(
    layer: bytes, options: dict[str, Any], message: str, store: ImageStore, layout: Layout
) -> None:
    layout.image("good:v1", [TOP])
    store.load(layout.root)
    before = contents(store)

    with pytest.raises(ImageError, match=message):
        store.load(layout.image("bad:v1", [layer], **options).root)

    assert contents(store) == before
    assert store.resolve("bad:v1") is None


def test_a_decompression_bomb_is_stopped(store: ImageStore, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minikube_raw.oci.unpacked.RATIO_FLOOR", 1 << 20)
    bomb = Tar().add("zeros", data=bytes(8 << 20)).bytes()

    with pytest.raises(ImageError, match="out of proportion"):
        store.load(layout.image("bomb:v1", [bomb]).root)

    assert contents(store) == ([], [], [])


def test_layers_are_shared_and_live_as_long_as_an_image_needs_them(store: ImageStore, layout: Layout) -> None:
    layout.image("one:v1", [BASE]).image("two:v1", [BASE, TOP])
    store.load(layout.root)
    assert len(os.listdir(store.root / "l")) == 2

    store.remove("two:v1")
    assert contents(store)[0] == ["docker.io/library/one:v1"]
    assert len(os.listdir(store.root / "l")) == 1

    store.remove("one:v1")
    assert contents(store) == ([], [], [])
    with pytest.raises(ImageNotFound):
        store.remove("one:v1")


def test_removing_by_id_removes_every_reference(store: ImageStore, layout: Layout) -> None:
    store.load(layout.image("one:v1", [BASE]).root)
    image = store.tag("one:v1", "two:v2")
    assert image.references == ("docker.io/library/one:v1", "docker.io/library/two:v2")

    store.remove("one:v1")
    assert store.resolve("two:v2") is not None
    store.remove(image.id)

    assert contents(store) == ([], [], [])


def test_a_tag_moves_and_the_old_image_is_still_found_by_id(store: ImageStore, layout: Layout) -> None:
    store.load(layout.image("box:v1", [BASE]).root)
    old = store.resolve("box:v1")
    layout.descriptors.clear()
    store.load(layout.image("box:v1", [TOP]).root)
    new = store.resolve("box:v1")

    assert old is not None
    assert new is not None
    assert old.id != new.id
    assert {image.id for image in store.list()} == {old.id, new.id}
    store.remove(old.id)
    assert [image.id for image in store.list()] == [new.id]


def test_an_image_in_use_as_a_volume_is_held_as_long_as_its_container_is_there(
    store: ImageStore, layout: Layout, tmp_path: Path
) -> None:
    store.load(layout.image("box:v1", [BASE]).root)
    store.load(layout.image("data:v1", [BASE, TOP]).root)
    box, data = store.resolve("box:v1"), store.resolve("data:v1")
    assert box is not None
    assert data is not None
    snapshots = Snapshots(store, tmp_path / "containers")
    snapshots.prepare("c1", box)

    ((top, base),) = snapshots.hold("c1", [data])
    assert [(layer / "etc/os").read_bytes() for layer in (top, base)] == [b"top", b"base"]
    with pytest.raises(ImageInUse, match=r"1 container\(s\): c1"):
        store.remove("data:v1")
    assert store.sweep()
    assert (top / "etc/os").exists()

    snapshots.remove("c1")
    store.remove("data:v1")
    assert not top.exists()


def test_an_image_in_use_is_not_removed_until_its_container_is(
    store: ImageStore, layout: Layout, tmp_path: Path
) -> None:
    store.load(layout.image("box:v1", [BASE]).root)
    image = store.resolve("box:v1")
    assert image is not None
    snapshots = Snapshots(store, tmp_path / "containers")
    snapshot = snapshots.prepare("c1", image)

    with pytest.raises(ImageInUse, match="c1"):
        store.remove("box:v1")
    assert store.sweep()
    assert (snapshot.lowers[0] / "etc/os").exists()

    snapshots.remove("c1")
    snapshots.remove("c1")
    store.remove("box:v1")
    assert contents(store) == ([], [], [])


def test_a_snapshot_starts_empty_with_the_images_root_attributes(
    store: ImageStore, layout: Layout, tmp_path: Path
) -> None:
    store.load(layout.image("box:v1", [Tar().dir("./", mode=0o750, uid=5).bytes()]).root)
    image = store.resolve("box:v1")
    assert image is not None
    snapshots = Snapshots(store, tmp_path / "containers")
    (snapshots.prepare("c1", image).upper / "left").write_text("by an earlier attempt")

    snapshot = snapshots.prepare("c1", image)

    assert os.listdir(snapshot.upper) == os.listdir(snapshot.work) == []
    assert (snapshot.upper.stat().st_mode & 0o7777, snapshot.upper.stat().st_uid) == (0o750, 5)
    assert snapshots.list() == ["c1"]
    assert removal.empty_trash(snapshots.trash)
    assert os.listdir(tmp_path / "containers") == ["c1"]


def test_an_image_without_layers_still_gives_overlay_a_lower_directory(store: ImageStore, layout: Layout) -> None:
    store.load(layout.image("empty:v1", []).root)
    image = store.resolve("empty:v1")
    assert image is not None
    (lower,) = store.layers(image)
    assert os.listdir(lower) == []


@pytest.mark.parametrize("damage", [b"", b'{"manifests":[{"media', b"\0" * 500], ids=["empty", "half", "zeros"])
def test_a_damaged_index_is_rebuilt(damage: bytes, store: ImageStore, layout: Layout) -> None:
    store.load(layout.image("one:v1", [BASE]).root)
    store.load(layout.image("two:v1", [TOP]).root)  # the previous index knows one:v1 only
    two = store.resolve("two:v1")
    assert two is not None
    (store.root / "index.json").write_bytes(damage)

    reopened = ImageStore(store.root)

    assert reopened.resolve("one:v1") is not None
    assert reopened.resolve(two.id) is not None
    assert (store.root / "index.damaged.json").read_bytes() == damage
    assert json.loads((store.root / "index.json").read_text())["manifests"]


def test_a_damaged_image_is_named_and_can_be_removed_and_loaded_again(store: ImageStore, layout: Layout) -> None:
    store.load(layout.image("bad:v1", [BASE]).image("good:v1", [TOP]).root)
    bad = store.resolve("bad:v1")
    assert bad is not None
    store.content.path(bad.id).write_bytes(b"{}")

    reopened = ImageStore(store.root)
    with pytest.raises(ImageError, match="damaged"):
        reopened.resolve("bad:v1")
    assert [image.references for image in reopened.list()] == [("docker.io/library/good:v1",)]
    reopened.remove("bad:v1")
    reopened.load(layout.root)

    assert reopened.resolve("bad:v1") is not None


KILLED_LOAD = """
import os, signal, sys
from pathlib import Path
from minikube_raw.oci.images import ImageStore
calls = 0
def audit(event, arguments):  # every system call that changes the disk announces itself here
    global calls
    if event in ("open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.truncate", "os.chown", "os.rmdir"):
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
store = ImageStore(Path(sys.argv[1]))
sys.addaudithook(audit)
store.load(Path(sys.argv[2]))
"""


def test_a_load_killed_anywhere_leaves_the_old_or_the_new_image(store: ImageStore, layout: Layout) -> None:
    store.load(layout.image("box:v1", [BASE]).root)
    old = store.resolve("box:v1")
    layout.descriptors.clear()
    layout.image("box:v1", [BASE, TOP])
    assert old is not None

    seen, point = set[str](), 1
    while True:
        command = [sys.executable, "-c", KILLED_LOAD, str(store.root), str(layout.root), str(point)]
        status = subprocess.run(command, check=False).returncode
        image = ImageStore(store.root).resolve("box:v1")
        assert image is not None
        assert all(path.is_dir() for path in store.layers(image))
        seen.add(image.id)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        if image.id != old.id:  # back to the old image for the next point
            store.remove("box:v1")
            store.tag(old.id, "box:v1")
        point += 4
    assert point > 20
    assert len(seen) == 2
    assert store.sweep()
    assert os.listdir(store.root / "work") == []


def test_loading_and_removing_at_the_same_time_never_shows_a_broken_image(store: ImageStore, layout: Layout) -> None:
    layout.image("a:v1", [BASE, TOP]).image("b:v1", [BASE])
    program = (
        "import sys; from pathlib import Path; from minikube_raw.oci.images import *\n"
        "store = ImageStore(Path(sys.argv[1]))\n"
        "for _ in range(15):\n"
        "    store.load(Path(sys.argv[2]))\n"
        "    try:\n"
        "        for image in store.list(): store.layers(image)\n"
        "        store.remove(sys.argv[3])\n"
        "    except ImageNotFound: pass\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", program, str(store.root), str(layout.root), name])
        for name in ("a:v1", "b:v1", "a:v1")
    ]

    assert [worker.wait() for worker in workers] == [0, 0, 0]
    store.load(layout.root)
    assert contents(store)[0] == ["docker.io/library/a:v1", "docker.io/library/b:v1"]


def test_a_tar_that_is_no_image_says_what_is_missing(store: ImageStore, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(__file__, "readme.py")
    with pytest.raises(ImageError, match=r"neither an OCI image layout .* nor a docker-save archive"):
        store.load(tmp_path / "x.tar")


def test_a_spare_snapshot_becomes_a_containers_as_one_that_is_made_for_it(
    store: ImageStore, layout: Layout, tmp_path: Path
) -> None:
    store.load(layout.image("box:v1", [BASE]).root)
    image = store.resolve("box:v1")
    assert image is not None
    snapshots = Snapshots(store, tmp_path / "containers")
    spare = snapshots.prepare_spare(image)
    assert spare is not None
    assert snapshots.list() == []

    adopted, made = snapshots.adopt("c1", image, spare), snapshots.prepare("c2", image)
    assert adopted is not None
    assert adopted.lowers == made.lowers
    for left, right in zip(adopted[1:], made[1:], strict=True):
        assert (left.parent.name, left.name) == ("c1", right.name)
        assert left.stat().st_mode == right.stat().st_mode
    assert snapshots.list() == ["c1", "c2"]
    with pytest.raises(ImageInUse, match="c1, c2"):
        store.remove("box:v1")


def test_a_spare_snapshot_holds_no_image_and_is_of_no_use_once_that_has_gone_and_come_back(
    store: ImageStore, layout: Layout, tmp_path: Path
) -> None:
    archive = layout.image("box:v1", [BASE]).root
    store.load(archive)
    image = store.resolve("box:v1")
    assert image is not None
    snapshots = Snapshots(store, tmp_path / "containers")
    spare = snapshots.prepare_spare(image)
    assert spare is not None
    store.remove("box:v1")
    with pytest.raises(ImageError):
        snapshots.adopt("c1", image, spare)

    store.load(archive)
    assert snapshots.adopt("c1", image, spare) is None
    assert store.leases.images() == set()
    snapshots.discard_all()
    assert [*(tmp_path / "containers").iterdir()] == []


def test_a_directory_that_is_no_image_has_no_spare_that_would_keep_its_file_system_busy(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    store = PlainRootStore(tmp_path / "store")
    image = store.take_in(f"dir:{tmp_path}/rootfs")
    snapshots = Snapshots(store, tmp_path / "containers")
    assert snapshots.prepare_spare(image) is None
    assert [*(tmp_path / "containers").iterdir()] == []


def test_a_file_that_is_no_archive_is_refused_with_what_makes_one(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("no archive\n" * 100)

    with pytest.raises(ImageError, match="is not an image archive") as refused:
        store.load(tmp_path / "words")
    assert "docker save" in refused.value.hint
