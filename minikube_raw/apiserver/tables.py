"""Tables and metadata-only forms of objects, for `kubectl get` and whoever wants no more than names and labels."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from minikube_raw.api import status

from .negotiation import Representation
from .resources.strategy import Object, Strategy

INCLUDE = ("", "Metadata", "Object", "None")


def include_object(value: str) -> str:
    """Check the includeObject parameter. Raises 400."""
    if value not in INCLUDE:
        text = f"includeObject: Invalid value: \"{value}\": must be 'Metadata', 'Object', 'None', or empty"
        raise status.bad_request(f"Unable to convert to Table as requested: {text}")
    return value


def columns(strategy: Strategy) -> list[dict[str, Any]]:
    """Return columnDefinitions."""
    return [
        {"name": c.name, "type": c.type, "format": c.format, "description": c.description, "priority": c.priority}
        for c in strategy.columns
    ]


def row(strategy: Strategy, obj: Object, include: str, version: str, now: datetime) -> dict[str, Any]:
    """Return an object's row."""
    made: dict[str, Any] = {"cells": strategy.cells(obj, now)}
    if strategy.row_conditions is not None and (conditions := strategy.row_conditions(obj)):
        made["conditions"] = conditions
    if include == "None":
        made["object"] = None
    else:
        made["object"] = obj if include == "Object" else partial(obj, version)
    return made


def partial(obj: Object, version: str = "v1") -> Object:
    """Return the PartialObjectMetadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}


def table(
    strategy: Strategy, objects: list[Object], metadata: Object, include: str, wanted: Representation, now: datetime
) -> Object:
    """Return the Table of a list (or of one object, with its resourceVersion as the list's)."""
    rows = [row(strategy, obj, include, wanted.version, now) for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{wanted.version}",
        "metadata": metadata,
        "columnDefinitions": columns(strategy),
        "rows": rows,
    }


def single(strategy: Strategy, value: bytes, include: str, wanted: Representation, now: datetime) -> Object:
    """Return one object in the wanted shape. Raises 406 when a list's shape is asked for."""
    obj = msgspec.json.decode(value)
    if wanted.shape == "Table":
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return table(strategy, [obj], metadata, include, wanted, now)
    if wanted.shape == "PartialObjectMetadata":
        return partial(obj, wanted.version)
    text = f"you requested {wanted.shape}, but the requested object is not a list (*core.{strategy.kind.kind})"
    raise status.StatusError(406, "NotAcceptable", text, status.Details())


def collection(
    strategy: Strategy, values: list[bytes], metadata: Object, include: str, wanted: Representation, now: datetime
) -> Object:
    """Return a list in the wanted shape. Raises 406 when an object's shape is asked for."""
    objects = [msgspec.json.decode(value) for value in values]
    if wanted.shape == "Table":
        return table(strategy, objects, metadata, include, wanted, now)
    if wanted.shape == "PartialObjectMetadataList":
        items = [partial(obj, wanted.version) for obj in objects]
        api_version = f"meta.k8s.io/{wanted.version}"
        return {"kind": "PartialObjectMetadataList", "apiVersion": api_version, "metadata": metadata, "items": items}
    text = f"you requested {wanted.shape}, but the requested object is a list (*core.{strategy.kind.kind}List)"
    raise status.StatusError(406, "NotAcceptable", text, status.Details())
