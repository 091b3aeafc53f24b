"""Field errors in Kubernetes' words: what a validation finds wrong, where, and which value (apimachinery, pkg/util/validation/field).

A validation is a generator of causes, so that all of them are reported at once and in order. Paths are strings such as
`spec.containers[0].ports[1].name`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from minikube_raw.api.status import Cause

Causes = Iterator[Cause]


def required(path: str, detail: str = "") -> Cause:
    """Report a field that must be there."""
    return Cause("FieldValueRequired", _text("Required value", detail), path)


def invalid(path: str, value: Any, detail: str) -> Cause:
    """Report a value that breaks a rule."""
    return Cause("FieldValueInvalid", _text(f"Invalid value: {show(value)}", detail), path)


def not_supported(path: str, value: Any, supported: Iterable[str]) -> Cause:
    """Report a value outside an enumeration; `supported` in the order to be shown."""
    allowed = ", ".join(show(text) for text in supported)
    return Cause("FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {allowed}", path)


def duplicate(path: str, value: Any) -> Cause:
    """Report the second use of a value that must be unique."""
    return Cause("FieldValueDuplicate", f"Duplicate value: {show(value)}", path)


def not_found(path: str, value: Any) -> Cause:
    """Report a reference to something that is not in the object."""
    return Cause("FieldValueNotFound", f"Not found: {show(value)}", path)


def forbidden(path: str, detail: str) -> Cause:
    """Report a field that must not be set, or not be changed."""
    return Cause("FieldValueForbidden", _text("Forbidden", detail), path)


def too_long(path: str, limit: int) -> Cause:
    """Report text or data over its limit in bytes."""
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", path)


def too_many(path: str, actual: int, limit: int) -> Cause:
    """Report a list over its limit in items."""
    return Cause("FieldValueTooMany", f"Too many: {actual}: must have at most {limit} items", path)


def type_invalid(path: str, value: Any, detail: str) -> Cause:
    """Report a value of the wrong type that decoding lets through."""
    return Cause("FieldValueTypeInvalid", _text(f"Invalid value: {show(value)}", detail), path)


def show(value: Any) -> str:
    """Write a value as messages show it: compact JSON, which is also Go's %q for ordinary strings."""
    return msgspec.json.encode(value).decode() if value is not None else "null"


def _text(begin: str, detail: str) -> str:
    return f"{begin}: {detail}" if detail else begin
