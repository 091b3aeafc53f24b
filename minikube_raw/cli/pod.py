"""`minikube-raw pod …`: pods on this host with no master, in the manifests and words of Kubernetes.

Each command is a request to the standalone agent, which `pod run` starts in the background and which leaves with its last pod.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import msgspec
import yaml

from minikube_raw.api.times import parse as parse_time
from minikube_raw.cli import podbundle, podexec
from minikube_raw.cli.errors import Failure, need_root
from minikube_raw.cli.main import Options
from minikube_raw.cli.output import Table, print_as
from minikube_raw.kubelet import localagent, pods
from minikube_raw.kubelet.options import KubeletOptions

Json = dict[str, Any]
output_option = click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
namespace_option = click.option("-n", "--namespace", default="default", show_default=True)


@click.group()
def pod() -> None:
    """Pods on this host, with no master."""


@pod.command()
@click.option("-f", "--filename", required=True, type=click.Path(path_type=Path, allow_dash=True), help="A manifest.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait until its containers have started.")
@click.pass_obj
def run(options: Options, filename: Path, timeout: float) -> None:
    """Run the pods of a manifest and wait until they have started."""
    need_root("running a pod")
    agent = _agent(options)
    for manifest in _manifests(filename):
        try:
            stored = localagent.submit(agent, manifest)
        except FileExistsError as error:
            raise Failure(str(error), "remove it first with `minikube-raw pod rm`") from error
        except localagent.AgentError as error:
            raise Failure(str(error), "the log says why") from error
        meta = stored["metadata"]
        _wait(agent, meta["namespace"], meta["name"], timeout)


@pod.command("list")
@output_option
@click.pass_obj
def list_(options: Options, output: str) -> None:
    """List the pods of this host."""
    print_as(output, _pods(_agent(options)), _pod_table)


@pod.command()
@click.argument("name")
@namespace_option
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="yaml")
@click.option("-c", "--container", default="", help="With --oci: which container; the first one unless given.")
@click.option("--oci", type=click.Path(path_type=Path), help="Write a container's OCI bundle into this new directory.")
@click.pass_obj
def inspect(options: Options, name: str, namespace: str, output: str, container: str, oci: Path | None) -> None:
    """Print a pod with its status, or write the OCI bundle of one of its containers, as runc would run it."""
    agent = _agent(options)
    found = _pod(agent, namespace, name)
    if oci is None:
        print_as(output, found, lambda data: ())
        return
    need_root("writing a root file system")
    podbundle.write(agent, found, container, oci)
    enter = f"nsenter --target {localagent.agent_pid(agent)} --mount --net"
    click.echo(f"wrote {oci}; while the pod runs: {enter} runc run --bundle {oci.absolute()} NAME")


@pod.command()
@click.argument("name")
@namespace_option
@click.option("-c", "--container", default="", help="Which container; the first one unless given.")
@click.option("-f", "--follow", is_flag=True)
@click.option("-p", "--previous", is_flag=True, help="Of the run before this one.")
@click.option("--tail", type=int, default=None, help="The last lines only.")
@click.option("--timestamps", is_flag=True)
@click.pass_obj
def logs(
    options: Options, name: str, namespace: str, container: str, follow: bool, previous: bool, tail: int | None, timestamps: bool
) -> None:  # fmt: skip
    """Print what a container has written."""
    agent = _agent(options)
    asked = {"follow": follow, "previous": previous, "timestamps": timestamps}
    query: dict[str, object] = {key: "true" for key, value in asked.items() if value}
    query |= {"tailLines": tail} if tail is not None else {}
    where = _container_path(agent, namespace, name, container)
    try:
        for chunk in localagent.stream(agent, f"/containerLogs/{where}?{urlencode(query)}"):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    except localagent.AgentError as error:
        raise Failure(str(error)) from error


@pod.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@namespace_option
@click.option("-c", "--container", default="")
@click.option("-i", "--stdin", is_flag=True, help="Pass our input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.pass_obj
def exec_(
    options: Options, name: str, command: Sequence[str], namespace: str, container: str, stdin: bool, tty: bool
) -> None:
    """Run a command in a container; its exit code becomes ours."""
    agent = _agent(options)
    where = _container_path(agent, namespace, name, container)
    try:
        sys.exit(podexec.run(str(agent.socket), where, list(command), stdin=stdin, tty=tty))
    except podexec.ExecFailed as error:
        raise Failure(str(error)) from error


@pod.command()
@click.argument("name")
@namespace_option
@click.pass_obj
def stop(options: Options, name: str, namespace: str) -> None:
    """End a pod's containers; the pod stays listed with how it ended, until `rm`."""
    need_root("stopping a pod")
    agent = _agent(options)
    path = _manifest(agent, namespace, name)
    with localagent.take_lock(agent):
        manifest = yaml.safe_load(path.read_text())
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest["metadata"].setdefault("annotations", {})[localagent.STOPPED] = stamp
        localagent.store(path, manifest)
        _ensure(agent)
    _until(agent, lambda: _phase(agent, namespace, name) in ("Succeeded", "Failed"), f"pod {name} to stop")


@pod.command()
@click.argument("name")
@namespace_option
@click.pass_obj
def rm(options: Options, name: str, namespace: str) -> None:
    """Remove a pod and everything of it; the last one takes the agent with it."""
    need_root("removing a pod")
    agent = _agent(options)
    path = _manifest(agent, namespace, name)
    with localagent.take_lock(agent):
        _ensure(agent)  # what is left of a pod whose agent died is removed by a new one
        path.unlink(missing_ok=True)
    _until(agent, lambda: not _exists(agent, namespace, name), f"pod {name} to go")


