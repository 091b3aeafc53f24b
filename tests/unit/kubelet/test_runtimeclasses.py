"""Handlers that RuntimeClasses name: which a node has, what it tells of them, and what a pod's sandbox is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import convert, runtimeclasses
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.runtime.cri import RuntimeServiceError


def options(**more: Any) -> KubeletOptions:
    return KubeletOptions(node_name="n", node_ip="10.0.0.1", state_dir="/s", run_dir="/r", images_dir="/i", **more)


class Classes:
    """The API server's answer for one class."""

    def __init__(self, handler: str) -> None:
        self.handler = handler

    async def get(self, _resource: object, name: str) -> Any:
        assert name == "class"
        return self


def of_class(handler: str) -> tuple[Any, Pod]:
    return Classes(handler), pod(runtimeClassName="class")


async def test_a_pods_handler_is_its_classs_and_a_pod_without_one_has_none() -> None:
    client, classed = of_class("crun")
    check = runtimeclasses.checker(client, ["runc", "crun"])
    assert await check(classed) == "crun"
    assert await check(pod()) == ""


async def test_a_handler_that_the_node_has_not_is_refused_as_a_cri_runtime_refuses_it() -> None:
    client, classed = of_class("kata")
    with pytest.raises(RuntimeServiceError, match='no runtime for "kata" is configured'):
        await runtimeclasses.checker(client, ["runc"])(classed)


def test_a_handler_of_ours_may_be_an_oci_runtimes_instead() -> None:
    assert runtimeclasses.names(options(oci_runtimes={"runc": "/x", "crun": "/y"})) == [
        "minikube-raw",
        "runc",
        "crun",
    ]


def test_the_node_tells_of_each_handler_what_it_can(tmp_path: Path) -> None:
    knowing, mute = tmp_path / "knowing", tmp_path / "mute"
    knowing.write_text('#!/bin/sh\n[ "$1 $2" = "--flag features" ] && echo \'{"mountOptions": ["ro", "rro"]}\'\n')
    mute.write_text("#!/bin/sh\nexit 1\n")
    for program in (knowing, mute):
        program.chmod(0o755)
    commands = {"runc": f"{knowing} --flag", "old": str(mute), "gone": "/nosuch"}
    told = {each["name"]: each["features"] for each in runtimeclasses.described(options(oci_runtimes=commands))}
    assert list(told) == ["", "minikube-raw", "runc", "old", "gone"]
    assert told["minikube-raw"] == told[""]
    assert told["runc"] == {"recursiveReadOnlyMounts": True, "userNamespaces": False}
    assert told["old"] == told["gone"] == {"recursiveReadOnlyMounts": False, "userNamespaces": False}


def test_a_sandbox_is_asked_for_with_the_pods_handler() -> None:
    node = convert.NodeFacts(name="n", ip="10.0.0.1")
    assert convert.sandbox_config(pod(), 0, "/logs", node, "crun").runtime_handler == "crun"
    assert convert.sandbox_config(pod(), 0, "/logs", node).runtime_handler == ""
