"""Objects walked by shape for server-side apply: which fields they have, how two differ, merged, and fields taken out.

The rules are structured-merge-diff's (v6): atomic values and scalars are leaves, maps and structs merge by key, lists by
their items' keys or values. An absent value is ABSENT; null is a value that is present and empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from minikube_raw.api import fieldset, go_text, gotypes
from minikube_raw.api.fieldset import FieldSet
from minikube_raw.api.schema import ZEROES, Form, Shape, Struct


class _Absent:
    """The type of ABSENT."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


class Repeated(list[Any]):
    """Items of a list that have the same key, which validation lets pass in some lists: they count as one leaf."""


class ShapeError(ValueError):
    """The object does not fit its type; the text names the path."""


def _is_leaf(shape: Shape) -> bool:
    return shape.atomic or shape.form not in (Form.STRUCT, Form.MAP, Form.LIST)


def child_shape(shape: Shape, key: str) -> Shape | None:
    """Return the shape of a map's or struct's entry, None for a field the struct does not have."""
    if isinstance(shape, Struct):
        field = shape.fields.get(key)
        return field.shape if field else None
    return shape.element


def element_of(shape: Shape, item: Any, index: int) -> str:
    """Return the path element that identifies a list's item. Raises ShapeError for an item without identity."""
    if shape.list_type == "set":
        if item is None or isinstance(item, (dict, list)):
            found = "an explicit null" if item is None else "a map type" if isinstance(item, dict) else "a list"
            raise ShapeError(f": element {index}: associative list without keys has an element that's {found}")
        return fieldset.value_of(item)
    if item is None:
        raise ShapeError(f": element {index}: associative list with keys may not have a null element")
    if not isinstance(item, dict):
        raise ShapeError(f": element {index}: associative list with keys may not have non-map elements")
    names = {key: item[key] if key in item else _default(shape.element, key) for key in shape.keys}
    told = {key: value for key, value in names.items() if value is not ABSENT}
    if not told:
        keys = " ".join(go_text.quoted(key) for key in shape.keys)
        text = f"omits all key fields [{keys}] (and doesn't have default values for any key fields)"
        raise ShapeError(f": element {index}: associative list with keys has an element that {text}")
    return fieldset.key_of(told)


def _default(shape: Shape, key: str) -> Any:
    """Return what a key is where an item leaves it out: the published default, or a required field's zero."""
    if key in gotypes.KEY_DEFAULTS:
        return gotypes.KEY_DEFAULTS[key]
    field = shape.fields.get(key) if isinstance(shape, Struct) else None
    if field is None or not (field.required or shape.go in gotypes.KEYED_BY_EMPTY_NAMES):
        return ABSENT
    return ZEROES[field.shape.form]


def _indexed(shape: Shape, items: list[Any]) -> dict[str, Any]:
    """Return a list's items by path element; several with one key are Repeated."""
    found: dict[str, Any] = {}
    for index, item in enumerate(items):
        element = element_of(shape, item, index)
        if element in found:
            before = found[element]
            item = Repeated([*before, item] if isinstance(before, Repeated) else [before, item])
        found[element] = item
    return found


# Fields ---------------------------------------------------------------------------------------------------------------


def fields_of(shape: Shape, value: Any) -> FieldSet:
    """Return the fields an object sets, as owned by who applies it."""
    return _node_of(shape, value) or {}


def _node_of(shape: Shape, value: Any) -> FieldSet | None:
    """Return the node of a value: a leaf is a member, a map or list only leads to its entries."""
    if _is_leaf(shape):
        return {}
    children: FieldSet = {}
    if isinstance(value, dict) and shape.form is not Form.LIST:
        for key, item in value.items():
            shape_below = child_shape(shape, key)
            below = _node_of(shape_below, item) if shape_below else {}
            _insert(children, f"f:{key}", below, item is None or item == {} or not isinstance(shape, Struct))
    elif isinstance(value, list):
        for element, item in _indexed(shape, value).items():
            below = None if isinstance(item, Repeated) else _node_of(shape.element, item)
            _insert(children, element, below, True)
    return children or None


