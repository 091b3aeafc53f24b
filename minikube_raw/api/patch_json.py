"""JSON Patch (RFC 6902) with the habits of the library kube-apiserver uses (evanphx/json-patch v4).

The habits: replacing a missing key adds it, a copy of nothing is null, an index may count from the end, and what stands
before a path's first slash is ignored. Clients rely on none of them, but a server that differs is noticed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from minikube_raw.api import json_text, status

MAX_OPERATIONS = 10_000
_FIELDS = frozenset({"op", "from", "path", "value"})


class _Refused(Exception):
    """An operation does not fit the object."""


def parse(body: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a patch; also returns what strict decoding objects to. Raises StatusError 400, 413."""
    try:
        patch = json_text.decode(body)
        if patch is not None and not isinstance(patch, list):
            raise json_text.JSONError(
                f"json: cannot unmarshal {_go_kind(patch)} into Go value of type []handlers.jsonPatchOp"
            )
        for operation in patch or []:
            if operation is not None and not isinstance(operation, dict):
                raise json_text.JSONError(
                    f"json: cannot unmarshal {_go_kind(operation)} into Go value of type handlers.jsonPatchOp"
                )
    except json_text.JSONError as error:
        raise status.bad_request(f"error decoding patch: {error}") from None
    operations = [operation or {} for operation in patch or []]
    if len(operations) > MAX_OPERATIONS:
        text = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise status.request_entity_too_large(text)
    return operations, _objections(body, patch)


def _go_kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "bool"}
    return names.get(type(value), "number")


def _objections(body: bytes, patch: Any) -> list[str]:
    if not patch:
        return []
    found = []
    for index, pairs in enumerate(json_text.with_pairs(body)):
        seen = set()
        for key, _ in pairs or ():
            if key not in _FIELDS:
                found.append(f'json patch unknown field "[{index}].{key}"')
            elif key in seen:
                found.append(f'json patch duplicate field "[{index}].{key}"')
            seen.add(key)
    return found


def apply(document: Any, operations: list[dict[str, Any]]) -> Any:
    """Return the patched copy. Raises StatusError 422 when an operation does not fit, in no more words than Kubernetes."""
    holder = {"": copy.deepcopy(document)}
    try:
        for operation in operations:
            _OPERATIONS[_text(operation, "op")](holder, operation)
    except (_Refused, KeyError):
        text = "the server rejected our request due to an error in our request"
        raise status.StatusError(422, "Invalid", text, status.Details()) from None
    return holder[""]


def _text(operation: dict[str, Any], name: str) -> str:
    value = operation.get(name)
    if not isinstance(value, str):
        raise _Refused
    return value


def _find(holder: dict[str, Any], path: str) -> tuple[Any, str]:
    """Return the container a path leads to and the last key in it."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]
    if len(parts) < 2:
        raise _Refused
    container = holder[""]
    for part in parts[1:-1]:
        container = _get(container, part)
    if not isinstance(container, (dict, list)):
        raise _Refused
    return container, parts[-1]


def _get(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        return container.get(key)
    if isinstance(container, list):
        return container[_index(container, key)]
    raise _Refused


def _index(items: list[Any], key: str, size: int | None = None) -> int:
    """Return the place a key names among `size` places (the list's), counted from the end when negative."""
    size = len(items) if size is None else size
    try:
        index = int(key)
    except ValueError:
        raise _Refused from None
    if not -size <= index < size:
        raise _Refused
    return index + size if index < 0 else index


def _put(container: Any, key: str, value: Any) -> None:
    if isinstance(container, dict):
        container[key] = value
    elif key == "-":
        container.append(value)
    else:
        container.insert(_index(container, key, len(container) + 1), value)


def _take(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        if key not in container:
            raise _Refused
        return container.pop(key)
    return container.pop(_index(container, key))


def _add(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    container, key = _find(holder, _text(operation, "path"))
    _put(container, key, operation.get("value"))


def _remove(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    _take(*_find(holder, _text(operation, "path")))


def _replace(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    path, value = _text(operation, "path"), operation.get("value")
    if path == "":
        holder[""] = value
        return
    container, key = _find(holder, path)
    if isinstance(container, list):
        container[_index(container, key)] = value
    else:
        container[key] = value


def _move(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    value = _take(*_find(holder, _text(operation, "from")))
    container, key = _find(holder, _text(operation, "path"))
    _put(container, key, value)


def _copy(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    value = copy.deepcopy(_get(*_find(holder, _text(operation, "from"))))
    container, key = _find(holder, _text(operation, "path"))
    _put(container, key, value)


def _test(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    path = _text(operation, "path")
    found = holder[""] if path == "" else _get(*_find(holder, path))
    if found != operation.get("value") or isinstance(found, bool) != isinstance(operation.get("value"), bool):
        raise _Refused


_OPERATIONS: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