# -- what the commands share -----------------------------------------------------------------------------------------


def _agent(options: Options) -> KubeletOptions:
    return localagent.options_for(options.state_dir, options.run_dir)


def _ensure(agent: KubeletOptions) -> None:
    try:
        localagent.ensure_agent(agent)
    except localagent.AgentError as error:
        raise Failure(str(error), "the log says why") from error


def _manifests(filename: Path) -> Iterator[Json]:
    """The pods of a file; everything is checked before anything runs."""
    try:
        text = sys.stdin.read() if str(filename) == "-" else filename.read_text()
        documents = [each for each in yaml.safe_load_all(text) if each]
    except yaml.YAMLError as error:
        raise Failure(f"{filename} is not YAML: {_one_line(error)}", "check its indentation") from error
    if not documents:
        raise Failure(f"{filename} holds no pod", "give a manifest with `kind: Pod`")
    for document in documents:
        _check(filename, document)
    yield from documents


def _check(filename: Path, document: Any) -> None:
    if not isinstance(document, dict) or document.get("kind") != "Pod":
        kind = document.get("kind") if isinstance(document, dict) else type(document).__name__
        raise Failure(
            f"{filename}: {kind} is not a Pod", "without a master only pods can be run; see `minikube-raw up`"
        )
    try:
        wanted = pods.from_manifest(document)
    except msgspec.ValidationError as error:
        raise Failure(f"{filename}: {error}", "see the Pod reference of Kubernetes for the field") from error
    if not wanted.metadata.name or not wanted.spec.containers:
        raise Failure(f"{filename}: a pod needs metadata.name and at least one of spec.containers")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _manifest(agent: KubeletOptions, namespace: str, name: str) -> Path:
    path = localagent.manifest_path(agent, namespace, name)
    if not path.exists():
        raise Failure(
            f"there is no pod {namespace}/{name} on this host", "`minikube-raw pod list` shows those that are"
        )
    return path


def _pods(agent: KubeletOptions) -> Json:
    if not localagent.answers(agent):
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}
    listed: Json = msgspec.json.decode(localagent.get(agent, "/pods"))
    return listed


def _pod(agent: KubeletOptions, namespace: str, name: str) -> Json:
    for item in _pods(agent)["items"]:
        if (item["metadata"].get("namespace"), item["metadata"]["name"]) == (namespace, name):
            return {"apiVersion": "v1", "kind": "Pod", **item}
    raise Failure(f"there is no pod {namespace}/{name} on this host", "`minikube-raw pod list` shows those that are")


def _exists(agent: KubeletOptions, namespace: str, name: str) -> bool:
    metas = [item["metadata"] for item in _pods(agent)["items"]]
    return any((meta.get("namespace"), meta["name"]) == (namespace, name) for meta in metas)


def _phase(agent: KubeletOptions, namespace: str, name: str) -> str:
    return str(_pod(agent, namespace, name)["status"].get("phase", ""))


def _container_path(agent: KubeletOptions, namespace: str, name: str, container: str) -> str:
    first = _pod(agent, namespace, name)["spec"]["containers"][0]["name"]
    return f"{namespace}/{name}/{container or first}"


def _wait(agent: KubeletOptions, namespace: str, name: str, timeout: float) -> None:
    """Until every container runs or has ended; what hinders it is the failure."""
    deadline = time.monotonic() + timeout
    for status in _statuses(agent, namespace, name, deadline):
        if status.get("phase") in ("Running", "Succeeded", "Failed"):
            click.echo(f"pod {namespace}/{name} {status['phase'].lower()}")
            return
    waiting = [each["state"]["waiting"] for each in status.get("containerStatuses", ()) if "waiting" in each["state"]]
    why = "; ".join(f"{each['reason']}: {each.get('message', '')}".rstrip(": ") for each in waiting)
    raise Failure(f"pod {namespace}/{name} has not started: {why}", f"remove it with `minikube-raw pod rm {name}`")


def _statuses(agent: KubeletOptions, namespace: str, name: str, deadline: float) -> Iterator[Json]:
    """The pod's status again and again, until it is final for us: given time, or a reason that time does not change."""
    while True:
        status: Json = _pod(agent, namespace, name)["status"]
        yield status
        reasons = {each["state"].get("waiting", {}).get("reason") for each in status.get("containerStatuses", ())}
        hopeless = reasons & {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
        if hopeless or time.monotonic() > deadline:
            return
        select.select([], [], [], 0.02)


def _until(agent: KubeletOptions, reached: Any, what: str, timeout: float = 120.0) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        if time.monotonic() > deadline:
            raise Failure(f"waited {timeout:.0f} s for {what}", f"see {agent.state_dir}/agent.log")
        select.select([], [], [], 0.02)


def _pod_table(data: Json) -> Sequence[Table]:
    rows = [_row(item) for item in data["items"]]
    return [Table(["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP", "AGE"], rows)]


def _row(item: Json) -> list[object]:
    status = item["status"]
    containers = status.get("containerStatuses", [])
    ready = sum(each["ready"] for each in containers)
    restarts = sum(each["restartCount"] for each in containers)
    reasons = [state["reason"] for each in containers for state in each["state"].values() if "reason" in state]
    started = status.get("startTime")
    age = int(time.time() - parse_time(started).timestamp()) if started else 0
    meta = item["metadata"]
    shown = reasons[0] if reasons else status.get("phase", "")
    return [
        meta.get("namespace"),
        meta["name"],
        f"{ready}/{len(containers)}",
        shown,
        restarts,
        status.get("podIP", ""),
        f"{age}s",
    ]
