"""Manifests as they are kept on a node without a master: a pod and the objects that were given beside it, in one file.

The objects belong to that pod alone and go with it, so nobody has to say when a ConfigMap is not needed any more. Read by
the standalone agent, written by the command line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from minikube_raw.api.core import ConfigMap, Pod, Secret
from minikube_raw.kubelet import env, givenvolumes, pods
from minikube_raw.linux import filenames
from minikube_raw.linux.durability import write_file

OBJECT_KINDS = ("ConfigMap", "Secret", "PersistentVolumeClaim", "PersistentVolume")
_IDENTITY = ("name", "namespace", "uid")
SUFFIX = ".yaml"
STOPPED = "minikube-raw.io/stopped"
Json = dict[str, Any]


class Manifest(msgspec.Struct, frozen=True):
    """A pod and what it may refer to."""

    pod: Pod
    objects: env.Referred = env.Referred()
    volumes: givenvolumes.Given = givenvolumes.Given()


class GivenObjects:
    """The objects of all manifests of a node, each pod's own (a ReferredObjects)."""

    def __init__(self) -> None:
        self._given: dict[str, env.Referred] = {}

    def give(self, uid: str, objects: env.Referred) -> bool:
        """Take what stands beside a pod; True when that has changed since the pod got it."""
        changed = self._given.get(uid, objects) != objects
        self._given[uid] = objects
        return changed

    async def of(self, pod: Pod) -> env.Referred:
        """See ReferredObjects."""
        return self._given.get(pod.metadata.uid, env.Referred())

    def release(self, uid: str) -> None:
        """See ReferredObjects."""
        self._given.pop(uid, None)


def file_name(namespace: str, name: str) -> str:
    """The file of a pod's manifest: namespace_name.yaml, shortened when a file could not be named so."""
    return filenames.of_object(namespace, name, beside=len(SUFFIX)) + SUFFIX


def write(path: Path, pod: Json, objects: Iterable[Json] = ()) -> None:
    """Write a manifest so that a reader sees the old one or the new one. Raises OSError."""
    text = yaml.dump_all([pod, *objects], Dumper=yaml.CSafeDumper, sort_keys=False)
    write_file(path, text.encode(), sync=True)


def documents(path: Path) -> tuple[Json, list[Json]]:
    """A manifest as plain data: the pod and the objects beside it. Raises OSError, ValueError, yaml.YAMLError."""
    pod, *objects = [*yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader)] or [None]
    meta = pod.get("metadata") if isinstance(pod, dict) else None
    if not isinstance(meta, dict) or not all(isinstance(meta.get(each), str) and meta[each] for each in _IDENTITY):
        raise ValueError("its first document is no pod with a name, a namespace and a uid")
    if path.name != file_name(meta["namespace"], meta["name"]):
        raise ValueError(f"it is not named after its pod, {meta['namespace']}/{meta['name']}")
    return pod, objects


def read(path: Path) -> Manifest:
    """A manifest as the agent acts on it. Raises OSError, ValueError, yaml.YAMLError."""
    document, objects = documents(path)
    pod = pods.from_manifest(document)
    if STOPPED in pod.metadata.annotations:
        meta = msgspec.structs.replace(pod.metadata, deletion_timestamp=pod.metadata.annotations[STOPPED])
        pod = msgspec.structs.replace(pod, metadata=meta)
    return Manifest(pod, referred(objects), givenvolumes.given(objects))


def referred(objects: Iterable[Json]) -> env.Referred:
    """Plain objects as those a pod refers to, by kind and name. Raises msgspec.ValidationError."""
    config_maps, secrets = dict[str, ConfigMap](), dict[str, Secret]()
    for each in objects:
        if each["kind"] == "ConfigMap":
            config_maps[each["metadata"]["name"]] = msgspec.convert(each, ConfigMap)
        elif each["kind"] == "Secret":
            secrets[each["metadata"]["name"]] = msgspec.convert(each, Secret)
    return env.Referred(config_maps=config_maps, secrets=secrets)
