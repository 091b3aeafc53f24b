"""`minikube-raw cni`: our CNI plugins for others' runtimes."""

from __future__ import annotations

from pathlib import Path

import click

from minikube_raw.cli.errors import Failure
from minikube_raw.cni.install import install as install_plugins


@click.group()
def cni() -> None:
    """Our CNI plugins for others' runtimes."""


@cni.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def install(directory: Path) -> None:
    """Put executable plugins into DIRECTORY (others' runtimes look in /opt/cni/bin)."""
    try:
        written = install_plugins(directory.absolute())
    except ValueError as error:
        raise Failure(str(error), "install minikube-raw into a virtual environment at a shorter path") from error
    for path in written:
        click.echo(path)
