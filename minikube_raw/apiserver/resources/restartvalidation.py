"""Validation of a container's own restart policy and rules (apis/core/validation, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources.strategy import Object

_POLICIES = ("Always", "Never", "OnFailure")
_ACTIONS = ("Restart", "RestartAllContainers")
_OPERATORS = ("In", "NotIn")
_MOST_RULES = 20


def restarts(container: Object, path: str) -> Iterator[Cause]:
    """Judge restartPolicy and restartPolicyRules."""
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or ()
    if policy is None and rules:
        yield field.required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used")
    elif policy is not None and policy not in _POLICIES:
        yield field.not_supported(f"{path}.restartPolicy", policy, _POLICIES)
    if len(rules) > _MOST_RULES:
        yield field.too_many(f"{path}.restartPolicyRules", len(rules), _MOST_RULES)
    for index, item in enumerate(rules):
        rule, at = item or {}, f"{path}.restartPolicyRules[{index}]"
        if rule.get("action") not in _ACTIONS:
            yield field.not_supported(f"{at}.action", rule.get("action") or "", _ACTIONS)
        codes = rule.get("exitCodes")
        if codes is None:
            yield field.required(f"{at}.exitCodes", "must be specified")
        elif codes.get("operator") not in _OPERATORS:
            yield field.not_supported(f"{at}.exitCodes.operator", codes.get("operator") or "", _OPERATORS)
