"""Links to containers' logs, as log collectors expect them: there while the container is, and nobody else's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pod_builders import run

from minikube_raw.kubelet import convert
from minikube_raw.kubelet.loglinks import LogLinks
from minikube_raw.runtime.cri import ContainerStatus

LABELS = {convert.POD_NAME: "p", convert.POD_NAMESPACE: "ns"}


@pytest.fixture
def var_log(tmp_path: Path) -> Path:
    """A node's /var/log whose pods are the node's logs, as a machine has it by a bind mount."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var/pods").symlink_to(tmp_path / "logs")
    return tmp_path / "var"


def container(var_log: Path, attempt: int = 0, **more: Any) -> ContainerStatus:
    log = f"{var_log.parent}/logs/ns_p_u1/c/{attempt}.log"
    return run(attempt=attempt, labels=LABELS, log_path=log, **more)


def links(var_log: Path) -> dict[str, str]:
    directory = var_log / "containers"
    return {name: os.readlink(directory / name) for name in sorted(os.listdir(directory))}


def test_there_is_a_link_for_each_container_that_ran_until_it_is_removed(var_log: Path) -> None:
    made = LogLinks(var_log.parent / "logs", var_log)
    never_ran = container(var_log, 2, started_at=0)

    made.follow("u1", [container(var_log, 0, code=1), container(var_log, 1), never_ran])
    assert links(var_log) == {
        "p_ns_c-c0.log": f"{var_log}/pods/ns_p_u1/c/0.log",
        "p_ns_c-c1.log": f"{var_log}/pods/ns_p_u1/c/1.log",
    }
    made.follow("u1", [container(var_log, 1)])
    assert list(links(var_log)) == ["p_ns_c-c1.log"]
    made.follow("u1", ())
    assert links(var_log) == {}


def test_a_kubelet_that_comes_later_removes_what_nobody_follows(var_log: Path) -> None:
    LogLinks(var_log.parent / "logs", var_log).follow("u1", [container(var_log)])
    (var_log / "containers/theirs.log").symlink_to("/elsewhere")

    later = LogLinks(var_log.parent / "logs", var_log)
    later.sweep({"u1"})
    assert list(links(var_log)) == ["p_ns_c-c0.log", "theirs.log"]
    later.sweep(())
    assert list(links(var_log)) == ["theirs.log"]


def test_where_the_pods_logs_are_somebody_elses_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "var/pods").mkdir(parents=True)
    (tmp_path / "logs").mkdir()

    LogLinks(tmp_path / "logs", tmp_path / "var").follow("u1", [container(tmp_path / "var")])

    assert not (tmp_path / "var/containers").exists()


def test_a_name_that_is_too_long_is_cut_as_a_kubelet_cuts_it(var_log: Path) -> None:
    labels = {convert.POD_NAME: "p" * 253, convert.POD_NAMESPACE: "ns"}
    long = msgspec.structs.replace(container(var_log), labels=labels)

    LogLinks(var_log.parent / "logs", var_log).follow("u1", [long])

    assert list(links(var_log)) == ["p" * 251 + ".log"]
