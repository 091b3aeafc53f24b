"""Sets of fields as FieldsV1 writes them, and the algebra of server-side apply on them (structured-merge-diff, fieldpath).

A set is the decoded FieldsV1 itself: nested dictionaries whose keys are path elements (`f:name`, `k:{"name":"c"}`, `v:"x"`).
A node is a member of the set when it is empty or has the entry "."; otherwise it only leads to members. Sets are never
changed in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

FieldSet = dict[str, Any]
_HERE = "."


def is_member(node: FieldSet) -> bool:
    """Whether the node itself is in the set, and not only something below it."""
    return not node or _HERE in node


def _children(node: FieldSet) -> FieldSet:
    return {key: child for key, child in node.items() if key != _HERE}


def node(member: bool, children: FieldSet) -> FieldSet | None:
    """Make a node; None for one that is neither member nor leads to one."""
    if not children:
        return {} if member else None
    return {_HERE: {}, **children} if member else children


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Return what is in either."""
    if not left or not right:
        return left or right
    result = dict(left)
    for key, other in right.items():
        mine = result.get(key)
        if mine is None or key == _HERE:
            result[key] = other
        else:
            below = union(_children(mine), _children(other))
            result[key] = node(is_member(mine) or is_member(other), below)
    return result


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """Return what is in `left` and not in `right`; members below a member of `right` stay."""
    result = {}
    for key, mine in left.items():
        other = right.get(key)
        if other is None:
            result[key] = mine
        elif key != _HERE:
            below = difference(_children(mine), _children(other))
            kept = node(is_member(mine) and not is_member(other), below)
            if kept is not None:
                result[key] = kept
    return result


def without(left: FieldSet, right: FieldSet) -> FieldSet:
    """Return `left` without the members of `right` and everything below them (SMD's RecursiveDifference)."""
    result = {}
    for key, mine in left.items():
        other = right.get(key)
        if other is None:
            result[key] = mine
        elif key != _HERE and not is_member(other):
            kept = node(is_member(mine), without(_children(mine), other))
            if kept is not None:
                result[key] = kept
    return result


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """Return what is in both."""
    result = {}
    for key, mine in left.items():
        other = right.get(key)
        if other is None or key == _HERE:
            continue
        kept = node(is_member(mine) and is_member(other), intersection(_children(mine), _children(other)))
        if kept is not None:
            result[key] = kept
    return result


def descend(fields: FieldSet, key: str) -> FieldSet:
    """Return the part of a set below a path element, without that element itself."""
    return _children(fields.get(key, {}))


def has(fields: FieldSet, key: str) -> bool:
    """Whether the path element itself is in the set."""
    return key in fields and is_member(fields[key])


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """Yield every member as people read it: .spec.containers[name="c"].image. As in SMD, a level's members go first."""
    keys = _sorted(key for key in fields if key != _HERE)
    yield from (prefix + show(key) for key in keys if is_member(fields[key]))
    for key in keys:
        yield from paths(fields[key], prefix + show(key))


def ordered(fields: FieldSet) -> FieldSet:
    """Return the set with its entries in the order Kubernetes writes them."""
    return {key: ordered(fields[key]) if fields[key] else {} for key in _sorted(fields)}


def _sorted(keys: Iterable[str]) -> list[str]:
    """Sort by text: `.`, names, keys, values; the latter two by what they say, as port 80 goes before port 443."""
    found = sorted(keys)
    if len(found) > 1 and found[-1][0] in "kvi":
        found.sort(key=_said)
    return found


def _said(key: str) -> tuple[int, Any]:
    rank = ".fkvi".index(key[0])
    if rank < 2:
        return rank, key
    told = json.loads(key[2:])
    said = sorted(told.items()) if isinstance(told, dict) else [("", told)]
    return rank, [(name, isinstance(value, str), value) for name, value in said]


_ELEMENT = re.compile(r"f:|v:(?=.)|k:(?=\{)|i:-?\d+$", re.DOTALL)


def parse(value: Any) -> FieldSet:
    """Check FieldsV1 a client sent and return it in our spelling. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("expected a map")
    return ordered({_spelled(key): {} if key == _HERE else parse(below) for key, below in value.items()})


def _spelled(key: str) -> str:
    if key == _HERE or key.startswith("f:"):
        return key
    if not _ELEMENT.match(key):
        raise ValueError(f"unknown path element: {key}")
    told = json.loads(key[2:])
    return key_of(told) if key.startswith("k:") else key[:2] + _compact(told)


def show(key: str) -> str:
    """Write a path element as people read it."""
    kind, _, text = key.partition(":")
    if kind == "f":
        return f".{text}"
    if kind == "k":
        return "[" + ",".join(f"{name}={_compact(value)}" for name, value in json.loads(text).items()) + "]"
    return f"[={text}]" if kind == "v" else f"[{text}]"


def key_of(names: dict[str, Any]) -> str:
    """Return the path element of a list's item that these fields identify."""
    return "k:" + _compact(dict(sorted(names.items())))


def value_of(value: Any) -> str:
    """Return the path element of an item of a set."""
    return "v:" + _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
