"""Kernel tests run in children with mount namespaces of their own, once with every feature and once with all forced off."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator

import pytest

from minikube_raw.linux import features, mounts, namespaces

InChild = Callable[..., None]


@pytest.fixture(autouse=True, params=["every feature", "no feature"])
def kernel_features(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each test here runs twice; the second time as on the oldest kernel we support."""
    if request.param == "no feature":
        for name in features.all():
            monkeypatch.setenv(f"MINIKUBE_RAW_NO_{name.upper()}", "1")
    features.forget()
    features.all()
    yield request.param
    monkeypatch.undo()
    features.forget()


@pytest.fixture
def in_child() -> InChild:
    """Runs a function in a forked child with private mounts (and further new namespaces); its failure is the test's."""

    def run(function: Callable[[], None], flags: int = 0) -> None:
        report, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(report)
            status = 1
            try:
                namespaces.unshare(namespaces.CLONE_NEWNS | flags)
                mounts.set_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
                function()
                status = 0
            except BaseException:
                os.write(send, traceback.format_exc().encode()[-60_000:])
            finally:
                os._exit(status)
        os.close(send)
        with os.fdopen(report, "rb") as pipe:
            text = pipe.read().decode()
        _, status = os.waitpid(child, 0)
        if status:
            pytest.fail(text or f"the child ended with {os.waitstatus_to_exitcode(status)}", pytrace=False)

    return run
