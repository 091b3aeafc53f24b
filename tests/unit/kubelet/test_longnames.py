"""Names of files that are made of pods' names: as they are while they fit, else shortened, and never two the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pod_builders import pod

from minikube_raw.kubelet import manifests, pods
from minikube_raw.linux.durability import write_file

UID = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("length", [1, 241, 242, 243, 253])
def test_manifests_of_long_names_are_written_and_read_as_of_short_ones(tmp_path: Path, length: int) -> None:
    for name in ("a" * (length - 1) + "x", "a" * (length - 1) + "y"):
        document = {"metadata": {"name": name, "namespace": "default", "uid": UID}}
        path = tmp_path / manifests.file_name("default", name)
        manifests.write(path, document)
        assert manifests.documents(path)[0] == document
        assert (path.name == f"default_{name}.yaml") == (length <= 242)
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize(("length", "kept"), [(210, True), (211, False), (253, False)])
def test_the_directory_of_a_long_named_pods_logs_can_be_made_and_ends_in_its_uid(
    tmp_path: Path, length: int, kept: bool
) -> None:
    name = pods.log_directory_name(pod(metadata={"name": "p" * length, "namespace": "default", "uid": UID}))
    (tmp_path / name).mkdir()
    assert pods.logged(tmp_path) == [UID]
    assert (name == f"default_{'p' * length}_{UID}") is kept


def test_a_file_of_the_longest_name_is_replaced(tmp_path: Path) -> None:
    write_file(tmp_path / ("f" * 255), b"one")
    write_file(tmp_path / ("f" * 255), b"two")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"two"]
