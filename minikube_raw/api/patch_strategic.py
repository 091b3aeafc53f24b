"""Strategic merge patch: a merge that knows which lists are maps in disguise (apimachinery, util/strategicpatch).

Merge keys and strategies come from the published schemas. Directives: `$patch` (replace, delete, merge), `$retainKeys`,
`$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD`. Errors are 500 where Kubernetes forgot to say 400.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minikube_raw.api import go_text, json_text, status, typed
from minikube_raw.api.schema import Form, Shape, Struct

_PATCH, _RETAIN = "$patch", "$retainKeys"
_DELETE_FROM, _SET_ORDER = "$deleteFromPrimitiveList/", "$setElementOrder/"
Map = dict[str, Any]


class _Plan(NamedTuple):
    """How a field merges: its shape, and for a list whether items merge and by which key."""

    shape: Shape | None
    strategies: frozenset[str] = frozenset()
    merge_key: str = ""


def parse(body: bytes) -> Map:
    """Read a patch, which must be an object. Raises StatusError 400."""
    try:
        patch = json_text.decode(body)
        if patch is not None and not isinstance(patch, dict):
            found = typed.kind_of(patch)
            raise json_text.JSONError(f"json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
    except json_text.JSONError as error:
        raise status.bad_request(str(error)) from None
    return patch or {}


def apply(target: Map, patch: Map, shape: Struct) -> Map:
    """Return the merged object, which shares what stays the same with `target`. Raises StatusError."""
    return _merge_map(target, patch, shape)


def _refuse(text: str) -> status.StatusError:
    return status.StatusError(500, "", text)


def _bad_format(text: str) -> status.StatusError:
    return status.bad_request(text)


def _plan(shape: Shape | None, key: str) -> _Plan:
    if isinstance(shape, Struct):
        field = shape.fields.get(key)
        return _Plan(field.shape, field.strategies, field.merge_key) if field else _Plan(None)
    if shape is not None and shape.form is Form.MAP:
        return _Plan(shape.item)
    return _Plan(None)


def _merge_map(original: Map, patch: Map, shape: Shape | None) -> Map:
    if _PATCH in patch:
        return _directed(original, patch, shape)
    original, patch = dict(original), dict(patch)
    _retain_keys(original, patch)
    _merge_ordered(original, patch, shape)
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            _delete_from(original, key.removeprefix(_DELETE_FROM), value)
        elif value is None:
            original.pop(key, None)
        else:
            original[key] = _merge(original.get(key), value, _plan(shape, key))
    return original


def _directed(original: Map, patch: Map, shape: Shape | None) -> Map:
    directive = patch[_PATCH]
    rest = {key: value for key, value in patch.items() if key != _PATCH}
    if directive == "replace":
        return rest
    if directive == "delete":
        return {}
    if directive == "merge":
        return _merge_map(original, rest, shape)
    raise _refuse(f"unknown patch type: {go_text.value(directive)} in map: {go_text.value(patch)}")


def _retain_keys(original: Map, patch: Map) -> None:
    if _RETAIN not in patch:
        return
    retained = patch.pop(_RETAIN)
    if not isinstance(retained, list) or any(
        key not in retained for key, value in patch.items() if value is not None and not key.startswith("$")
    ):
        raise _bad_format("invalid patch format of retainKeys")
    for key in [key for key in original if key not in retained]:
        del original[key]


def _merge(original: Any, patch: Any, plan: _Plan) -> Any:
    """Merge a field's value; values of different types, or none before, take the patch's without its directives."""
    if isinstance(original, dict) and isinstance(patch, dict):
        return patch if "replace" in plan.strategies else _merge_map(original, patch, plan.shape)
    if isinstance(original, list) and isinstance(patch, list) and "merge" in plan.strategies:
        return _merge_list(original, patch, plan)
    return _without_directives(patch)


def _without_directives(value: Any) -> Any:
    """Return what a patch adds where nothing is to merge with: no directives, no items that only delete, no nulls."""
    if isinstance(value, dict):
        if value.get(_PATCH) == "delete":
            return {}
        kept = {key: item for key, item in value.items() if not key.startswith("$") and item is not None}
        return {key: _without_directives(item) for key, item in kept.items()}
    if isinstance(value, list):
        items = [item for item in value if not (isinstance(item, dict) and _PATCH in item and item[_PATCH] != "merge")]
        return [_without_directives(item) for item in items]
    return value


# Lists ----------------------------------------------------------------------------------------------------------------


def _delete_from(original: Map, key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise _refuse(f"invalid {_DELETE_FROM}{key}: {go_text.value(values)}")
    if isinstance(original.get(key), list):
        original[key] = [item for item in original[key] if item not in values]


def _merge_list(original: list[Any], patch: list[Any], plan: _Plan) -> list[Any]:
    if not any(isinstance(item, dict) for item in (*original[:1], *patch[:1])):
        merged = list(original) + [item for item in patch if item not in original]
        return _ordered(_unique(merged), patch, original, "")
    key = plan.merge_key
    original, patch = _apply_special_items(original, patch, key)
    merged = _merge_items(original, patch, plan)
    return _ordered(merged, patch, original, key)


def _unique(items: list[Any]) -> list[Any]:
    return [item for index, item in enumerate(items) if item not in items[:index]]


def _key_of(item: Any, key: str) -> Any:
    if not isinstance(item, dict):
        raise _refuse(f"expected a map in the list, got {go_text.value(item)}")
    if key not in item:
        raise _refuse(f"map: {go_text.value(item)} does not contain declared merge key: {key}")
    return item[key]


def _apply_special_items(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Obey the items of a patch that carry `$patch`; return both lists without what they took away."""
    plain, replace = [], False
    for item in patch:
        directive = item.get(_PATCH) if isinstance(item, dict) else None
        if directive is None:
            plain.append(item)
        elif directive == "delete":
            gone = _key_of(item, key)
            original = [kept for kept in original if not (isinstance(kept, dict) and kept.get(key) == gone)]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise _refuse("merging a list item is not yet supported")
        else:
            raise _refuse(f"unknown patch type: {go_text.value(directive)} in map: {go_text.value(item)}")
    return ([] if replace else original), plain


