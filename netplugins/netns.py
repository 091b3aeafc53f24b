"""The container's network namespace by its path: opened, checked, and never the caller's own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from minikube_raw.linux.namespaces import CLONE_NEWNET, in_namespace
from minikube_raw.netlink import NetlinkSocket, socket_in

from . import errors
from .errors import CNIError

NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)

Answer = TypeVar("Answer")


class Namespace:
    """An open network namespace."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def netlink(self) -> NetlinkSocket:
        """A netlink socket inside."""
        return socket_in(self.fd)

    def run(self, function: Callable[[], Answer]) -> Answer:
        """Runs a function inside, e.g. to read or write /proc/sys/net."""
        return in_namespace(self.fd, function)


@contextmanager
def opened(path: str) -> Iterator[Namespace]:
    """Opens the namespace for the block. Raises CNIError 3 when the path is missing, 8 when it is no namespace or our
    own.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CNIError(errors.UNKNOWN_CONTAINER, f"network namespace {path} does not exist", str(error)) from error
    try:
        _refuse_others(fd, path)
        yield Namespace(fd)
    finally:
        os.close(fd)


@contextmanager
def opened_if_there(path: str) -> Iterator[Namespace | None]:
    """Like opened, but yields None when there is no namespace any more, as DEL must bear."""
    if not path or not os.path.exists(path):
        yield None
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it vanished, or the process that held it did
        yield None
        return
    try:
        yield Namespace(fd) if _is_foreign_namespace(fd) else None
    finally:
        os.close(fd)


def _is_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:  # ENOTTY: some other file
        return False


def _is_own(fd: int) -> bool:
    found, own = os.fstat(fd), os.stat("/proc/thread-self/ns/net")
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _is_foreign_namespace(fd: int) -> bool:
    return _is_namespace(fd) and not _is_own(fd)


def _refuse_others(fd: int, path: str) -> None:
    if not _is_namespace(fd):
        raise CNIError(
            errors.INVALID_NETNS,
            f"{path} is no network namespace",
            "pass the path of a pinned namespace or /proc/PID/ns/net",
        )
    if _is_own(fd) and os.environ.get("CNI_NETNS_OVERRIDE", "").lower() not in ("1", "true"):
        raise CNIError(
            errors.INVALID_NETNS,
            f"{path} is the plugin's own network namespace",
            "set CNI_NETNS_OVERRIDE=1 if you mean it",
        )
