"""Restart rules that the API server refuses, in kube-apiserver's words."""

from __future__ import annotations

from typing import Any

import pytest

from minikube_raw.apiserver.resources import restartvalidation

RULE = {"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}}
NEVER = {"restartPolicy": "Never"}


@pytest.mark.parametrize(
    ("container", "refusals"),
    [
        pytest.param({}, [], id="nothing asked for"),
        pytest.param({**NEVER, "restartPolicyRules": [RULE, {**RULE, "action": "RestartAllContainers"}]}, [], id="both actions"),
        pytest.param(
            {"restartPolicyRules": [RULE]},
            ["c.restartPolicy: Required value: must specify restartPolicy when restart rules are used"],
            id="rules without a policy",
        ),
        pytest.param(
            {**NEVER, "restartPolicyRules": [{**RULE, "action": "No"}]},
            [
                'c.restartPolicyRules[0].action: Unsupported value: "No": supported values: "Restart", "RestartAllContainers"'
            ],
            id="another action",
        ),
        pytest.param(
            {**NEVER, "restartPolicyRules": [{**RULE, "exitCodes": {"operator": "Equals", "values": [3]}}]},
            ['c.restartPolicyRules[0].exitCodes.operator: Unsupported value: "Equals": supported values: "In", "NotIn"'],
            id="another operator",
        ),
        pytest.param(
            {**NEVER, "restartPolicyRules": [{"action": "Restart"}]},
            ["c.restartPolicyRules[0].exitCodes: Required value: must be specified"],
            id="a rule about nothing",
        ),
        pytest.param(
            {**NEVER, "restartPolicyRules": [RULE] * 21},
            ["c.restartPolicyRules: Too many: 21: must have at most 20 items"],
            id="too many rules",
        ),
    ],
)  # fmt: skip
def test_restart_rules(container: dict[str, Any], refusals: list[str]) -> None:
    assert [f"{each.field}: {each.message}" for each in restartvalidation.restarts(container, "c")] == refusals
