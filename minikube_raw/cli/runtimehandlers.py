"""What `up` and `node run` can say about OCI runtimes of the host that RuntimeClasses may name."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from typing import Any

import click

from minikube_raw.cli.errors import Failure
from minikube_raw.runtime import handlers

Command = Callable[..., Any]


def option(command: Command) -> Command:
    """Add the flag to a command, which gets `runtime_handler` as texts."""
    text = "A RuntimeClass handler and the OCI runtime behind it, as in crun=/usr/bin/crun; arguments may follow. Repeatable."
    return click.option("--runtime-handler", multiple=True, metavar="NAME=COMMAND", help=text)(command)


def parse(texts: Iterable[str]) -> dict[str, str]:
    """Command lines by handler. Raises Failure, for a program that is not there too."""
    found: dict[str, str] = {}
    for text in texts:
        try:
            name, command = handlers.parse(text)
        except ValueError as error:
            raise Failure(f"--runtime-handler {error}", "write it as crun=/usr/bin/crun") from error
        if not os.access(command[0], os.X_OK):
            raise Failure(
                f"--runtime-handler {name}: {command[0]} cannot be executed", "install it, or name another path"
            )
        found[name] = shlex.join(command)
    return found
