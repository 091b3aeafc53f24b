"""What `up` can say about container logs on each node, in the words of the kubelet's configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from minikube_raw.api import quantity
from minikube_raw.cli.errors import Failure

Command = Callable[..., Any]


def options(command: Command) -> Command:
    """Add the flags to a command, which gets each by its parameter name."""
    files = click.option(
        "--container-log-max-files",
        type=click.IntRange(min=2),
        default=5,
        show_default=True,
        help="Files kept of one container's log.",
    )
    size = click.option(
        "--container-log-max-size",
        metavar="QUANTITY",
        default="10Mi",
        show_default=True,
        help="Size at which a container's log is rotated.",
    )
    return size(files(command))


def parse(max_size: str, max_files: int) -> dict[str, int]:
    """The KubeletOptions of what was given. Raises Failure."""
    try:
        size = quantity.parse(max_size).value()
    except quantity.QuantityError as error:
        raise Failure(f"--container-log-max-size {max_size}: {error}", "write it as 10Mi or 500Ki") from error
    if size <= 0:
        raise Failure(f"--container-log-max-size {max_size} is no size", "write it as 10Mi or 500Ki")
    return {"container_log_max_size": size, "container_log_max_files": max_files}
