"""Network namespaces for tests: made, entered and left in threads that end, so a test changes nothing of the host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from minikube_raw.linux.namespaces import in_namespace, new_namespace
from minikube_raw.netlink import NetlinkSocket, links

Answer = TypeVar("Answer")


class NetworkNamespace:
    """A namespace of the test's own, with lo up; `path` is what CNI_NETNS may be."""

    def __init__(self) -> None:
        self.fd = new_namespace("net")
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"
        self.run(lambda: self._request(links.change(1, up=True)))

    @staticmethod
    def _request(*messages) -> None:
        with NetlinkSocket() as netlink:
            netlink.request(*messages)

    def run(self, function: Callable[[], Answer]) -> Answer:
        """Runs a function inside."""
        return in_namespace(self.fd, function)

    def request(self, *messages) -> None:
        """Sends netlink messages inside."""
        self.run(lambda: self._request(*messages))

    def query(self, function: Callable[[NetlinkSocket], Answer]) -> Answer:
        """Calls a function with a netlink socket of the inside."""

        def asked() -> Answer:
            with NetlinkSocket() as netlink:
                return function(netlink)

        return self.run(asked)

    def command(self, *words: str, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
        """Runs a program inside."""
        return self.run(lambda: subprocess.run(words, check=check, capture_output=True, text=True, **options))

    def reaches(self, address: str, *, timeout_s: int = 2) -> bool:
        """Whether a ping from inside is answered."""
        return self.command("busybox", "ping", "-c1", f"-W{timeout_s}", address, check=False).returncode == 0

    def close(self) -> None:
        """Gives the namespace up; the kernel ends it when nobody else holds it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> NetworkNamespace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
