"""What `pod run -f` reads: every document of a file, and what a host without a master refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from minikube_raw.cli import podmanifests
from minikube_raw.cli.errors import Failure

POD = "{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {containers: [{name: c, image: busybox}]%s}}"


@pytest.mark.parametrize("between", ["---", "--- ", "--- # the next one", "---\r", "...\n---"])
def test_every_document_of_a_file_is_read_also_one_of_a_single_line(tmp_path: Path, between: str) -> None:
    path = tmp_path / "pods.yaml"
    path.write_bytes(f"{POD % ('a', '')}\n{between}\n{POD % ('b', '')}\n".encode())

    assert [wish.pod["metadata"]["name"] for wish in podmanifests.read(path)] == ["a", "b"]


def test_a_pod_that_asks_for_another_runtime_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD % ("a", ", runtimeClassName: gvisor"))

    with pytest.raises(Failure, match="pod a asks for RuntimeClass gvisor, which a master would know"):
        podmanifests.read(path)


@pytest.mark.parametrize("scheme", ["dir", "tar", "checkpoint"])
def test_a_path_that_names_an_image_is_meant_from_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text((POD % ("a", "")).replace("busybox", f"'{scheme}:./c.tar'"))
    monkeypatch.chdir(tmp_path)

    (wish,) = podmanifests.read(path)
    assert wish.pod["spec"]["containers"][0]["image"] == f"{scheme}:{tmp_path}/c.tar"
