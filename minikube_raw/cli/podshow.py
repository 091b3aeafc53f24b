"""`pod list`, `inspect` and `events`: what there is on this host, as tables for people or as Kubernetes' objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from minikube_raw.api import ages, pod_summary, times
from minikube_raw.cli import podagent, podbundle
from minikube_raw.cli.errors import need_root
from minikube_raw.cli.main import Options
from minikube_raw.cli.output import Table, print_as
from minikube_raw.cli.podagent import Json, namespace_option, output_option
from minikube_raw.kubelet import localagent


@click.command("list")
@output_option
@click.pass_obj
def list_(options: Options, output: str) -> None:
    """List the pods of this host."""
    agent = podagent.agent_of(options)
    print_as(output, podagent.pods(agent), pod_table)
    if not localagent.answers(agent) and Path(agent.run_dir).exists():  # it would have removed that
        kept = len([*agent.manifests_dir.glob("*.yaml")])
        told = f"no agent runs, and what is here ({kept} to be kept) is looked after by nobody"
        click.echo(f"{told}: `minikube-raw pod start` starts one", err=True)


@click.command()
@click.argument("name")
@namespace_option
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="yaml", show_default=True)
@click.option("-c", "--container", default="", help="With --oci: which container; the first one unless given.")
@click.option("--oci", type=click.Path(path_type=Path), help="Write a container's OCI bundle into this new directory.")
@click.pass_obj
def inspect(options: Options, name: str, namespace: str, output: str, container: str, oci: Path | None) -> None:
    """Print a pod with its status, or write the OCI bundle of one of its containers, as runc would run it."""
    agent = podagent.agent_of(options)
    found = podagent.pod(agent, namespace, name)
    if oci is None:
        print_as(output, found, lambda data: ())
        return
    need_root("writing a root file system")
    podbundle.write(agent, found, container, oci)
    enter = f"nsenter --target {localagent.agent_pid(agent)} --mount --net"
    click.echo(f"wrote {oci}; while the pod runs: {enter} runc run --bundle {oci.absolute()} NAME")


@click.command()
@click.argument("name", required=False)
@namespace_option
@output_option
@click.pass_obj
def events(options: Options, name: str | None, namespace: str, output: str) -> None:
    """Print what has happened to a pod, or to all; kept as long as the agent runs."""
    agent = podagent.agent_of(options)
    found: Json = {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": []}
    if localagent.answers(agent):
        found = podagent.get(agent, "/events")
    if name is not None:
        about = [each["involvedObject"] for each in found["items"]]
        chosen = [(each["namespace"], each["name"]) == (namespace, name) for each in about]
        found["items"] = [each for each, wanted in zip(found["items"], chosen, strict=True) if wanted]
        if not found["items"]:
            podagent.pod(agent, namespace, name)  # refused unless it is a pod of which nothing has been told
    print_as(output, found, _event_table)


def pod_table(data: Json) -> Sequence[Table]:
    """A PodList as a table."""
    rows = [_row(item) for item in data["items"]]
    return [Table(["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP", "AGE"], rows)]


def _row(item: Json) -> list[object]:
    status, meta, now = item["status"], item["metadata"], times.now()
    summary = pod_summary.of(item, now)
    shown = [summary.ready, summary.status, summary.restarts, status.get("podIP", "")]
    return [meta.get("namespace"), meta["name"], *shown, _age(status.get("startTime"))]


def _event_table(data: Json) -> Sequence[Table]:
    rows = [
        [
            _age(each["lastTimestamp"]) + (f" (x{each['count']})" if each["count"] > 1 else ""),
            each["type"],
            each["reason"],
            f"pod/{each['involvedObject']['name']}",
            each["message"],
        ]
        for each in data["items"]
    ]
    return [Table(["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], rows)]


def _age(since: str | None) -> str:
    return ages.age(since or times.time(), times.now())