def _merge_items(original: list[Any], patch: list[Any], plan: _Plan) -> list[Any]:
    merged = list(original)
    item_shape = plan.shape.item if plan.shape is not None else None
    for item in patch:
        wanted = _key_of(item, plan.merge_key)
        places = [i for i, kept in enumerate(merged) if isinstance(kept, dict) and kept.get(plan.merge_key) == wanted]
        if places:
            merged[places[0]] = _merge_map(merged[places[0]], item, item_shape)
        else:
            merged.append(_without_directives(item))
    return merged


def _merge_ordered(original: Map, patch: Map, shape: Shape | None) -> None:
    """Obey `$setElementOrder/FIELD` and merge the fields it speaks of."""
    for directive in [key for key in patch if key.startswith(_SET_ORDER)]:
        order, name = patch.pop(directive), directive.removeprefix(_SET_ORDER)
        if not isinstance(order, list):
            raise _refuse(f"invalid {directive}: {go_text.value(order)}")
        plan, added = _plan(shape, name), patch.get(name)
        if isinstance(added, list):
            _check_order(added, order, plan.merge_key)
        before = original.get(name)
        if isinstance(before, list):
            merged = _merge(before, added, plan) if isinstance(added, list) else before
        elif isinstance(added, list):
            merged, before = _without_directives(added), []
        else:
            continue
        original[name] = _ordered(merged, order, before, plan.merge_key)
        patch.pop(name, None)


def _identity(item: Any, key: str) -> Any:
    return item.get(key) if key and isinstance(item, dict) else item


def _check_order(items: list[Any], order: list[Any], key: str) -> None:
    """Refuse a list whose items are not in the order the directive lists them."""
    places = iter(_identity(item, key) for item in order)
    plain = [item for item in items if not (isinstance(item, dict) and _PATCH in item)]
    if not all(any(_identity(item, key) == place for place in places) for item in plain):
        listed = f"{go_text.value(items)}\n doesn't match $setElementOrder list:\n{go_text.value(order)}\n"
        raise _refuse(f"The order in patch list:\n{listed}")


def _ordered(merged: list[Any], order: list[Any], before: list[Any], key: str) -> list[Any]:
    """Sort a merged list: what the patch names in its order, the server's other items where they stood among them."""
    wanted = [_identity(item, key) for item in order]
    stood = [_identity(item, key) for item in before]
    named = sorted(
        (item for item in merged if _identity(item, key) in wanted), key=lambda i: wanted.index(_identity(i, key))
    )
    others = [item for item in merged if _identity(item, key) not in wanted]
    others.sort(key=lambda item: stood.index(_identity(item, key)) if _identity(item, key) in stood else len(stood))
    return _woven(others, named, stood, key)


def _woven(others: list[Any], named: list[Any], stood: list[Any], key: str) -> list[Any]:
    """Merge two sorted lists; an item of the server goes first only where it stood before the named one already."""
    result = []
    while others and named:
        left, right = _identity(others[0], key), _identity(named[0], key)
        first = left in stood and right in stood and stood.index(left) < stood.index(right)
        result.append((others if first else named).pop(0))
    return result + others + named
