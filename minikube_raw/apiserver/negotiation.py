"""Which representation an Accept header asks for: JSON, YAML or protobuf, and the object itself, a Table, or metadata only.

Rules and refusals are apiserver's (endpoints/handlers/negotiation): clauses by quality, then in order; an unknown `as`
in every clause is refused, and `*/*` means JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from minikube_raw.api import status

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
_MEDIA = (JSON, YAML, PROTOBUF)
_WATCH_MEDIA = (*_MEDIA, f"{JSON};stream=watch", f"{PROTOBUF};stream=watch")
_SHAPES = {
    "Table": ("v1", "v1beta1"),
    "PartialObjectMetadata": ("v1", "v1beta1"),
    "PartialObjectMetadataList": ("v1", "v1beta1"),
}


class Clause(NamedTuple):
    """One clause of an Accept header."""

    media: str
    parameters: Mapping[str, str]
    quality: float


class Representation(NamedTuple):
    """What to answer with. `shape` is empty for the object itself, else Table or PartialObjectMetadata(List)."""

    media: str = JSON
    shape: str = ""
    version: str = "v1"
    pretty: bool = False


@lru_cache(256)
def clauses(accept: str) -> tuple[Clause, ...]:
    """Split an Accept header, best clause first."""
    found = []
    for text in accept.split(","):
        media, *rest = (part.strip() for part in text.split(";"))
        if not media:
            continue
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        found.append(Clause(media, parameters, _quality(parameters.pop("q", "1"))))
    found.sort(key=lambda clause: -clause.quality)
    return tuple(found)


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


@lru_cache(256)
def negotiate(accept: str, *, watchable: bool = False) -> Representation:
    """Return the representation for an object or a list. Raises 406 when nothing served is acceptable."""
    wanted = clauses(accept)
    if not wanted:
        return Representation()
    media_known = False
    for clause in wanted:
        media = JSON if clause.media == "*/*" else clause.media
        if media not in _MEDIA:
            continue
        media_known = True
        shape = clause.parameters.get("as", "")
        version = clause.parameters.get("v", "")
        pretty = clause.parameters.get("pretty", "0") == "1"
        if not shape:
            return Representation(media, pretty=pretty)
        if shape == "Table" and media == PROTOBUF:
            continue
        if version in _SHAPES.get(shape, ()) and clause.parameters.get("g") == "meta.k8s.io":
            return Representation(media, shape, version, pretty)
    if media_known:
        message = f"only the following media types are accepted: {', '.join(_MEDIA)}"
        raise status.StatusError(406, "NotAcceptable", message)
    raise status.not_acceptable(_WATCH_MEDIA if watchable else _MEDIA)


def content_type(header: str) -> str:
    """Return a body's media type without parameters; an absent header means JSON."""
    return header.split(";", 1)[0].strip().lower() if header else JSON
