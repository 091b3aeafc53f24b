"""metav1.Status as an exception: how every refusal of the API travels, in process and over the wire.

`StatusError` is raised where the refusal is known and becomes the response body at the server's border; clients turn
the body back into the same exception. The constructors word messages as apimachinery's pkg/api/errors does (v1.36).
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec


class Cause(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """metav1.StatusCause: `reason` is FieldValueRequired and the like, `field` a path: spec.containers[0].name."""

    reason: str = ""
    message: str = ""
    field: str = ""


class Details(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """metav1.StatusDetails. `kind` is the plural in most errors and the Kind in Invalid ones, as in Kubernetes."""

    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: list[Cause] = []
    retry_after_seconds: int = 0


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """metav1.Status on the wire; `status` is Success or Failure."""

    kind: str = ""
    apiVersion: str = ""  # noqa: N815
    metadata: dict[str, Any] | None = None
    status: str = ""
    message: str = ""
    reason: str = ""
    details: Details | None = None
    code: int = 0


class StatusError(Exception):
    """A request refused. Compare `code` and `reason`; `message` is for people."""

    def __init__(self, code: int, reason: str, message: str, details: Details | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        # What else the client is to be warned about, in Warning headers.
        self.warnings: Sequence[str] = ()

    def to_json(self) -> bytes:
        """Return the Status object as the server sends it."""
        return msgspec.json.encode(self._status())

    def to_dict(self) -> dict[str, Any]:
        """Return the Status object as plain data, for a watch's ERROR event or another encoding."""
        plain: dict[str, Any] = msgspec.to_builtins(self._status())
        return plain

    def _status(self) -> Status:
        return Status("Status", "v1", {}, "Failure", self.message, self.reason, self.details, self.code)


def from_json(body: bytes, code: int = 500) -> StatusError:
    """Read an error response. A body that is no Status (a proxy's page) becomes an error with the HTTP `code`."""
    try:
        status = msgspec.json.decode(body, type=Status)
    except msgspec.MsgspecError:
        status = Status()
    if status.kind != "Status":
        return StatusError(code, _REASONS.get(code, ""), body[:1024].decode(errors="replace").strip() or _phrase(code))
    return StatusError(status.code or code, status.reason, status.message, status.details)


def success(name: str, group: str, plural: str, uid: str) -> bytes:
    """Return the Status a finished deletion answers with."""
    return msgspec.json.encode(
        Status("Status", "v1", {}, "Success", details=Details(name=name, group=group, kind=plural, uid=uid))
    )


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return f"HTTP status {code}"


def resource_name(group: str, plural: str) -> str:
    """Return the resource as messages write it: `pods`, `deployments.apps`."""
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> StatusError:
    """Return 404 for an object that does not exist."""
    message = f'{resource_name(group, plural)} "{name}" not found'
    return StatusError(404, "NotFound", message, Details(name=name, group=group, kind=plural))


def no_such_resource() -> StatusError:
    """Return 404 for a path that names no served resource."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", Details())


def already_exists(group: str, plural: str, name: str, prefix: str = "") -> StatusError:
    """Return 409 for a create of a taken name; `prefix` such as "object is being deleted: " goes before."""
    message = f'{prefix}{resource_name(group, plural)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, Details(name=name, group=group, kind=plural))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(group: str, plural: str, name: str, text: str = MODIFIED) -> StatusError:
    """Return 409 for a write against a state that is no longer there."""
    message = f'Operation cannot be fulfilled on {resource_name(group, plural)} "{name}": {text}'
    return StatusError(409, "Conflict", message, Details(name=name, group=group, kind=plural))


def apply_conflict(causes: Sequence[Cause], message: str) -> StatusError:
    """Return 409 of server-side apply; each cause (FieldManagerConflict) names one field and who owns it."""
    return StatusError(409, "Conflict", message, Details(causes=list(causes)))


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> StatusError:
    """Return 422 with all causes at once; the message joins them as `field: message`, equal ones once."""
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{resource_name(group, kind)} "{name}" is invalid'
    if texts:
        message += f": {joined}"
    return StatusError(422, "Invalid", message, Details(name=name, group=group, kind=kind, causes=list(causes)))


def bad_request(message: str) -> StatusError:
    """Return 400: the request cannot be understood."""
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    """Return 401: nobody knows who is asking."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, plural: str, name: str, text: str) -> StatusError:
    """Return 403. With an empty name the message names the resource only, as authorization errors do."""
    resource = resource_name(group, plural)
    if not resource:
        return StatusError(403, "Forbidden", f"forbidden: {text}", Details())
    subject = f'{resource} "{name}"' if name else resource
    message = f"{subject} is forbidden: {text}"
    return StatusError(403, "Forbidden", message, Details(name=name, group=group, kind=plural))


def method_not_allowed() -> StatusError:
    """Return 405: the resource exists and does not do this."""
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, Details())


JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"


def not_acceptable(available: Sequence[str] = (JSON, YAML)) -> StatusError:
    """Return 406: the Accept header asks for none of `available`."""
    message = f"406: Not Acceptable\n\nAvailable representations: {', '.join(available)}"
    return StatusError(406, "NotAcceptable", message, Details())


def unsupported_media_type(accepted: Sequence[str] = (JSON, YAML)) -> StatusError:
    """Return 415: the body's Content-Type is none of `accepted`."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return StatusError(415, "UnsupportedMediaType", message)


def expired(message: str = "The resourceVersion for the provided list is too old.") -> StatusError:
    """Return 410: that history is compacted; list again."""
    return StatusError(410, "Expired", message)


def timeout(message: str, retry_after: int = 0) -> StatusError:
    """Return 504: the server gave up waiting; trying again may help after `retry_after` seconds."""
    return StatusError(504, "Timeout", f"Timeout: {message}", Details(retry_after_seconds=retry_after))


def too_large_resource_version(asked: int, current: int) -> StatusError:
    """Return 504 for a resourceVersion the store has not reached."""
    causes = [Cause("ResourceVersionTooLarge", "Too large resource version")]
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return StatusError(504, "Timeout", message, Details(causes=causes, retry_after_seconds=1))


def request_entity_too_large(text: str) -> StatusError:
    """Return 413; `text` says the limit: "limit is 3145728"."""
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: {text}")


def too_many_requests(message: str, *, causes: Sequence[Cause] = (), retry_after: int = 0) -> StatusError:
    """Return 429: allowed, but not at this moment."""
    return StatusError(429, "TooManyRequests", message, Details(causes=list(causes), retry_after_seconds=retry_after))


def internal_error(text: str) -> StatusError:
    """Return 500 for a failure of ours."""
    message = f"Internal error occurred: {text}"
    return StatusError(500, "InternalError", message, Details(causes=[Cause(message=text)]))


def service_unavailable(message: str) -> StatusError:
    """Return 503: something behind the server (store, kubelet) cannot be reached."""
    return StatusError(503, "ServiceUnavailable", message)
