"""What `pod start` waits for."""

from __future__ import annotations

from typing import Any

import pytest

from minikube_raw.cli.podagent import _has_started

SINCE = 1767225610.7  # 2026-01-01T00:00:10.7Z


def pod(state: dict[str, Any], policy: str = "Always") -> dict[str, Any]:
    statuses = [{"name": "a", "state": {"running": {}}}, {"name": "b", "state": state}]
    return {"spec": {"restartPolicy": policy}, "status": {"phase": "Running", "containerStatuses": statuses}}


def ended(at: str, code: int = 0, reason: str = "Completed") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": f"2026-01-01T00:00:{at}Z"}}


@pytest.mark.parametrize(
    ("state", "policy", "started"),
    [
        pytest.param({"running": {}}, "Always", True, id="it runs"),
        pytest.param(ended("09"), "Always", False, id="it ended before, and will be started again"),
        pytest.param(ended("10"), "Always", False, id="in the same second, maybe before"),
        pytest.param(ended("11"), "Always", True, id="it has been started and ended"),
        pytest.param(ended("09"), "OnFailure", True, id="it ended well and stays as it is"),
        pytest.param(ended("09", 3, "Error"), "OnFailure", False, id="it failed and will be started again"),
        pytest.param(ended("11", 137, "ContainerStatusUnknown"), "Always", False, id="nobody saw it end"),
        pytest.param({"waiting": {"reason": "CrashLoopBackOff"}}, "Always", True, id="it was started and waits"),
    ],
)
def test_a_pod_has_started_when_each_container_that_is_to_has(
    state: dict[str, Any], policy: str, started: bool
) -> None:
    assert _has_started(pod(state, policy), SINCE) is started
