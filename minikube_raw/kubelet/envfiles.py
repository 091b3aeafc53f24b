"""Variables from files that an init container wrote into an emptyDir (KEP-3721, pkg/kubelet/util/env).

The syntax is the part of a POSIX shell's that needs no shell: NAME='value', over as many lines as the value has, blank lines
and comments. The file is a container's, so that no link in it leads out, no FIFO holds us up and no size fills our memory.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from minikube_raw.api.core import FileKeySelector
from minikube_raw.kubelet.env import ConfigError
from minikube_raw.linux import paths

MOST_BYTES = 1 << 20
_SKIPPED = re.compile(r"[ \t]*(?:#[^\n]*)?\n")
_ASSIGNMENT = re.compile(r"[ \t]*([^=\n]*)=")
_VALUE = re.compile(r"'([^']*)'")
_REST = re.compile(r"(?:[ \t]*|[ \t]+#[^\n]*)(?:\n|$)")


class FormatError(ValueError):
    """A line that is not NAME='value'; the text has its number."""


def value(volume: str, wanted: FileKeySelector) -> str | None:
    """The variable's value in the file of the volume at `volume`; None for one that is optional and missing. Blocking.

    Raises ConfigError in the kubelet's words.
    """
    try:
        found = lookup(_read(volume, wanted.path), wanted.key)
    except FileNotFoundError as error:
        if wanted.optional:
            return None
        raise ConfigError(f"couldn't parse env file: {wanted.path}: {os.strerror(errno.ENOENT)}") from error
    except OSError as error:
        raise ConfigError(f"couldn't parse env file: {wanted.path}: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:
        raise ConfigError(f"couldn't parse env file: {wanted.path}: {error}") from error
    if found is None and not wanted.optional:
        raise ConfigError(f'environment variable key "{wanted.key}" not found in file "{wanted.path}"')
    return found


def _read(volume: str, path: str) -> str:
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        opened = paths.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(root)
    with open(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise ValueError("not a regular file")
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES} bytes")
    return content.decode()


def lookup(text: str, key: str) -> str | None:
    """The first value of `key`, None without one; what follows it is not looked at. Raises FormatError."""
    at = 0
    while at < len(text):
        if skipped := _SKIPPED.match(text, at):
            at = skipped.end()
            continue
        name, found, after = _assignment(text, at)
        if name == key:
            return found
        at = after
    return None


def _assignment(text: str, at: int) -> tuple[str, str, int]:
    """(name, value, where the next line begins) of the assignment at `at`."""

    def wrong(why: str) -> FormatError:
        return FormatError(f"{why} at line {text.count(chr(10), 0, at) + 1}")

    head = _ASSIGNMENT.match(text, at)
    if head is None:
        if text[at:].lstrip(" \t")[:1] in ("", "#"):  # the last line, without a newline
            return "", "", len(text)
        raise wrong("invalid environment variable format")
    name = head[1]
    if not name:
        raise wrong("invalid environment variable format")
    if name != name.strip():
        raise wrong("invalid environment variable format: whitespace before '=' is not allowed")
    quoted = _VALUE.match(text, head.end())
    if quoted is None:
        raise wrong("invalid environment variable format: value must be enclosed in single quotes")
    rest = _REST.match(text, quoted.end())
    if rest is None:
        raise wrong("invalid environment variable format: unexpected content after closing quote")
    return name, quoted[1], rest.end()
