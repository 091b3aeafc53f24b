"""A request's body from bytes to a clean object of a kind, or a 400 in the API server's words.

Also returns what strict decoding objects to (unknown and repeated fields), since whether that is an error, a warning or
nothing is for the request's `fieldValidation` to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from minikube_raw.api import json_text, scheme, status, typed, yaml_text
from minikube_raw.api.schema import Form, Shape, Struct, struct
from minikube_raw.api.scheme import Kind

Object = dict[str, Any]

_SCHEME = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"
TYPE_META = r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
_SUMMARY = 30
# Beyond this many kube-apiserver stops counting, too.
_MAX_STRICT = 100


class Decoded(NamedTuple):
    """A clean object, and each objection of strict decoding: `unknown field "spec.foo"`."""

    obj: Object
    strict: tuple[str, ...] = ()


def decode(body: bytes, media: str, kind: Kind, *, definition: str = "") -> Decoded:
    """Decode a body of the media type that must be of `kind` (absent apiVersion and kind are filled in).

    `definition` names another schema than the kind's. Raises StatusError 400 (BadRequest).
    """
    try:
        value, repeated = _parse(body, media)
        _check_type_meta(value)
    except (json_text.JSONError, yaml_text.YAMLError) as error:
        where = "" if isinstance(error, yaml_text.YAMLError) else "couldn't get version/kind; json parse error: "
        text = f"the object provided is unrecognized (must be of type {kind.kind}): {where}{error} ({_summary(body)})"
        raise status.bad_request(text) from None
    value = dict(value or {})
    check_kind(value, kind)
    shape = struct(definition or kind.definition)
    try:
        notes: list[str] = []
        obj = typed.read(shape, value, notes)
    except typed.DecodeError:
        raise status.bad_request(f"{_cannot_handle(value, kind)}{_exact_error(shape, body, media)}") from None
    if media != status.YAML and json_text.may_repeat_keys(body, value):
        return Decoded(obj, tuple(objections(shape, body)))
    return Decoded(obj, (*repeated, *(unknown_fields(shape, value) if notes else ())))


def _parse(body: bytes, media: str) -> tuple[Any, list[str]]:
    if media == status.YAML:
        return yaml_text.decode(body)
    return json_text.decode(body), []


def _check_type_meta(value: Any) -> None:
    """Refuse what is no object, or whose apiVersion or kind is no string, as the decoder's first look does."""
    if value is None:
        return
    if type(value) is not dict:
        raise json_text.JSONError(f"json: cannot unmarshal {typed.kind_of(value)} into Go value of type {TYPE_META}")
    for name in ("apiVersion", "kind"):
        if type(value.get(name)) not in (str, type(None)):
            found = typed.kind_of(value[name])
            raise json_text.JSONError(f"json: cannot unmarshal {found} into Go struct field .{name} of type string")


def _summary(body: bytes) -> str:
    """Show the beginning of a body: as text when it may be JSON, as hexadecimal digits otherwise."""
    if not body:
        return "<empty>"
    begin = body[:_SUMMARY]
    text = begin.decode(errors="replace") if body.startswith(b"{") else begin.hex()
    return f"{text} ..." if len(body) > _SUMMARY else text


def check_kind(obj: Object, kind: Kind) -> None:
    """Fill apiVersion and kind in. Raises StatusError 400 for others."""
    version, name = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    if (version, name) != (kind.api_version, kind.kind):
        if scheme.by_api_version(version, name) is None:
            text = f'no kind "{name}" is registered for version "{version}" in scheme "{_SCHEME}"'
        else:
            _, short = scheme.split_api_version(version)
            internal = kind.group.partition(".")[0] or "core"
            text = f"converting ({short}.{name}) to ({internal}.{kind.kind}): unknown conversion"
        raise status.bad_request(_cannot_handle({"apiVersion": version, "kind": name}, kind) + text)
    obj["apiVersion"], obj["kind"] = version, name


def _cannot_handle(obj: Object, kind: Kind) -> str:
    version = scheme.split_api_version(obj["apiVersion"])[1]
    return f'{obj["kind"]} in version "{version}" cannot be handled as a {kind.kind}: '


def strict_error(decoded: Decoded, kind: Kind) -> status.StatusError:
    """Return the 400 that `fieldValidation=Strict` answers with."""
    found = ", ".join(decoded.strict)
    return status.bad_request(f"{_cannot_handle(decoded.obj, kind)}strict decoding error: {found}")


def _exact_error(shape: Struct, body: bytes, media: str) -> str:
    """Decode again with numbers as they were spelled, which the message repeats."""
    value = yaml_text.decode(body)[0] if media == status.YAML else _without_pairs(json_text.with_pairs(body))
    try:
        typed.read(shape, value)
    except typed.DecodeError as error:
        return str(error)
    raise AssertionError("the second decoding accepted what the first refused")


def _without_pairs(value: Any) -> Any:
    if isinstance(value, json_text.Pairs):
        return {key: _without_pairs(item) for key, item in value}
    return [_without_pairs(item) for item in value] if isinstance(value, list) else value


def objections(shape: Shape, body: bytes) -> list[str]:
    """Return unknown and repeated fields of well-formed JSON, in the order of the text."""
    return list(dict.fromkeys(_walk(shape, json_text.with_pairs(body), "")))[:_MAX_STRICT]


def unknown_fields(shape: Shape, value: Any) -> list[str]:
    """Return `unknown field "…"` for everything the type does not have, in the order of the value."""
    return list(_walk(shape, value, ""))[:_MAX_STRICT]


def _walk(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if shape.form is Form.LIST and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(shape.element, item, f"{path}[{index}]")
    elif isinstance(value, (dict, json_text.Pairs)) and shape.form in (Form.STRUCT, Form.MAP):
        yield from _walk_object(shape, value.items() if isinstance(value, dict) else value, path)


def _walk_object(shape: Shape, pairs: Any, path: str) -> Iterator[str]:
    seen = set()
    for key, item in pairs:
        here = f"{path}.{key}" if path else key
        if isinstance(shape, Struct) and key not in shape.fields:
            yield f'unknown field "{here}"'
            continue
        if key in seen:
            yield f'duplicate field "{here}"'
        seen.add(key)
        yield from _walk(shape.fields[key].shape if isinstance(shape, Struct) else shape.element, item, here)
