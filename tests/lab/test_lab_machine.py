"""The lab's machine is what the other tests take it for."""

from __future__ import annotations

import pytest

from tests.lab.machine import Failed, Machine


def test_it_has_what_hosts_of_the_other_tests_lack(lab: Machine) -> None:
    assert lab.run("systemctl is-system-running") == "running\n"
    assert lab.run("findmnt -no FSTYPE /sys/fs/cgroup") == "cgroup2\n"
    assert lab.run("findmnt -nt cgroup | wc -l") == "0\n"
    assert lab.run("cat /sys/module/apparmor/parameters/enabled") == "Y\n"


def test_the_working_tree_runs_in_it_and_finds_nothing_fatal(lab: Machine) -> None:
    assert "fatal" not in lab.product("doctor")


def test_a_command_that_fails_or_hangs_is_an_error(lab: Machine) -> None:
    with pytest.raises(Failed, match="exit status 3"):
        lab.run("exit 3")
    with pytest.raises(Failed, match="exit status 124"):
        lab.run("sleep 1000", timeout=1)
