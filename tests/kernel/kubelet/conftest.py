"""A host for tests of pods without a master; nothing of it is left afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.register_assert_rewrite("standalone_host")  # before anybody imports it

from standalone_host import Host, gone


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    holder = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "ip link set lo up; echo; exec sleep 1000"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    made = Host(tmp_path, holder.pid)
    yield made
    for each in made.pods():
        made("pod", "rm", "-n", each["metadata"]["namespace"], each["metadata"]["name"])
    gone(made)
    assert not psutil.wait_procs(made.launchers(), timeout=60)[1]
    holder.stdout.close()
    holder.kill()
    holder.wait()
