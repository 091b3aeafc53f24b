"""`node run`: a node agent in the foreground, as a machine's init or systemd starts it."""

from __future__ import annotations

from pathlib import Path

import click

from minikube_raw.cli.errors import Failure, need_root
from minikube_raw.kubelet import main, options


@click.group()
def node() -> None:
    """Run a node agent in the foreground."""


@node.command()
@click.option("--config", required=True, type=click.Path(path_type=Path), help="JSON file of the agent's options.")
def run(config: Path) -> None:
    """Run the kubelet until SIGTERM; its launcher is a process of its own."""
    need_root("a node agent")
    try:
        main.run(options.load(config))
    except ValueError as error:
        raise Failure(str(error), "write the field as the message says") from error
