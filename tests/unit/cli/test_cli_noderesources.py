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
    }
    assert noderesources.parse({})["eviction_hard"] == noderesources.SHARED_HOST


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("kube_reserved", "cpu", "--kube-reserved: 'cpu' has no '='"),
        ("eviction_hard", "memory.available=5%", "--eviction-hard: 'memory.available=5%' has no '<'"),
        ("eviction_hard", "memory<5%", "--eviction-hard: memory is not one of"),
        ("system_reserved", "memory=lots", "--system-reserved: memory: "),
    ],
)
def test_what_makes_no_sense_is_named_with_its_flag(flag: str, text: str, message: str) -> None:
    with pytest.raises(Failure) as refused:
        noderesources.parse({flag: text})
    assert message in str(refused.value)
