"""The list of Kubernetes' conformance tests for nodes names tests that exist, and leaves none out."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "conformance/node"
NAMES: dict[str, dict[str, list[str]]] = yaml.safe_load((FOLDER / "conformance_names.yaml").read_text())
# How many conformance tests each part of Kubernetes 1.36's suite has that are a node's.
SIZES = {
    "sig-node": {
        "Pods": 11, "Container Runtime": 5, "Kubelet": 5, "Probing container": 10, "Variable Expansion": 8,
        "Downward API": 5, "Security Context": 6, "Containers": 4, "InitContainer": 4, "KubeletManagedEtcHosts": 1,
        "Container Lifecycle Hook": 4, "PreStop": 1, "ConfigMap": 4, "Secrets": 4, "Sysctls": 2, "Ephemeral Containers": 2,
    },
    "sig-storage": {
        "ConfigMap": 11, "Secrets": 9, "Downward API volume": 11, "EmptyDir volumes": 15, "EmptyDir wrapper volumes": 2,
        "Projected combined": 1, "Projected configMap": 9, "Projected downwardAPI": 11, "Projected secret": 7, "Subpath": 5,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """The node ids of tests/conformance/node, without the folder."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER.parents[2])
    return {line.removeprefix("tests/conformance/node/") for line in done.stdout.splitlines() if "::" in line}


@pytest.mark.parametrize("sig", SIZES)
def test_the_list_is_complete(sig: str) -> None:
    parts = sorted(SIZES[sig], key=len, reverse=True)  # the longest first: one is the other's beginning
    found = Counter(next(part for part in parts if name.startswith(f"{part} ")) for name in NAMES[sig])
    assert found == SIZES[sig]


@pytest.mark.parametrize("sig", SIZES)
def test_every_name_has_tests_that_exist(collected: set[str], sig: str) -> None:
    missing = {name: [test for test in tests if test not in collected] for name, tests in NAMES[sig].items()}
    assert {name: tests for name, tests in missing.items() if tests or not NAMES[sig][name]} == {}
