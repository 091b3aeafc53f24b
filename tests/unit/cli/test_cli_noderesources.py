"""Reservations and thresholds as `up` takes them."""

from __future__ import annotations

import pytest

from minikube_raw.cli import noderesources
from minikube_raw.cli.errors import Failure


def test_flags_become_the_kubelets_options_and_replace_the_defaults() -> None:
    parsed = noderesources.parse(
        {"system_reserved": "cpu=100m, memory=1Gi", "eviction_hard": "memory.available<5%", "eviction_soft": None}
    )
    assert parsed == {
        "system_reserved": {"cpu": "100m", "memory": "1Gi"},
        "eviction_hard": {"memory.available": "5%"},
        "image_gc_high_threshold_percent": 100,
        "image_gc_low_threshold_percent": 80,
        "image_minimum_gc_age": 120.0,
        "eviction_pressure_transition_period": 300.0,
        "cpu_manager_policy": "none",
        "reserved_cpus": "",
        "memory_swap_behavior": "NoSwap",
        "shutdown_grace_period": 0.0,
        "shutdown_grace_period_critical_pods": 0.0,
        "shutdown_grace_period_by_pod_priority": {},
        "cpu_manager_policy_options": {},
        "memory_manager_policy": "None",
        "reserved_memory": [],
        "topology_manager_policy": "none",
        "topology_manager_scope": "container",
        "topology_manager_policy_options": {},
        "memory_qos": False,
        "memory_reservation_policy": "None",
    }
    assert noderesources.parse({})["eviction_hard"] == noderesources.SHARED_HOST


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("kube_reserved", "cpu", "--kube-reserved: 'cpu' has no '='"),
        ("eviction_hard", "memory.available=5%", "--eviction-hard: 'memory.available=5%' has no '<'"),
        ("eviction_hard", "memory<5%", "--eviction-hard: memory is not one of"),
        ("system_reserved", "memory=lots", "--system-reserved: memory: "),
        ("minimum_image_ttl_duration", "soon", "--minimum-image-ttl-duration: invalid duration 'soon'"),
        ("cpu_manager_policy", "static", "requires systemreserved.cpu + kubereserved.cpu to be greater than zero"),
        (
            "cpu_manager_policy_options",
            "full-pcpus-only=true,distribute-cpus-across-cores=true",
            "full-pcpus-only and distribute-cpus-across-cores can not be used at the same time",
        ),
        ("reserved_cpus", "1-x", "invalid list of CPUs '1-x'"),
        ("image_gc_high_threshold", 80, "--image-gc-low-threshold 80 is not below --image-gc-high-threshold 80"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_flag(flag: str, text: str | int, message: str) -> None:
    with pytest.raises(Failure) as refused:
        noderesources.parse({flag: text})
    assert message in str(refused.value)


def test_what_is_said_of_shutdowns_reaches_the_kubelet_and_contradictions_are_refused() -> None:
    given = noderesources.parse({"shutdown_grace_period": "1m30s", "shutdown_grace_period_critical_pods": "10s"})
    assert (given["shutdown_grace_period"], given["shutdown_grace_period_critical_pods"]) == (90.0, 10.0)
    listed = noderesources.parse({"shutdown_grace_period_by_pod_priority": "0=20s,1000=1m"})
    assert listed["shutdown_grace_period_by_pod_priority"] == {"0": "20s", "1000": "1m"}
    for wrong in ({"shutdown_grace_period_critical_pods": "10s"}, {"shutdown_grace_period_by_pod_priority": "high=1s"}):
        with pytest.raises(Failure):
            noderesources.parse(dict(wrong))