def _insert(children: FieldSet, key: str, below: FieldSet | None, member: bool) -> None:
    inner = {} if below is None else {name: child for name, child in below.items() if name != "."}
    made = fieldset.node(member or (below is not None and fieldset.is_member(below)), inner)
    if made is not None:
        children[key] = made


def with_named_members(shape: Shape, fields: FieldSet) -> FieldSet:
    """Return the set with each struct field that leads to members made a member, too (EnsureNamedFieldsAreMembers)."""
    result: FieldSet = {}
    for key, below in fields.items():
        if key == "." or not below:
            result[key] = below
            continue
        inner_shape = child_shape(shape, key[2:]) if key.startswith("f:") and not _is_leaf(shape) else shape.item
        inner = with_named_members(inner_shape, below) if inner_shape else below
        named = isinstance(shape, Struct) and key[2:] in shape.fields
        result[key] = {".": {}, **inner} if named else inner
    return result


# Differences ----------------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """Fields that were added or changed, and fields that are gone."""

    changed: FieldSet
    removed: FieldSet


def compare(shape: Shape, old: Any, new: Any) -> Difference:
    """Return what differs between two objects of a type. Equal parts are skipped without being walked."""
    changed, removed = _compare(shape, old, new)
    return Difference(changed or {}, removed or {})


def _compare(shape: Shape, old: Any, new: Any) -> tuple[FieldSet | None, FieldSet | None]:
    if old is not ABSENT and new is not ABSENT and type(old) is type(new) and old == new:
        return None, None
    if type(old) is Repeated or type(new) is Repeated:
        return _compare_repeated(shape, old, new)
    if _is_leaf(shape) or (_nothing(old) and _nothing(new)):
        return (None, {}) if new is ABSENT else ({}, None)
    changed: FieldSet = {}
    removed: FieldSet = {}
    for key, item_shape, before, after in _pairs(shape, old, new):
        plus, minus = _compare(item_shape, before, after)
        if plus is not None:
            changed[key] = plus
        if minus is not None:
            removed[key] = minus
    return fieldset.node(old is ABSENT, changed), fieldset.node(new is ABSENT, removed)


def _compare_repeated(shape: Shape, old: Any, new: Any) -> tuple[FieldSet | None, FieldSet | None]:
    """Compare where a key occurs several times before, after or both; such items are nobody's in parts."""
    if new is ABSENT:
        return None, {}
    if type(new) is not Repeated:
        return _compare(shape, ABSENT, new)
    gone = None if old is ABSENT or type(old) is Repeated else _compare(shape, old, ABSENT)[1]
    return {}, gone


def _nothing(value: Any) -> bool:
    return value is ABSENT or not value


def _pairs(shape: Shape, old: Any, new: Any) -> Iterator[tuple[str, Shape, Any, Any]]:
    """Yield the entries of two maps or lists side by side."""
    if shape.form is Form.LIST:
        left, right = (_indexed(shape, value) if isinstance(value, list) else {} for value in (old, new))
        for element in {**left, **right}:
            yield element, shape.element, left.get(element, ABSENT), right.get(element, ABSENT)
        return
    left, right = (value if isinstance(value, dict) else {} for value in (old, new))
    for key in {**left, **right}:
        shape_below = child_shape(shape, key)
        if shape_below is not None:
            yield f"f:{key}", shape_below, left.get(key, ABSENT), right.get(key, ABSENT)


# Merging --------------------------------------------------------------------------------------------------------------


def merge(shape: Shape, live: Any, config: Any) -> Any:
    """Return `live` with what `config` says; leaves are replaced, null does not empty a map or list."""
    if config is ABSENT:
        return live
    if live is ABSENT or _is_leaf(shape) or (not live and not config):
        return config
    if shape.form is Form.LIST:
        return _merge_lists(shape, live or [], config or [])
    merged = dict(live or {})
    for key, item in (config or {}).items():
        shape_below = child_shape(shape, key)
        merged[key] = merge(shape_below, merged.get(key, ABSENT), item) if shape_below else item
    return merged


