"""node.k8s.io: RuntimeClasses, which name a handler of the node's runtime and what it costs (apis/node/validation, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api import ages, name_rules, scheme
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import amounts, podspec, scheduling
from minikube_raw.apiserver.resources.strategy import AGE_COLUMN, NAME_COLUMN, Column, Object, Strategy


def _default(runtime_class: Object) -> None:
    runtime_class.setdefault("handler", "")
    fixed = (runtime_class.get("overhead") or {}).get("podFixed") or {}
    for name, amount in fixed.items():
        fixed[name] = podspec.canonical(amount, milli=name == "cpu")


def _validate(runtime_class: Object) -> Iterator[Cause]:
    handler = runtime_class["handler"]
    yield from names.causes("handler", handler, name_rules.dns_label(handler))
    fixed = (runtime_class.get("overhead") or {}).get("podFixed") or {}
    yield from amounts.resource_list(fixed, "overhead.podFixed")
    placement = runtime_class.get("scheduling") or {}
    yield from scheduling.node_selector(placement.get("nodeSelector") or {}, "scheduling.nodeSelector")
    yield from scheduling.tolerations(placement.get("tolerations") or [], "scheduling.tolerations")


def _validate_update(new: Object, old: Object) -> Iterator[Cause]:
    if new["handler"] != old["handler"]:
        yield field.invalid("handler", new["handler"], "field is immutable")


RUNTIME_CLASS = Strategy(
    kind=scheme.RUNTIME_CLASS,
    default=_default,
    validate=_validate,
    validate_update=_validate_update,
    columns=(NAME_COLUMN, Column("Handler"), AGE_COLUMN),
    cells=lambda each, now: [
        each["metadata"]["name"],
        each["handler"],
        ages.age(each["metadata"].get("creationTimestamp"), now),
    ],
)
STRATEGIES = (RUNTIME_CLASS,)
