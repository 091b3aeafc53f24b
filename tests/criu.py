"""Whether CRIU can be asked to do its work here."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def criu_works() -> bool:
    """Whether there is a CRIU that knows this kernel; `criu check` wants a network namespace whose loopback is up."""
    path = shutil.which("criu")
    return path is not None and subprocess.run([path, "check"], capture_output=True, check=False).returncode == 0


needs_criu = pytest.mark.skipif(
    not criu_works(), reason="there is no criu, or `criu check` says that it does not know this kernel"
)
