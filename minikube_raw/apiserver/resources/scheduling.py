"""Validation of what directs pods to nodes: selectors, affinity, tolerations, spread constraints (apis/core/validation, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api import name_rules
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources.strategy import Object

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_REQUIRED, _PREFERRED = (f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("required", "preferred"))


def node_selector(selector: dict[str, str], path: str) -> Iterator[Cause]:
    """Judge a map of labels that must be there."""
    for key, value in selector.items():
        yield from names.causes(path, key, name_rules.qualified_name(key))
        yield from names.causes(path, value, name_rules.label_value(value or ""))


def label_selector(selector: Object | None, path: str) -> Iterator[Cause]:
    """Judge a metav1.LabelSelector."""
    if selector is None:
        return
    for key, value in (selector.get("matchLabels") or {}).items():
        yield from names.causes(f"{path}.matchLabels", key, name_rules.qualified_name(key))
        yield from names.causes(f"{path}.matchLabels", value, name_rules.label_value(value or ""))
    for index, entry in enumerate(selector.get("matchExpressions") or ()):
        yield from _expression(entry or {}, f"{path}.matchExpressions[{index}]")


def _expression(entry: Object, path: str) -> Iterator[Cause]:
    operator, values = entry.get("operator", ""), entry.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            yield field.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            yield field.forbidden(
                f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            )
    else:
        yield field.invalid(f"{path}.operator", operator, "not a valid selector operator")
    key = entry.get("key", "")
    yield from names.causes(f"{path}.key", key, name_rules.qualified_name(key))
    for number, value in enumerate(values):
        yield from names.causes(f"{path}.values[{number}]", value, name_rules.label_value(value or ""))


def affinity(wanted: Object, path: str) -> Iterator[Cause]:
    """Judge node and pod affinity."""
    node = wanted.get("nodeAffinity") or {}
    if node.get(_REQUIRED) is not None:
        yield from node_terms(node[_REQUIRED], f"{path}.nodeAffinity.{_REQUIRED}.nodeSelectorTerms")
    for index, term in enumerate(node.get(_PREFERRED) or ()):
        at = f"{path}.nodeAffinity.{_PREFERRED}[{index}]"
        yield from _weight(term or {}, at)
        yield from _node_term((term or {}).get("preference") or {}, f"{at}.preference")
    for kind in ("podAffinity", "podAntiAffinity"):
        pod = wanted.get(kind) or {}
        for index, term in enumerate(pod.get(_REQUIRED) or ()):
            yield from _pod_term(term or {}, f"{path}.{kind}.{_REQUIRED}[{index}]")
        for index, term in enumerate(pod.get(_PREFERRED) or ()):
            at = f"{path}.{kind}.{_PREFERRED}[{index}]"
            yield from _weight(term or {}, at)
            yield from _pod_term((term or {}).get("podAffinityTerm") or {}, f"{at}.podAffinityTerm")


def _weight(term: Object, path: str) -> Iterator[Cause]:
    weight = term.get("weight", 0)
    if not 1 <= weight <= 100:
        yield field.invalid(f"{path}.weight", weight, "must be in the range 1-100")


def node_terms(selector: Object, path: str) -> Iterator[Cause]:
    """Judge a node selector's terms."""
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        yield field.required(path, "must have at least one node selector term")
    for index, term in enumerate(terms):
        yield from _node_term(term or {}, f"{path}[{index}]")


