"""Checkpoints of containers as images: what an archive has is the layer, and the manifest says whose it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from image_archives import Tar

from minikube_raw.oci import checkpoints, exports, plainroots, single
from minikube_raw.oci.images import CHECKPOINT_MARKS, ImageError, ImageStore
from minikube_raw.oci.plainroots import PlainRootStore
from minikube_raw.oci.reference import InvalidReference

pytestmark = pytest.mark.root


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    config = json.dumps({"name": "counter"}).encode()
    made = Tar().add("spec.dump", data=b"{}").add("config.dump", data=config).dir("checkpoint")
    path = tmp_path / "saved.tar"
    path.write_bytes(made.add("checkpoint/inventory.img", data=b"x").bytes())
    return path


def test_an_archive_becomes_an_image_that_says_so_also_in_another_store(
    store: ImageStore, archive: Path, tmp_path: Path
) -> None:
    made = checkpoints.take_in(store, archive, ["docker.io/library/saved:v1"])
    assert made.checkpoint == "counter"
    with (tmp_path / "image.tar").open("wb") as file:
        exports.save([made], store.content, file)

    other = ImageStore(tmp_path / "other")
    assert other.load(tmp_path / "image.tar") == ["docker.io/library/saved:v1"]
    found = other.resolve("saved:v1")
    assert found is not None
    assert found.checkpoint == "counter"
    (layer,) = other.layers(found)
    assert (layer / "checkpoint/inventory.img").read_bytes() == b"x"


@pytest.mark.parametrize("mark", CHECKPOINT_MARKS)
def test_an_image_that_another_tool_has_annotated_is_one_too(store: ImageStore, archive: Path, mark: str) -> None:
    made = single.take_in(store, archive, ["docker.io/library/theirs:v1"], {mark: "main"})
    assert made.checkpoint == "main"


def test_a_path_names_a_checkpoint_and_what_changed_is_taken_in_anew(archive: Path, tmp_path: Path) -> None:
    store, name = PlainRootStore(tmp_path / "plain"), f"checkpoint:{archive}"
    as_root = store.take_in(f"tar:{archive}")
    assert store.resolve(name) is None
    first = store.take_in(name)
    assert (as_root.checkpoint, first.checkpoint) == ("", "counter")
    assert store.resolve(name) == first == store.resolve(first.id)
    archive.write_bytes(Tar().add("config.dump", data=b'{"name": "another"}').bytes())
    assert store.resolve(name) is None
    assert store.take_in(name).checkpoint == "another"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"root:x:0:0", "it is no tar", id="no tar"),
        pytest.param(Tar().add("etc/os", data=b"base").bytes(), r"it has no config\.dump", id="a root file system"),
        pytest.param(Tar().add("config.dump", data=b"{").bytes(), r"is damaged: config\.dump", id="damaged"),
    ],
)
def test_what_is_no_checkpoint_is_refused(store: ImageStore, archive: Path, content: bytes, message: str) -> None:
    archive.write_bytes(content)
    with pytest.raises(ImageError, match=message) as error:
        checkpoints.take_in(store, archive)
    assert "checkpoint API" in error.value.hint
    assert (store.list(), store.content.digests()) == ([], [])


def test_a_path_is_absolute() -> None:
    with pytest.raises(InvalidReference, match="absolute path"):
        plainroots.name_of("checkpoint:saved.tar")
