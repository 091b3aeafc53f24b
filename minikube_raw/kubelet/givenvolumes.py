"""What stands beside a pod of a host without a master to meet its claims: claims, volumes, and where a claim's own data lies.

Light, since the command line reads manifests with it; `givenclaims` binds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from minikube_raw.api.storage import PersistentVolume, PersistentVolumeClaim
from minikube_raw.linux import filenames, removal

_TRASH = ".removed"
Json = dict[str, Any]


class Given(msgspec.Struct, frozen=True):
    """The claims (by name) and volumes that stand beside a pod."""

    claims: Mapping[str, PersistentVolumeClaim] = {}
    volumes: tuple[PersistentVolume, ...] = ()


def given(objects: Iterable[Json]) -> Given:
    """Plain objects as those a pod's claims are met from. Raises msgspec.ValidationError."""
    objects = list(objects)
    claims = [
        msgspec.convert(each, PersistentVolumeClaim) for each in objects if each["kind"] == "PersistentVolumeClaim"
    ]
    volumes = [msgspec.convert(each, PersistentVolume) for each in objects if each["kind"] == "PersistentVolume"]
    return Given({each.metadata.name: each for each in claims}, tuple(volumes))


def directory_name(namespace: str, claim: str) -> str:
    """Where the data of a claim lies below the node's volumes."""
    return filenames.of_object(namespace, claim)


def remove(root: Path, namespace: str, claim: str) -> None:
    """Delete a claim's own data; none is fine. Raises OSError."""
    removal.put_aside(str(root / directory_name(namespace, claim)), str(root / _TRASH))
    removal.empty_trash(str(root / _TRASH))
