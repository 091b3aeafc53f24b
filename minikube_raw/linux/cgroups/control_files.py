"""Reading and writing a cgroup's control files: plain descriptors, one step recorded per write."""

from __future__ import annotations

import os

from minikube_raw.linux import steps

_PART = 8192


def write(path: str, value: str | int) -> None:
    """Writes one value; OSError names the file and the value."""
    began = steps.begin()
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, f"{value}\n".encode())
    except OSError as error:
        raise OSError(error.errno, f"writing {value!r}: {error.strerror}", path) from None
    finally:
        os.close(file)
        steps.end(began, "write", f"{path}={value}")


def write_if_present(path: str, value: str | int) -> bool:
    """Writes a value that some kernels have no file for; False if this one has not."""
    try:
        write(path, value)
    except FileNotFoundError:
        return False
    return True


def read(path: str) -> str:
    """Returns a file's content without the blank end."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while part := os.read(file, _PART):
            content += part
    finally:
        os.close(file)
    return content.decode().strip()


def read_if_present(path: str) -> str:
    """read() of a file that some kernels have not; empty if this one has not."""
    try:
        return read(path)
    except FileNotFoundError:
        return ""


def read_number(path: str, default: int | None = None) -> int | None:
    """Returns a file's number; None for "max", `default` if there is no such file."""
    try:
        text = read(path)
    except FileNotFoundError:
        return default
    return None if text == "max" else int(text)


def read_flat(path: str) -> dict[str, int]:
    """Returns a flat-keyed file ("key value" lines) as a dict; empty if there is no such file."""
    try:
        text = read(path)
    except FileNotFoundError:
        return {}
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def read_pids(directory: str) -> list[int]:
    """Returns the processes of one cgroup directory; those of an outer PID namespace, which read as 0, are left out."""
    try:
        with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
            return [pid for pid in map(int, file.read().split()) if pid]
    except (FileNotFoundError, OSError) as error:
        if isinstance(error, FileNotFoundError) or error.errno == 19:  # ENODEV: removed while it was read
            return []
        raise
