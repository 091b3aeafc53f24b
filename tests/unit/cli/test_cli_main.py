"""The command line: shared options in both places, lazy commands, errors in two lines."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from minikube_raw.cli import cluster, nodelogs
from minikube_raw.cli.errors import Failure
from minikube_raw.cli.main import COMMANDS, shared_options_first
from minikube_raw.cli.output import Table, render, size


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["up", "--state-dir", "/x", "--nodes", "3"], ["--state-dir", "/x", "up", "--nodes", "3"]),
        (["up", "--run-dir=/r"], ["--run-dir=/r", "up"]),
        (["--debug", "down"], ["--debug", "down"]),
        (["pod", "exec", "p", "--", "x", "--debug"], ["pod", "exec", "p", "--", "x", "--debug"]),
        (["up", "--state-dir"], ["--state-dir", "up"]),
    ],
)
def test_shared_options_may_stand_after_the_command(arguments: list[str], expected: list[str]) -> None:
    assert shared_options_first(arguments) == expected


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command line."""
    return subprocess.run([sys.executable, "-m", "minikube_raw", *arguments], capture_output=True, text=True)


def test_help_lists_every_command() -> None:
    text = run("--help").stdout
    assert all(command in text for command in COMMANDS)


def test_help_imports_no_command() -> None:
    code = "import sys; sys.argv = ['m', '--help']\nfrom minikube_raw.cli import main\ntry: main.main()\nexcept SystemExit: pass\n"
    code += "print(sorted(m for m in sys.modules if m.startswith(('pyroute2', 'aiohttp', 'cryptography', 'rich'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n")


def test_an_unknown_cluster_is_two_lines_and_no_traceback(tmp_path: object) -> None:
    done = run("status", "--name", "nope", "--state-dir", str(tmp_path), "--run-dir", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"minikube-raw: there is no cluster nope in {tmp_path}"
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "-dash", "dash-", "a" * 41, "../up", "a/b"])
def test_names_that_cannot_be_folders_and_host_names_are_refused(name: str) -> None:
    with pytest.raises(Failure, match="cannot name a cluster"):
        cluster.check_name(name)


def test_memory_is_a_quantity() -> None:
    assert cluster.parse_memory("512Mi") == 512 << 20
    assert cluster.parse_memory(None) is None
    with pytest.raises(Failure, match="--node-memory lots"):
        cluster.parse_memory("lots")


def test_a_table_has_aligned_columns_and_no_trailing_blanks() -> None:
    assert render(Table(("A", "LONGER"), [("wide cell", 1), ("x", "")])) == "A           LONGER\nwide cell   1\nx"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1023, "1023"), (1024, "1Ki"), (5 << 20, "5Mi"), (3 << 30, "3Gi")]
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size(count) == text


def test_log_rotation_is_said_in_the_kubelets_words() -> None:
    assert nodelogs.parse("500Ki", 3) == {"container_log_max_size": 512_000, "container_log_max_files": 3}
    for nonsense in ("much", "0", "-1Mi"):
        with pytest.raises(Failure, match="--container-log-max-size"):
            nodelogs.parse(nonsense, 5)


@pytest.mark.parametrize(
    ("pods", "services", "nodes", "message"),
    [
        ("x", "10.96.0.0/12", 1, "--pod-cidr x is not an IPv4 network"),
        (
            "10.244.0.1/16",
            "10.96.0.0/12",
            1,
            "--pod-cidr 10.244.0.1/16 is not an IPv4 network: 10.244.0.1/16 has host bits set",
        ),
        ("fd00::/48", "10.96.0.0/12", 1, "--pod-cidr fd00::/48 is not an IPv4 network"),
        ("10.244.0.0/30", "10.96.0.0/12", 1, "has no /24 for each of 1 nodes"),
        ("10.244.0.0/23", "10.96.0.0/12", 3, "has no /24 for each of 3 nodes"),
        ("10.244.0.0/16", "10.244.128.0/20", 1, "overlap"),
        ("10.244.0.0/16", "10.96.0.0/32", 1, "--service-cidr 10.96.0.0/32 is too small"),
    ],
)
def test_networks_that_cannot_be_are_refused_before_anything_is_made(
    pods: str, services: str, nodes: int, message: str
) -> None:
    with pytest.raises(Failure, match=re.escape(message)) as refused:
        cluster.check_networks(pods, services, nodes)
    assert refused.value.cure
    cluster.check_networks("10.244.0.0/22", "10.96.0.0/30", 4)
