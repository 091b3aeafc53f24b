"""A process finds the same world under us and under crun on cgroup v2: what tests/conformance/runc compares on a v1 host.

The pods are those whose fields mean something else on v2 or take another path there, and one of every other kind; the rest
would take hours under emulation. What differs and stays is in docs/runc-differences.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.machine import REPOSITORY, Machine

TESTS = "tests/conformance/runc/test_runc_sees_the_same.py"
PORTIONS = {
    "rights": """plain user-and-group strict-groups drop-all-add-one privileged restricted unmasked-proc unconfined
        runtime-default-sys-admin seccomp-refuse-but seccomp-as-docker-writes-it sysctl-net host-pid host-network
        shared-pids terminal-user image-user""",
    "files and limits": """empty-dir-memory propagation-both sub-path-file projected-all read-only-recursive image over-etc
        cpu-limit cpu-request-least cpu-request-most memory-limit guaranteed burstable pod-resources huge-pages""",
}


# What the probe asks for loads modules, which whoever looks later sees in /sys: so they are loaded before anybody looks.
LOAD = """
import socket
for family in range(46):
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def with_huge_pages(lab: Machine) -> Iterator[Machine]:
    """A machine whose kernel keeps some, and has loaded what can be loaded."""
    lab.run("sysctl -q vm.compact_memory=1 vm.nr_hugepages=4 && modprobe -a tun fuse loop sd_mod")
    lab.run("python3 -", stdin=LOAD)
    yield lab
    lab.run("sysctl -q vm.nr_hugepages=0")


@pytest.mark.parametrize("portion", PORTIONS)
def test_a_process_sees_on_v2_what_it_sees_under_crun(with_huge_pages: Machine, portion: str) -> None:
    lab = with_huge_pages
    names = ",".join(PORTIONS[portion].split())
    chosen = "process_sees or listed_difference or bundle_of_every_pod"
    try:
        lab.run(
            f"cd {REPOSITORY} && ORACLE=crun ORACLE_PODS={names} SLOWNESS=5"
            f" .venv/bin/python -m pytest {TESTS} -q -p no:cacheprovider -k '{chosen}'",
            timeout=1200,
        )
    finally:
        lab.run("chown 0:0 /dev/null")  # crun gives its containers' users the standard streams