def _merge_lists(shape: Shape, live: list[Any], config: list[Any]) -> list[Any]:
    """Merge two lists: the order of `config` holds among its items, the others of `live` keep their places between."""
    left = [element_of(shape, item, index) for index, item in enumerate(live)]
    left_items, right_items = _indexed(shape, live), _indexed(shape, config)
    right = [element_of(shape, item, index) for index, item in enumerate(config)]
    shared = iter([element for element in right if element in left_items])
    next_shared = next(shared, None)
    merged, done = [], set()
    at_left = at_right = 0
    while at_left < len(left) or at_right < len(right):
        mine = left[at_left] if at_left < len(left) else None
        theirs = right[at_right] if at_right < len(right) else None
        if mine is not None and mine != theirs:
            if mine not in right_items:
                merged.append(live[at_left])
                at_left += 1
                continue
            if theirs is not None and next_shared not in (None, mine):
                at_left += 1  # its turn comes where the configuration has it
                continue
        if mine is not None and (mine == theirs or mine in done):
            at_left += 1
        if theirs is not None:
            before = left_items.get(theirs, ABSENT)
            merged.append(merge(shape.element, ABSENT if type(before) is Repeated else before, right_items[theirs]))
            done.add(theirs)
            at_right += 1
            if theirs in (next_shared, mine):
                next_shared = next(shared, None)
    return merged


def remove(shape: Shape, value: Any, fields: FieldSet) -> Any:
    """Return a value without the members of a set; a map or list that loses everything becomes null."""
    if not fields or _is_leaf(shape) or not value:
        return value
    if shape.form is Form.LIST:
        items = []
        for index, item in enumerate(value):
            element = element_of(shape, item, index)
            if not fieldset.has(fields, element):
                items.append(remove(shape.element, item, fieldset.descend(fields, element)))
        return items or None
    kept = {}
    for key, item in value.items():
        element, shape_below = f"f:{key}", child_shape(shape, key)
        if not fieldset.has(fields, element):
            kept[key] = remove(shape_below, item, fieldset.descend(fields, element)) if shape_below else item
    return kept or None


# Judging --------------------------------------------------------------------------------------------------------------

_SCALARS: dict[Form, tuple[type | tuple[type, ...], str]] = {
    Form.STRING: (str, "string"),
    Form.TIME: (str, "string"),
    Form.MICRO_TIME: (str, "string"),
    Form.BYTES: (str, "string"),
    Form.INTEGER: ((int, float), "numeric (int or float)"),
    Form.NUMBER: ((int, float), "numeric (int or float)"),
    Form.BOOLEAN: (bool, "boolean"),
}


def judge(shape: Shape, value: Any, path: str = "") -> Iterator[str]:
    """Yield what keeps a configuration from being applied, in structured-merge-diff's words."""
    if value is None or shape.form in (Form.ANY, Form.QUANTITY, Form.INT_OR_STRING):
        return
    if shape.form is Form.LIST:
        yield from _judge_list(shape, value, path)
    elif shape.form in (Form.STRUCT, Form.MAP):
        if not isinstance(value, dict):
            yield f"{path}: expected map, got {_shown(value)}"
            return
        for key, item in value.items():
            shape_below = child_shape(shape, key)
            if shape_below is None:
                yield f"{path}.{key}: field not declared in schema"
            else:
                yield from judge(shape_below, item, f"{path}.{key}")
    else:
        wanted, name = _SCALARS[shape.form]
        if not isinstance(value, wanted) or (isinstance(value, bool) and shape.form is not Form.BOOLEAN):
            yield f"{path}: expected {name}, got {_shown(value)}"


def _judge_list(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: expected list, got {_shown(value)}"
        return
    seen = set()
    for index, item in enumerate(value):
        element = f"i:{index}"
        if not shape.atomic:
            try:
                element = element_of(shape, item, index)
            except ShapeError as error:
                yield f"{path}{error}"
                continue
            if element in seen:
                yield f"{path}: duplicate entries for key {fieldset.show(element)}"
            seen.add(element)
        yield from judge(shape.element, item, path + fieldset.show(element))


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"&{{{go_text.value(value)}}}"
    return (
        f"&value.valueUnstructured{{Value:{go_text.quoted(value) if isinstance(value, str) else go_text.value(value)}}}"
    )
