"""Request bodies by media type: JSON, YAML and protobuf to a clean object of the expected kind, with what is to be warned about."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from minikube_raw.api import decode as decoding
from minikube_raw.api import json_text, protobuf, status, yaml_text
from minikube_raw.api.scheme import Kind
from minikube_raw.apiserver import negotiation
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.client.transport import Request

_ACCEPTED = (negotiation.JSON, negotiation.YAML, negotiation.PROTOBUF)


class Body(NamedTuple):
    """A decoded body and what is to be warned about."""

    obj: Object
    warnings: tuple[str, ...] = ()


def decode(kind: Kind, request: Request, validation: str) -> Body:
    """Decode a body that must be of `kind`; `validation` is the request's fieldValidation. Raises 400, 415."""
    body, media = request.body, negotiation.content_type(request.content_type)
    if media not in _ACCEPTED:
        raise status.unsupported_media_type(_ACCEPTED)
    if media == negotiation.PROTOBUF:
        body, media = _from_protobuf(body, kind), negotiation.JSON
    return judged(decoding.decode(body, media, kind), kind, validation)


def judged(decoded: decoding.Decoded, kind: Kind, validation: str) -> Body:
    """Let fieldValidation decide about unknown and repeated fields: refuse (400), warn or ignore."""
    if decoded.strict and validation == "Strict":
        raise decoding.strict_error(decoded, kind)
    return Body(decoded.obj, decoded.strict if validation == "Warn" else ())


def _from_protobuf(body: bytes, kind: Kind) -> bytes:
    try:
        return msgspec.json.encode(protobuf.decode(body, kind.api_version, kind.kind))
    except (ValueError, KeyError) as error:
        shown = body[:30].hex() + (" ..." if len(body) > 30 else "")
        text = f"the object provided is unrecognized (must be of type {kind.kind}): {error.args[0]} ({shown})"
        raise status.bad_request(text) from None


def plain(request: Request) -> Any:
    """Return a body without a kind of its own (options, patches) as plain data, None for no body. Raises 400, 415."""
    media = negotiation.content_type(request.content_type)
    if not request.body:
        return None
    try:
        if media == negotiation.YAML:
            return yaml_text.decode(request.body)[0]
        if media == negotiation.PROTOBUF:
            return protobuf.decode(request.body)
        return json_text.decode(request.body)
    except (json_text.JSONError, yaml_text.YAMLError, ValueError, KeyError) as error:
        raise status.bad_request(f"couldn't get version/kind; json parse error: {error}") from None


def peek(request: Request) -> Object:
    """Return a body as plain data without judging it; empty when it is none."""
    try:
        found = plain(request)
    except status.StatusError:
        return {}
    return found if isinstance(found, dict) else {}
