"""The user's kubeconfig: our cluster, user and context go in by name and come out by name; the rest is left alone.

The file is the one kubectl would write: the first of $KUBECONFIG, else ~/.kube/config. As with kubectl itself, comments in
it do not survive a rewrite.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml

from minikube_raw.cli.errors import Failure
from minikube_raw.linux.durability import write_file
from minikube_raw.machine.layout import remove_empty

SECTIONS = ("clusters", "users", "contexts")


def default_path() -> Path:
    """The file kubectl reads first."""
    first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(first).absolute() if first else Path.home() / ".kube" / "config"


def merge(path: Path, ours: dict[str, Any]) -> None:
    """Put the entries of `ours` into the file, replacing those of the same name, and make its context the current one.

    A namespace chosen for that context (`kubectl config set-context --namespace`) stays.
    """
    config = load(path)
    chosen = {entry.get("name"): _namespace(entry) for entry in config.get("contexts") or []}
    contexts = [{**each, "context": each["context"] | chosen.get(each["name"], {})} for each in ours["contexts"]]
    wanted = {section: ours[section] for section in SECTIONS} | {"contexts": contexts}
    for section, entries in wanted.items():
        names = {entry["name"] for entry in entries}
        others = [entry for entry in config.get(section) or [] if entry.get("name") not in names]
        config[section] = others + entries
    config["current-context"] = ours["current-context"]
    _write(path, config)


def _namespace(entry: dict[str, Any]) -> dict[str, str]:
    context = entry.get("context")
    return {"namespace": context["namespace"]} if isinstance(context, dict) and context.get("namespace") else {}


def remove(path: Path, name: str, authority: bytes = b"") -> None:
    """Take the entries called `name` out again; a file that held nothing else is removed with its empty folder.

    With the certificate of an `authority` (PEM) only if the cluster of that name is that authority's.
    """
    if not path.exists():
        return
    config = load(path)
    if authority and base64.b64encode(authority).decode() not in _authorities(config, name):
        return
    for section in SECTIONS:
        config[section] = [entry for entry in config.get(section) or [] if entry.get("name") != name]
    if config.get("current-context") == name:
        config["current-context"] = ""
    if any(config[section] for section in SECTIONS):
        _write(path, config)
    else:
        path.unlink()
        remove_empty(path.parent, down_to=path.parent.parent)


def _authorities(config: dict[str, Any], name: str) -> list[str]:
    entries = [entry.get("cluster") for entry in config.get("clusters") or [] if entry.get("name") == name]
    return [each.get("certificate-authority-data", "") for each in entries if isinstance(each, dict)]


def load(path: Path) -> dict[str, Any]:
    """Read a kubeconfig; a missing or empty file is an empty one. Raises Failure for what is not a kubeconfig, and changes nothing."""
    try:
        content = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        content = None
    except yaml.YAMLError as error:
        raise Failure(f"{path} is not YAML: {error}", "repair it, or point KUBECONFIG at another file") from error
    if content is None:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if not isinstance(content, dict) or content.get("kind", "Config") != "Config":
        raise Failure(f"{path} is not a kubeconfig", "repair it, or point KUBECONFIG at another file")
    return content


def _write(path: Path, config: dict[str, Any]) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    write_file(path, yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False).encode(), sync=True, mode=mode)
