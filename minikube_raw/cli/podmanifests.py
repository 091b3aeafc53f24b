"""What `minikube-raw pod run -f` reads: pods with the objects they refer to, judged by the API server's own rules.

A document is decoded against the published schema, defaulted and validated before anything runs, so a wrong manifest is
refused in the words that a cluster would use. Nothing here talks to the agent.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from minikube_raw.api import decode, naming, status, yaml_text
from minikube_raw.apiserver import objects
from minikube_raw.apiserver.resources import STRATEGIES
from minikube_raw.apiserver.resources.strategy import Strategy
from minikube_raw.cli.errors import Failure
from minikube_raw.kubelet.manifests import OBJECT_KINDS
from minikube_raw.oci import plainroots

Json = dict[str, Any]
_SEPARATOR = re.compile(r"^---(?:[ \t].*)?\r?$", re.MULTILINE)


class Wish(NamedTuple):
    """Pods to run, each with the objects of its namespace that stand beside it."""

    pod: Json
    objects: tuple[Json, ...]


def read(filename: Path, namespace: str = "default") -> list[Wish]:
    """The pods of a file or of standard input (`-`). Raises Failure; everything is checked before anything runs."""
    documents = list(_documents(filename))
    for document in documents:
        _check_kind(filename, document)
    judged = [_judge(filename, document, namespace) for document in documents]
    pods = [each for each in judged if each["kind"] == "Pod"]
    if not pods:
        raise Failure(f"{filename} holds no pod", "give a manifest with `kind: Pod`")
    beside = [each for each in judged if each["kind"] != "Pod"]
    return [Wish(pod, tuple(each for each in beside if _namespace(each) in ("", _namespace(pod)))) for pod in pods]


def _documents(filename: Path) -> Iterator[Any]:
    """Every object of a file, read as kubectl reads YAML; lists are taken apart."""
    try:
        text = sys.stdin.read() if str(filename) == "-" else filename.read_text()
        decoded = [yaml_text.decode(part.encode()) for part in _SEPARATOR.split(text)]
    except OSError as error:
        raise Failure(
            f"{filename}: {error.strerror}", "name a manifest that can be read, or - for standard input"
        ) from error
    except (yaml_text.YAMLError, UnicodeDecodeError) as error:
        raise Failure(f"{filename} is not YAML: {' '.join(str(error).split())}", "check its indentation") from error
    for document, repeated in decoded:
        if repeated:
            raise Failure(f"{filename}: {repeated[0]}", "write it once")
        if isinstance(document, dict) and str(document.get("kind")) in ("List", "PodList"):
            yield from document.get("items") or ()
        elif document:
            yield document


def _check_kind(filename: Path, document: Any) -> None:
    kind = document.get("kind") if isinstance(document, dict) else type(document).__name__
    if kind not in ("Pod", *OBJECT_KINDS):
        cure = f"without a master pods are run, with {', '.join(OBJECT_KINDS)} beside them; see `minikube-raw up`"
        raise Failure(f"{filename}: {kind} is not a Pod", cure)


def _judge(filename: Path, document: Json, namespace: str) -> Json:
    """Decode, default and validate one document as the API server would. Raises Failure."""
    strategy = next(each for each in STRATEGIES if each.kind.kind == document["kind"])
    try:
        obj = _decoded(strategy, document)
        obj.pop("status", None)
        if strategy.kind.namespaced:
            obj["metadata"].setdefault("namespace", namespace)
        if not obj["metadata"].get("name") and obj["metadata"].get("generateName"):
            obj["metadata"]["name"] = naming.generate_name(obj["metadata"]["generateName"])
        strategy.default(obj)
        rules = (objects.validate_metadata(strategy, obj), strategy.validate(obj), strategy.validate_create(obj))
        if causes := [cause for rule in rules for cause in rule]:
            name = obj["metadata"].get("name", "")
            raise status.invalid(strategy.kind.group, strategy.kind.kind, name, causes)
    except status.StatusError as error:
        cure = f"see the {strategy.kind.kind} reference of Kubernetes for the field"
        raise Failure(f"{filename}: {error.message}", cure) from error
    if strategy.kind.kind == "Pod":
        _make_absolute(obj["spec"])
        _refuse_tokens(filename, obj)
        _refuse_class(filename, obj)
        _refuse_waiting(filename, obj)
    return obj


def _refuse_tokens(filename: Path, pod: Json) -> None:
    """Nobody issues tokens here, and a pod that waits for one would wait for ever. Raises Failure."""
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if "serviceAccountToken" in source:
                text = f"{filename}: volume {volume['name']} asks for a service-account token, which a master issues"
                raise Failure(text, "start one with `minikube-raw up`, or leave the token out")


def _refuse_class(filename: Path, pod: Json) -> None:
    """Who asks for another runtime may want its walls: ours in its place would be a silent "no". Raises Failure."""
    if name := pod["spec"].get("runtimeClassName"):
        text = f"{filename}: pod {pod['metadata']['name']} asks for RuntimeClass {name}, which a master would know"
        raise Failure(text, "start one with `minikube-raw up`, or leave runtimeClassName out")


def _refuse_waiting(filename: Path, pod: Json) -> None:
    """A scheduler would not give us this pod (yet). Raises Failure."""
    name, spec, here = pod["metadata"]["name"], pod["spec"], os.uname().nodename
    if gates := [each["name"] for each in spec.get("schedulingGates") or ()]:
        text = f"{filename}: pod {name} waits for {', '.join(gates)}, and nobody here would lift a scheduling gate"
        raise Failure(text, "leave schedulingGates out")
    if spec.get("nodeName") not in (None, "", here):
        raise Failure(
            f"{filename}: pod {name} is for node {spec['nodeName']}, and this is {here}", "leave nodeName out"
        )


def _make_absolute(spec: Json) -> None:
    """A path that names an image is meant from where the user stands; the agent stands elsewhere."""
    named = [(each, "image") for kind in ("initContainers", "containers") for each in spec.get(kind) or ()]
    named += [(each["image"], "reference") for each in spec.get("volumes") or () if each.get("image")]
    for where, key in named:
        scheme, colon, path = where[key].partition(":")
        if plainroots.is_plain(where[key]) and path.startswith(("/", "./", "../", "~/")):
            where[key] = f"{scheme}{colon}{Path(path).expanduser().absolute()}"


def _decoded(strategy: Strategy, document: Json) -> Json:
    decoded = decode.decode(msgspec.json.encode(document), status.JSON, strategy.kind)
    if decoded.strict:
        raise decode.strict_error(decoded, strategy.kind)
    decoded.obj.setdefault("metadata", {})
    return decoded.obj


def _namespace(obj: Json) -> str:
    """Of a PersistentVolume: ""."""
    return str(obj["metadata"].get("namespace", ""))
