"""runAsNonRoot: whom an image may name as its user."""

from __future__ import annotations

from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.kubelet import env, preparation

ROOT = "container has runAsNonRoot and image will run as root"
UNKNOWN = "container has runAsNonRoot and image has non-numeric user"


def refusal(image_user: str, **security: Any) -> str:
    made = pod(containers=[{"name": "c", "image": "x", "securityContext": {"runAsNonRoot": True, **security}}])
    try:
        preparation._check_non_root(made, made.spec.containers[0], image_user)
    except env.ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("user", ["", "0", "00", "000000000000", "0:1000", ":1000"])
def test_root_by_any_number_is_refused(user: str) -> None:
    assert refusal(user).startswith(ROOT)


@pytest.mark.parametrize("user", ["root", "root:web", "web", "-1", "+0", "0x0", "\u0660", "\u0661\u0662", " 0", "1e3"])
def test_what_is_no_number_is_refused(user: str) -> None:
    assert refusal(user).startswith(UNKNOWN)


@pytest.mark.parametrize("user", ["1", "1000", "1000:0", "65534:web"])
def test_another_number_is_let_through(user: str) -> None:
    assert refusal(user) == ""


def test_what_the_pod_says_counts_more() -> None:
    assert refusal("root", runAsUser=1000) == ""
    assert refusal("1000", runAsUser=0).startswith("container's runAsUser breaks non-root policy")
