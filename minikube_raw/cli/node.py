"""`node run`: a node agent in the foreground, as a machine's init or systemd starts it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from minikube_raw.cli import runtimehandlers
from minikube_raw.cli.errors import Failure, need_root
from minikube_raw.kubelet import main, options


@click.group()
def node() -> None:
    """Run a node agent in the foreground."""


@node.command()
@click.option("--config", required=True, type=click.Path(path_type=Path), help="JSON file of the agent's options.")
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of static pods, instead of the one that the options name.",
)
@runtimehandlers.option
def run(config: Path, manifests: Path | None, runtime_handler: tuple[str, ...]) -> None:
    """Run the kubelet until SIGTERM; its launcher is a process of its own."""
    need_root("a node agent")
    try:
        given = options.load(config)
        if manifests is not None:
            given = msgspec.structs.replace(given, static_pod_path=str(manifests.absolute()))
        more = runtimehandlers.parse(runtime_handler)
        main.run(msgspec.structs.replace(given, oci_runtimes={**given.oci_runtimes, **more}))
    except ValueError as error:
        raise Failure(str(error), "write the field as the message says") from error
