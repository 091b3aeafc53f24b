"""One booted machine for all tests of the lab; `make lab` gives the network namespace and builds the image."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab import image
from tests.lab.machine import Machine, machine

PROGRAMS = ("qemu-system-x86_64", "qemu-img", "mke2fs", "ssh", "setpriv")


def need_lab() -> None:
    """Skip where no machine can be booted."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"needs {', '.join(missing)}: scripts/setup lab installs them")
    if image.find() is None:
        pytest.skip("there is no machine image: `make lab` builds it")
    if os.geteuid() != 0:
        pytest.skip("needs root: the disk of the working tree keeps owners")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@pytest.fixture(scope="session")
def lab() -> Iterator[Machine]:
    """A machine with systemd, AppArmor and cgroup v2 alone."""
    need_lab()
    with machine() as booted:
        yield booted