def _node_term(term: Object, path: str) -> Iterator[Cause]:
    for index, entry in enumerate(term.get("matchExpressions") or ()):
        at, entry = f"{path}.matchExpressions[{index}]", entry or {}
        if entry.get("operator") in ("Gt", "Lt"):
            if len(entry.get("values") or ()) != 1:
                yield field.required(f"{at}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
            yield from names.causes(f"{at}.key", entry.get("key", ""), name_rules.qualified_name(entry.get("key", "")))
        else:
            yield from _expression(entry, at)
    for index, entry in enumerate(term.get("matchFields") or ()):
        at, key = f"{path}.matchFields[{index}]", (entry or {}).get("key", "")
        if key != "metadata.name":
            yield field.invalid(f"{at}.key", key, "not a valid field selector key")


def _pod_term(term: Object, path: str) -> Iterator[Cause]:
    yield from label_selector(term.get("labelSelector"), f"{path}.labelSelector")
    yield from label_selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    key = term.get("topologyKey", "")
    if not key:
        yield field.required(f"{path}.topologyKey", "can not be empty")
    yield from names.causes(f"{path}.topologyKey", key, name_rules.qualified_name(key))


def tolerations(items: list[Object], path: str) -> Iterator[Cause]:
    """Judge tolerations."""
    for index, item in enumerate(items):
        yield from _toleration(item or {}, f"{path}[{index}]")


def _toleration(item: Object, path: str) -> Iterator[Cause]:
    key, operator, effect = item.get("key") or "", item.get("operator") or "", item.get("effect") or ""
    if key:
        yield from names.causes(f"{path}.key", key, name_rules.qualified_name(key))
    elif operator != "Exists":
        detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield field.invalid(f"{path}.operator", operator, detail)
    if item.get("tolerationSeconds") is not None and effect != "NoExecute":
        yield field.invalid(f"{path}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
    if operator in ("Equal", ""):
        yield from names.causes(
            f"{path}.operator", item.get("value") or "", name_rules.label_value(item.get("value") or "")
        )
    elif operator == "Exists":
        if item.get("value"):
            yield field.invalid(f"{path}.operator", item, "value must be empty when `operator` is 'Exists'")
    else:
        yield field.not_supported(f"{path}.operator", operator, ("Equal", "Exists"))
    if effect and effect not in EFFECTS:
        yield field.not_supported(f"{path}.effect", effect, EFFECTS)


def spread(constraints: list[Object], path: str) -> Iterator[Cause]:
    """Judge topology spread constraints."""
    seen = set()
    for index, constraint in enumerate(constraints):
        item, at = constraint or {}, f"{path}[{index}]"
        if item.get("maxSkew", 0) <= 0:
            yield field.invalid(f"{at}.maxSkew", item.get("maxSkew", 0), "must be greater than zero")
        if not item.get("topologyKey"):
            yield field.required(f"{at}.topologyKey", "can not be empty")
        when = item.get("whenUnsatisfiable", "")
        if when not in ("DoNotSchedule", "ScheduleAnyway"):
            yield field.not_supported(f"{at}.whenUnsatisfiable", when, ("DoNotSchedule", "ScheduleAnyway"))
        domains = item.get("minDomains")
        if domains is not None and domains <= 0:
            yield field.invalid(f"{at}.minDomains", domains, "must be greater than zero")
        elif domains is not None and when != "DoNotSchedule":
            detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"
            yield field.invalid(f"{at}.minDomains", domains, detail)
        pair = f"{{{item.get('topologyKey', '')}, {when}}}"
        if pair in seen:
            first = next(
                i
                for i, c in enumerate(constraints)
                if f"{{{(c or {}).get('topologyKey', '')}, {(c or {}).get('whenUnsatisfiable', '')}}}" == pair
            )
            yield field.duplicate(f"{path}[{first}].{{topologyKey, whenUnsatisfiable}}", pair)
        seen.add(pair)
        yield from label_selector(item.get("labelSelector"), f"{at}.labelSelector")


def merge_label_keys(pod: Object) -> None:
    """Turn matchLabelKeys and mismatchLabelKeys of a new pod into expressions with its own labels' values."""
    spec, labels = pod["spec"], pod["metadata"].get("labels") or {}
    terms = list(spec.get("topologySpreadConstraints") or ())
    for kind in ("podAffinity", "podAntiAffinity"):
        wanted = (spec.get("affinity") or {}).get(kind) or {}
        terms += wanted.get(_REQUIRED) or ()
        terms += [term["podAffinityTerm"] for term in wanted.get(_PREFERRED) or ()]
    for term in terms:
        for name, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            added = [
                {"key": key, "operator": operator, "values": [labels[key]]}
                for key in term.get(name) or ()
                if key in labels
            ]
            if added:
                selector = term.setdefault("labelSelector", {})
                selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), *added]
