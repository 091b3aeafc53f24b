"""Request bodies: from JSON or YAML bytes to an object of the expected kind, refused in the API server's words."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import yaml

from minikube_raw.api import scheme, status
from minikube_raw.api.scheme import Kind
from minikube_raw.apiserver import negotiation
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.client.transport import Request

_SCHEME = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"


class Body(NamedTuple):
    """A decoded body and what is to be warned about."""

    obj: Object
    warnings: tuple[str, ...] = ()


def as_json(request: Request) -> bytes:
    """Return the body as JSON bytes, whatever encoding it came in. Raises 400, 415."""
    if not request.body:
        return b""
    if negotiation.content_type(request.content_type) == negotiation.YAML:
        return msgspec.json.encode(yaml.load(request.body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return request.body


def peek(request: Request) -> Object:
    """Return the body as plain data without judging it; empty when it is none."""
    try:
        found = msgspec.json.decode(as_json(request))
    except (msgspec.MsgspecError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def decode(kind: Kind, request: Request, validation: str) -> Body:
    """Decode a body that must be of `kind`. Raises 400, 415."""
    media = negotiation.content_type(request.content_type)
    if media not in (negotiation.JSON, negotiation.YAML):
        raise status.unsupported_media_type()
    try:
        obj: Any = msgspec.json.decode(as_json(request))
    except (msgspec.DecodeError, yaml.YAMLError, RecursionError) as error:
        text = f"the object provided is unrecognized (must be of type {kind.kind}): couldn't get version/kind; json parse error: {error}"
        raise status.bad_request(text) from None
    if not isinstance(obj, dict):
        raise status.bad_request(f"the object provided is unrecognized (must be of type {kind.kind})")
    check_kind(kind, obj)
    return Body(obj)


def check_kind(kind: Kind, obj: Object) -> None:
    """Fill apiVersion and kind in, or refuse others (400)."""
    version, name = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    if (version, name) != (kind.api_version, kind.kind):
        short = version.rpartition("/")[2]
        text = f'{name} in version "{short}" cannot be handled as a {kind.kind}: '
        if scheme.by_api_version(version, name) is None:
            text += f'no kind "{name}" is registered for version "{version}" in scheme "{_SCHEME}"'
        else:
            text += f"converting ({short}.{name}) to ({kind.group or 'core'}.{kind.kind}): unknown conversion"
        raise status.bad_request(text)
    obj["apiVersion"], obj["kind"] = version, name
