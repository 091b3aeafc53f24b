"""`pod logs`, `exec` and `attach`: a container's streams, through the agent's socket."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO
from urllib.parse import urlencode

import click

from minikube_raw.api import times
from minikube_raw.cli import podagent, podexec
from minikube_raw.cli.errors import Failure
from minikube_raw.cli.main import Options
from minikube_raw.cli.podagent import Json, container_option, namespace_option
from minikube_raw.kubelet import localagent
from minikube_raw.kubelet.options import KubeletOptions

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


@click.command()
@click.argument("name")
@namespace_option
@container_option
@click.option("--all-containers", is_flag=True, help="Of every container, one after the other; with -f all at once.")
@click.option("--prefix", is_flag=True, help="Begin each line with pod and container.")
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows, until the container ends.")
@click.option("-p", "--previous", is_flag=True, help="Of the run before this one.")
@click.option("--tail", type=click.IntRange(min=-1), default=-1, help="The last lines only; -1 is all.")
@click.option("--since", default="", help="Not older than a time like 5s, 2m or 3h.")
@click.option("--since-time", default="", help="Not older than an RFC 3339 date.")
@click.option("--limit-bytes", type=click.IntRange(min=1), default=None, help="At most so many bytes.")
@click.option("--timestamps", is_flag=True, help="Begin each line with its time.")
@click.pass_obj
def logs(
    options: Options,
    /,
    name: str,
    namespace: str,
    container: str,
    all_containers: bool,
    prefix: bool,
    **asked: object,
) -> None:
    """Print what a container has written."""
    agent = podagent.agent_of(options)
    found = podagent.pod(agent, namespace, name)
    wanted = podagent.containers(found) if all_containers else [podagent.container(found, container)]
    query = urlencode(_log_query(asked))
    writers = [_Lines(f"[pod/{name}/{each}] ".encode() if prefix else b"") for each in wanted]
    paths = [f"/containerLogs/{namespace}/{name}/{each}?{query}" for each in wanted]
    jobs = [(agent, path, writer) for path, writer in zip(paths, writers, strict=True)]
    if len(jobs) == 1 or not asked["follow"]:
        for job in jobs:
            _copy_log(*job)
        return
    with ThreadPoolExecutor(len(jobs)) as readers:
        for copied in [readers.submit(_copy_log, *job) for job in jobs]:
            copied.result()


def _log_query(asked: dict[str, object]) -> dict[str, object]:
    """core/v1.PodLogOptions from our options. Raises Failure for a duration that is none."""
    query: dict[str, object] = {key: "true" for key in ("follow", "previous", "timestamps") if asked[key]}
    query |= {"tailLines": asked["tail"]} if asked["tail"] != -1 else {}
    query |= {"limitBytes": asked["limit_bytes"]} if asked["limit_bytes"] else {}
    if asked["since_time"]:
        query["sinceTime"] = _moment(str(asked["since_time"]))
    since = str(asked["since"])
    if since:
        parts = _DURATION.fullmatch(since)
        if parts is None:
            raise Failure(f"--since {since} is not a duration", "write it as 5s, 2m, 3h or 1h30m")
        hours, minutes, seconds = (int(each or 0) for each in parts.groups())
        query["sinceSeconds"] = hours * 3600 + minutes * 60 + seconds
    return query


def _moment(text: str) -> str:
    try:
        return times.micro_time(times.parse(text))
    except ValueError as error:
        raise Failure(f"--since-time: {error}", "write it as 2026-01-31T09:30:00Z") from error


class _Lines:
    """Writes to standard output, each line behind a prefix; several may write at once, whole lines each."""

    _lock = threading.Lock()

    def __init__(self, prefix: bytes, out: BinaryIO | None = None) -> None:
        self._prefix = prefix
        self._out = out or sys.stdout.buffer
        self._left = b""

    def write(self, chunk: bytes) -> None:
        """Take what came in."""
        if self._prefix:
            *lines, self._left = (self._left + chunk).split(b"\n")
            chunk = b"".join(self._prefix + line + b"\n" for line in lines)
        with self._lock:
            self._out.write(chunk)
            self._out.flush()

    def end(self) -> None:
        """Write the last line, even if it was not finished."""
        if self._left:
            self.write(b"\n")


def _copy_log(agent: KubeletOptions, path: str, lines: _Lines) -> None:
    try:
        for chunk in localagent.stream(agent, path):
            lines.write(chunk)
        lines.end()
    except localagent.AgentError as error:
        raise Failure(str(error), "`minikube-raw pod events` may say more") from error


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@namespace_option
@container_option
@click.option("-i", "--stdin", is_flag=True, help="Pass our input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.pass_obj
def exec_(
    options: Options, name: str, command: Sequence[str], namespace: str, container: str, stdin: bool, tty: bool
) -> None:
    """Run a command in a container; its exit code becomes ours."""
    agent = podagent.agent_of(options)
    found = podagent.pod(agent, namespace, name)
    chosen = podagent.container(found, container)
    where = f"/exec/{namespace}/{name}/{chosen}"
    _converse(agent, found, chosen, podexec.Call(where, command=tuple(command), stdin=stdin, tty=tty))


@click.command()
@click.argument("name")
@namespace_option
@container_option
@click.option("-i", "--stdin", is_flag=True, help="Pass our input on, if the container takes any.")
@click.option("-t", "--tty", is_flag=True, help="Our input is a terminal, and the container has one.")
@click.pass_obj
def attach(options: Options, name: str, namespace: str, container: str, stdin: bool, tty: bool) -> None:
    """Join the streams of a container's first process; when it ends, its exit code becomes ours."""
    agent = podagent.agent_of(options)
    found = podagent.pod(agent, namespace, name)
    chosen = podagent.container(found, container)
    spec = _spec(found, chosen)
    if stdin and not spec.get("stdin"):
        raise Failure(f"container {chosen} takes no input", "its manifest would need `stdin: true`")
    if tty and not spec.get("tty"):
        raise Failure(f"container {chosen} has no terminal", "its manifest would need `tty: true`")
    _converse(agent, found, chosen, podexec.Call(f"/attach/{namespace}/{name}/{chosen}", stdin=stdin, tty=tty))


def _spec(found: Json, name: str) -> Json:
    kinds = ("containers", "initContainers", "ephemeralContainers")
    every = [each for kind in kinds for each in found["spec"].get(kind) or ()]
    return next(each for each in every if each["name"] == name)


def _converse(agent: KubeletOptions, found: Json, container: str, call: podexec.Call) -> None:
    try:
        sys.exit(podexec.run(str(agent.socket), call))
    except podexec.Refused as error:  # the answer to a handshake has no words
        meta = found["metadata"]
        podagent.need_running(podagent.pod(agent, meta["namespace"], meta["name"]), container)
        raise Failure(str(error), "`minikube-raw pod events` may say more") from error
    except podexec.ExecFailed as error:
        raise Failure(str(error)) from error
