"""What a handler answers, before a transport puts it on a wire: bytes with a media type, warnings, and how to say errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

from minikube_raw.api import protobuf, status
from minikube_raw.apiserver import negotiation
from minikube_raw.apiserver.negotiation import Representation
from minikube_raw.client.transport import Response

TEXT = "text/plain; charset=utf-8"
_MAX_WARNINGS = 4096


class PlainNotFound(Exception):
    """The path belongs to no API at all: answered with Go's own 404, which is no Status."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer."""

    code: int
    body: bytes
    content_type: str = negotiation.JSON
    headers: Mapping[str, str] = {}
    warnings: Sequence[str] = ()

    def response(self) -> Response:
        """Return the transport's form; several warnings share one header, as RFC 9110 allows."""
        headers = {**self.headers, "Cache-Control": self.headers.get("Cache-Control", "no-cache, private")}
        if self.warnings:
            headers["Warning"] = ", ".join(warning_header(text) for text in self.warnings)
        return Response(self.code, self.body, self.content_type, headers)


def warning_header(text: str) -> str:
    """Return a Warning header's value (RFC 7234, 5.5), cut to a size that fits a header."""
    quoted = text[:_MAX_WARNINGS].replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'299 - "{quoted}"'


def encoded(value: bytes, wanted: Representation, code: int = 200, warnings: Sequence[str] = ()) -> Answer:
    """Answer JSON bytes in the wanted media type."""
    if wanted.media == negotiation.PROTOBUF:
        return Answer(code, protobuf.encode(msgspec.json.decode(value)), negotiation.PROTOBUF, warnings=warnings)
    if wanted.media == negotiation.YAML:
        return Answer(code, to_yaml(msgspec.json.decode(value)), negotiation.YAML, warnings=warnings)
    if wanted.pretty:
        value = msgspec.json.format(value, indent=2) + b"\n"
    return Answer(code, value, warnings=warnings)


def document(obj: Any, wanted: Representation = Representation(), code: int = 200) -> Answer:  # noqa: B008 (immutable)
    """Answer plain data."""
    return encoded(msgspec.json.encode(obj), wanted, code)


def text(body: str, code: int = 200) -> Answer:
    """Answer plain text."""
    return Answer(code, body.encode(), TEXT)


def failure(error: status.StatusError, accept: str) -> Answer:
    """Answer a refusal as a Status, in YAML for those who accept nothing else."""
    try:
        wanted = negotiation.negotiate(accept)
    except status.StatusError:
        wanted = Representation()
    headers = {}
    if error.details is not None and error.details.retry_after_seconds:
        headers["Retry-After"] = str(error.details.retry_after_seconds)
    answer = encoded(error.to_json(), Representation(wanted.media), error.code)
    return msgspec.structs.replace(answer, headers=headers, warnings=error.warnings)


def to_yaml(obj: Any) -> bytes:
    """Write YAML as Kubernetes does: block style, keys sorted."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    written: bytes = yaml.dump(obj, Dumper=dumper, default_flow_style=False, allow_unicode=True, encoding="utf-8")
    return written
