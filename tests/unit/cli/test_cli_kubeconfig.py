"""The user's kubeconfig keeps what is not ours."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from minikube_raw.cli import kubeconfig
from minikube_raw.cli.errors import Failure


def ours(name: str = "minikube-raw", server: str = "https://127.0.0.1:6443") -> dict[str, Any]:
    """A kubeconfig as pki.kubeconfig makes it, short."""
    return {
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def read(path: Path) -> dict[str, Any]:
    """The file, decoded."""
    return dict(yaml.safe_load(path.read_text()))


def test_a_file_is_made_where_there_was_none_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / ".kube/config"
    kubeconfig.merge(path, ours())
    assert read(path)["current-context"] == "minikube-raw"
    assert path.stat().st_mode & 0o777 == 0o600


def test_merging_keeps_other_clusters_and_replaces_our_own_entry(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.dump(ours("work", "https://work") | {"kind": "Config", "extensions": [{"name": "x"}]}))
    kubeconfig.merge(path, ours(server="https://old"))
    kubeconfig.merge(path, ours(server="https://new"))
    config = read(path)
    assert {c["name"]: c["cluster"]["server"] for c in config["clusters"]} == {
        "work": "https://work",
        "minikube-raw": "https://new",
    }
    assert config["extensions"] == [{"name": "x"}]
    assert config["current-context"] == "minikube-raw"


def test_merging_keeps_the_namespace_chosen_for_our_context(tmp_path: Path) -> None:
    path = tmp_path / "config"
    kubeconfig.merge(path, ours())
    config = read(path)
    config["contexts"][0]["context"]["namespace"] = "team"
    path.write_text(yaml.dump(config))
    kubeconfig.merge(path, ours())
    assert read(path)["contexts"] == [
        {"name": "minikube-raw", "context": {"cluster": "minikube-raw", "user": "minikube-raw", "namespace": "team"}}
    ]


def test_removing_leaves_other_clusters_and_no_dangling_context(tmp_path: Path) -> None:
    path = tmp_path / "config"
    kubeconfig.merge(path, ours("work"))
    kubeconfig.merge(path, ours())
    kubeconfig.remove(path, "minikube-raw")
    config = read(path)
    assert [c["name"] for c in config["contexts"]] == ["work"]
    assert config["current-context"] == ""


def test_removing_the_last_entry_removes_the_file_and_its_empty_folder(tmp_path: Path) -> None:
    path = tmp_path / ".kube/config"
    kubeconfig.merge(path, ours())
    kubeconfig.remove(path, "minikube-raw")
    kubeconfig.remove(path, "minikube-raw")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "kind: Pod\n", "- a\n"], ids=["not YAML", "another kind", "a list"])
def test_a_file_that_is_no_kubeconfig_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(Failure, match=str(path)):
        kubeconfig.merge(path, ours())
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("environment", "expected"), [("/a/b:/c", "/a/b"), ("", "/home/u/.kube/config"), (":/c", "/home/u/.kube/config")]
)
def test_the_file_is_the_one_kubectl_writes(monkeypatch: pytest.MonkeyPatch, environment: str, expected: str) -> None:
    monkeypatch.setenv("KUBECONFIG", environment)
    monkeypatch.setenv("HOME", "/home/u")
    assert kubeconfig.default_path() == Path(expected)


def test_an_entry_of_our_name_that_is_another_authoritys_stays(tmp_path: Path) -> None:
    path = tmp_path / "config"
    mine = ours()
    mine["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(b"ours").decode()
    kubeconfig.merge(path, mine)
    kubeconfig.remove(path, "minikube-raw", b"another")
    assert read(path)["current-context"] == "minikube-raw"
    kubeconfig.remove(path, "minikube-raw", b"ours")
    assert not path.exists()
