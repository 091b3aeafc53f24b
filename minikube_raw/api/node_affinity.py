"""Node affinity of a pod, read once per pod: the node selector, required terms and preferred terms as tests on a node.

Terms are alternatives, the expressions inside one term must all hold, and a term without any matches no node
(k8s.io/component-helpers/scheduling/corev1/nodeaffinity).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from minikube_raw.api import selectors
from minikube_raw.api.selectors import EVERYTHING, Selector

_REQUIRED, _PREFERRED = (f"{which}DuringSchedulingIgnoredDuringExecution" for which in ("required", "preferred"))


class Term(NamedTuple):
    """A node selector term: expressions over labels and over fields (metadata.name is the only one there is)."""

    labels: Selector
    fields: Selector

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a node of that name with those labels is meant."""
        if self.labels.everything and self.fields.everything:
            return False
        return self.labels.matches(labels) and self.fields.matches({"metadata.name": name})


class NodeAffinity(NamedTuple):
    """Where a pod may run and where it would like to. `required` None: anywhere."""

    node_selector: Selector = EVERYTHING
    required: tuple[Term, ...] | None = None
    preferred: tuple[tuple[int, Term], ...] = ()

    def allows(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether node selector and required terms let the pod run there."""
        if not self.node_selector.matches(labels):
            return False
        return self.required is None or any(term.matches(name, labels) for term in self.required)

    def preference(self, name: str, labels: Mapping[str, str]) -> int:
        """Return the sum of the weights of all preferred terms that match."""
        return sum(weight for weight, term in self.preferred if term.matches(name, labels))

    def names(self) -> frozenset[str] | None:
        """Return the only nodes that every required term names by metadata.name; None when a term leaves it open."""
        if self.required is None:
            return None
        named = [term.fields.exact("metadata.name") for term in self.required]
        return None if None in named or not named else frozenset(name for name in named if name)


def node_affinity(node_selector: Mapping[str, str], affinity: Mapping[str, Any] | None) -> NodeAffinity:
    """Read spec.nodeSelector and spec.affinity.nodeAffinity. Raises SelectorError for an unknown operator."""
    rules = (affinity or {}).get("nodeAffinity") or {}
    required = rules.get(_REQUIRED)
    preferred = rules.get(_PREFERRED) or ()
    return NodeAffinity(
        selectors.from_labels(node_selector) if node_selector else EVERYTHING,
        node_terms(required) if required else None,
        tuple((entry["weight"], _term(entry.get("preference") or {})) for entry in preferred),
    )


def node_terms(selector: Mapping[str, Any]) -> tuple[Term, ...]:
    """Read a NodeSelector's terms, as PersistentVolumes carry them; empty for no selector. Raises SelectorError."""
    return tuple(_term(term) for term in selector.get("nodeSelectorTerms") or ())


def _term(term: Mapping[str, Any]) -> Term:
    return Term(_selector(term.get("matchExpressions") or ()), _selector(term.get("matchFields") or ()))


def _selector(expressions: Any) -> Selector:
    return Selector(
        tuple(
            selectors.expression(entry["key"], entry["operator"], tuple(entry.get("values") or ()))
            for entry in expressions
        )
    )
