"""`pod run`, `stop` and `rm`: pods come and go with their manifests, which are the wish and outlive the agent."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import yaml

from minikube_raw.api.plain_text import one_line
from minikube_raw.cli import podagent, podmanifests
from minikube_raw.cli.errors import Failure, need_root
from minikube_raw.cli.main import Options
from minikube_raw.cli.output import print_as
from minikube_raw.cli.podagent import Json, namespace_option, timeout_option
from minikube_raw.cli.podshow import pod_table
from minikube_raw.kubelet import givenvolumes, localagent, manifests
from minikube_raw.kubelet.options import KubeletOptions

_wait_option = click.option("--wait/--no-wait", default=True, show_default=True, help="Return when it is done.")


@click.command()
@click.option(
    "-f",
    "--filename",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    help="A manifest of pods, with ConfigMaps, Secrets, claims and volumes beside them; - is standard input.",
)
@namespace_option
@click.option(
    "--replace", is_flag=True, help="Replace pods of the same names: the old one ends, then the new one starts."
)
@click.option(
    "--wait",
    type=click.Choice(["started", "ready", "ended", "none"]),
    default="started",
    show_default=True,
    help="What to wait for; with `ended` the exit status is 1 when a pod fails.",
)
@timeout_option
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
@click.pass_obj
def run(
    options: Options, filename: Path, namespace: str, replace: bool, wait: str, timeout: float, output: str
) -> None:  # fmt: skip
    """Run the pods of a manifest and wait until they have started.

    An `image` may be a reference as anywhere, a directory (dir:/path), a tar of a root file system (tar:/path), or a
    checkpoint of a container (checkpoint:/path), which then goes on from there.
    """
    need_root("running a pod")
    agent = podagent.agent_of(options)
    asked = [_submit(agent, wish, replace=replace) for wish in podmanifests.read(filename, namespace)]
    found = [each if wait == "none" else podagent.wait_for(agent, each, wait, timeout) for each in asked]
    if output != "text":
        items = [{"apiVersion": "v1", "kind": "Pod", **each} for each in found]
        print_as(output, items[0] if len(items) == 1 else _list(items), pod_table)
    for each in found if output == "text" else ():
        meta, phase = each["metadata"], each.get("status", {}).get("phase", "created")
        why = podagent.why_failed(each) if "status" in each else ""
        click.echo(f"pod {meta['namespace']}/{meta['name']} {phase.lower()}{f': {one_line(why)}' if why else ''}")
    if wait == "ended" and any(each["status"]["phase"] == "Failed" for each in found):
        sys.exit(1)


def _list(items: list[Json]) -> Json:
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def _submit(agent: KubeletOptions, wish: podmanifests.Wish, *, replace: bool) -> Json:
    try:
        return localagent.submit(agent, wish.pod, wish.objects, replace=replace)
    except FileExistsError as error:
        cure = "replace it with --replace, or remove it first with `minikube-raw pod rm`"
        raise Failure(str(error), cure) from error
    except localagent.AgentError as error:
        raise Failure(str(error), "the log says why") from error


@click.command()
@click.argument("name")
@namespace_option
@_wait_option
@click.pass_obj
def stop(options: Options, name: str, namespace: str, wait: bool) -> None:
    """End a pod's containers; the pod stays listed with how it ended, until `rm`."""
    need_root("stopping a pod")
    agent = podagent.agent_of(options)
    path = podagent.manifest(agent, namespace, name)
    with localagent.take_lock(agent):
        pod, objects = _documents(path)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        pod["metadata"].setdefault("annotations", {})[manifests.STOPPED] = stamp
        manifests.write(path, pod, objects)
        podagent.ensure(agent)
    if wait:
        podagent.wait_for(agent, pod, "ended", 120.0)


@click.command()
@click.argument("names", nargs=-1)
@namespace_option
@click.option("--all", "every", is_flag=True, help="Every pod of this host, of all namespaces.")
@click.option("--volumes", is_flag=True, help="The data of the claims that stood beside them, too.")
@_wait_option
@click.pass_obj
def rm(options: Options, names: tuple[str, ...], namespace: str, every: bool, volumes: bool, wait: bool) -> None:
    """Remove pods and everything of them but their claims' data; the last one takes the agent with it."""
    if volumes and not wait:
        raise Failure("--volumes removes data once nobody uses it any more", "leave --no-wait out")
    need_root("removing a pod")
    agent = podagent.agent_of(options)
    if not names and not every:
        raise Failure("no pod is named", "name pods, or give --all")
    wanted = [(namespace, name) for name in names]
    paths = [podagent.manifest(agent, *each) for each in wanted]
    if every:
        paths = sorted(agent.manifests_dir.glob("*.yaml"))
    if not paths and not Path(agent.run_dir).exists():
        return
    with localagent.take_lock(agent):
        podagent.ensure(agent)  # what is left of a pod whose agent died is removed by a new one
        claims = [claim for path in paths for claim in _claims(path)] if volumes else []
        if every:
            wanted = podagent.names(agent)
        for path in paths:
            path.unlink(missing_ok=True)
    for where in wanted if wait else ():
        podagent.until_gone(agent, *where)
    if every and wait:
        podagent.until_left(agent, 120.0, unless_kept=True)  # for what it removes and no longer knows the name of
    for claim in claims:
        _remove_data(agent, claim)


def _documents(path: Path) -> tuple[Json, list[Json]]:
    try:
        return manifests.documents(path)
    except (ValueError, yaml.YAMLError) as error:
        text = f"{path} cannot be read: {one_line(' '.join(str(error).split()))}"
        raise Failure(text, "`minikube-raw pod rm` removes it with its pod, or mend it") from error


def _claims(path: Path) -> list[tuple[str, str]]:
    """Namespace and name of the claims beside a pod."""
    _, objects = _documents(path)
    found = [each["metadata"] for each in objects if each["kind"] == "PersistentVolumeClaim"]
    return [(meta["namespace"], meta["name"]) for meta in found]


def _remove_data(agent: KubeletOptions, claim: tuple[str, str]) -> None:
    """Delete a claim's data unless another pod has the claim beside it."""
    with localagent.take_lock(agent):
        if any(claim in _claims(path) for path in agent.manifests_dir.glob("*.yaml")):
            click.echo(f"the data of claim {'/'.join(claim)} stays: another pod has the claim beside it", err=True)
        else:
            givenvolumes.remove(agent.volumes_dir, *claim)
