"""`minikube-raw trace pod NS/NAME`: every step the pod went through on its node, timed, as text, JSON or one HTML page.

The runtime records the steps as they happen and keeps them beside the node; this finds and shows them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

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
        click.echo(_page(pod, found))
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


_STYLE = """
body { font: 13px sans-serif; margin: 1.5em; color: #222 }
table { border-collapse: collapse; width: 100% }
td { padding: 1px 6px; white-space: nowrap; vertical-align: middle }
td.line { width: 50%; position: relative }
td.line div { position: absolute; top: 3px; bottom: 3px; min-width: 2px; background: #3b7dd8 }
td.object { max-width: 30em; overflow: hidden; text-overflow: ellipsis; font-family: monospace }
tr:hover { background: #eef }
"""


def _page(pod: str, found: Json) -> str:
    """One self-contained page: a row per step, its bar on a common time line."""
    steps = found["steps"]
    end = max((step["at_ms"] + step["took_ms"] for step in steps), default=1.0) or 1.0
    rows = "\n".join(_html_row(step, end) for step in steps)
    title = f"pod {html.escape(pod)}"
    start = found["start_ms"]
    head = "not started yet" if start is None else f"first instruction after {start:.1f} ms"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>\n'
        f"<h1>{title}</h1><p>{head}, {len(steps)} steps over {end:.1f} ms</p>\n<table>\n{rows}\n</table></html>"
    )


def _html_row(step: Json, end: float) -> str:
    left, width = 100 * step["at_ms"] / end, 100 * step["took_ms"] / end
    cells = [f"{step['at_ms']:.3f}", f"{step['took_ms']:.3f}", step.get("who", ""), step["what"]]
    shown = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
    subject = html.escape(str(step["object"]))
    bar = f'<td class="line"><div style="left:{left:.3f}%;width:{width:.3f}%"></div></td>'
    return f'<tr>{shown}<td class="object" title="{subject}">{subject}</td>{bar}</tr>'
