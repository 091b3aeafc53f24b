"""`minikube-raw trace pod NS/NAME`: every step the pod went through on its node, timed, as text, JSON or one HTML page.

The runtime records the steps as they happen and keeps them beside the node; this finds and shows them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from minikube_raw.cli import tracepage
from minikube_raw.cli.errors import Failure
from minikube_raw.cli.main import Options
from minikube_raw.cli.output import Table, render
from minikube_raw.machine import machine
from minikube_raw.machine.layout import Layout, clusters
from minikube_raw.runtime import trace as recorded

Json = dict[str, Any]


@click.group()
def trace() -> None:
    """Every step a pod went through, timed."""


@trace.command()
@click.argument("pod", metavar="NS/NAME")
@click.option("-o", "--output", type=click.Choice(["table", "json", "html"]), default="table", show_default=True)
@click.pass_obj
def pod(options: Options, pod: str, output: str) -> None:
    """Show how a pod came to run: system calls, mounts, cgroup writes, netlink messages."""
    namespace, _, name = pod.rpartition("/")
    found = _find(options, namespace or "default", name)
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    elif output == "html":
        click.echo(tracepage.page(found["pod"], found))
    else:
        click.echo(_text(found))


def _find(options: Options, namespace: str, name: str) -> Json:
    for directory in _directories(options):
        if (found := recorded.load(str(directory), namespace, name)) is not None:
            return found
    raise Failure(
        f"no node of this host has a trace of pod {namespace}/{name}",
        "a trace lives as long as its pod; see `kubectl get pods -A -o wide` or `minikube-raw pod list`",
    )


def _directories(options: Options) -> Iterator[Path]:
    """Where nodes of this host keep traces; a machine's run directory is seen through its first process."""
    yield options.run_dir / "standalone" / "traces"
    for cluster in clusters(options.state_dir):
        layout = Layout(options.state_dir, options.run_dir, cluster)
        record = layout.load()
        for node in record.nodes if record else ():
            pid = machine.find(layout, node)
            if pid is not None:
                yield Path(f"/proc/{pid}/root{layout.node_run(node.name)}/traces")


def _text(found: Json) -> str:
    rows = [
        [f"{step['at_ms']:.3f}", f"{step['took_ms']:.3f}", step.get("who", ""), step["what"], step["object"]]
        for step in found["steps"]
    ]
    start = found["start_ms"]
    head = "not started yet" if start is None else f"first instruction after {start:.1f} ms"
    return f"{head}, {len(rows)} steps\n{render(Table(['AT ms', 'TOOK ms', 'WHO', 'WHAT', 'OBJECT'], rows))}"
