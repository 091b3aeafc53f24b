"""Resources of a pod as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from served_api import CORE, Api, pod


def asking(resources: dict[str, Any], *containers: dict[str, Any]) -> dict[str, Any]:
    listed = [{"name": f"c{n}", "image": "i", "resources": each} for n, each in enumerate(containers or ({},))]
    return pod("p", resources=resources, containers=listed)


@pytest.mark.parametrize(
    ("given", "containers", "requests", "qos"),
    [
        pytest.param({"limits": {"cpu": "1", "memory": "1Gi"}}, [{}], {"cpu": "1", "memory": "1Gi"}, "Guaranteed", id="limits"),
        pytest.param(
            {"limits": {"cpu": "1"}},
            [{"requests": {"cpu": "100m"}}, {"requests": {"cpu": "200m", "memory": "1Mi"}}],
            {"cpu": "300m", "memory": "1Mi"},
            "Burstable",
            id="what the containers ask for together",
        ),
        pytest.param({"requests": {"cpu": "500m"}}, [{}], {"cpu": "500m"}, "Burstable", id="its own"),
    ],
)  # fmt: skip
async def test_requests_are_its_own_else_its_containers_else_its_limits(
    api: Api, given: dict[str, Any], containers: list[dict[str, Any]], requests: dict[str, str], qos: str
) -> None:
    made = await api.create(CORE + "pods", asking(given, *containers))
    assert made["spec"]["resources"]["requests"] == requests
    assert made["status"]["qosClass"] == qos


@pytest.mark.parametrize(
    ("given", "container", "where", "message"),
    [
        pytest.param(
            {"limits": {"ephemeral-storage": "1Gi"}},
            {},
            "spec.resources.limits[ephemeral-storage]",
            'Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory"',
            id="unsupported",
        ),
        pytest.param(
            {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
            {},
            "spec.resources.requests",
            'Invalid value: "2": must be less than or equal to cpu limit of 1',
            id="request beyond limit",
        ),
        pytest.param(
            {"requests": {"cpu": "100m"}},
            {"requests": {"cpu": "200m"}},
            "spec.resources.requests[cpu]",
            'Invalid value: "100m": must be greater than or equal to aggregate container requests of 200m',
            id="containers ask for more",
        ),
        pytest.param(
            {"limits": {"cpu": "100m"}},
            {"requests": {"cpu": "50m"}, "limits": {"cpu": "200m"}},
            "spec.containers[0].resources.limits[cpu]",
            'Invalid value: "200m": must be less than or equal to pod limits of 100m',
            id="a container may have more",
        ),
    ],
)
async def test_what_contradicts_itself_is_refused(
    api: Api, given: dict[str, Any], container: dict[str, Any], where: str, message: str
) -> None:
    refused = await api.create(CORE + "pods", asking(given, container), 422)
    causes = {each["field"]: each["message"] for each in refused["details"]["causes"]}
    assert causes[where] == message
