"""Tests that pass on the host's cgroups pass where v2 is all there is, systemd owns it, and pods' limits are v2's files."""

from __future__ import annotations

import re

import pytest

from tests.lab import image
from tests.lab.machine import REPOSITORY, Machine

SUITES = [
    "linux",
    "runtime/test_runtime_resources.py",
    "runtime/test_runtime_containers.py",
    "runtime/test_runtime_seccomp.py",
    "runtime/test_runtime_user_namespaces.py",
    "runtime/test_runtime_crashes.py",
    "runtime/test_runtime_handlers.py -k runc",  # one by one, for the sake of the deadline
    "runtime/test_runtime_handlers.py -k crun",
]
# What only a v1 host has, and one file whose tests need a feature that the same file also forces off.
RIGHTLY_SKIPPED = (
    r"cgroupspy knows cgroup v1 only, and this host has none"
    r"|this host has no such hierarchy"
    r"|detached overlays need lowerdir\+"
) + (r"|this kernel has no idmapped mounts" if image.KERNEL == "stable" else "")


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_passes_and_skips_nothing_that_v2_has(lab: Machine, suite: str) -> None:
    pytest_words = f".venv/bin/python -m pytest tests/kernel/{suite} -q -p no:cacheprovider --timeout 400"
    said = lab.run(f"cd {REPOSITORY} && {pytest_words}", timeout=1500)
    skipped = re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", said, re.MULTILINE)
    assert [reason for reason in skipped if not re.fullmatch(RIGHTLY_SKIPPED, reason)] == []
