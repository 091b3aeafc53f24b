"""What the `pod` commands share: asking the agent, finding a pod or a container by name, waiting for a state.

Everything here raises Failure in two lines when it cannot; the agent itself is spoken to by `kubelet.localagent`.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from minikube_raw.api import times
from minikube_raw.cli.errors import Failure
from minikube_raw.cli.main import Options
from minikube_raw.kubelet import localagent
from minikube_raw.kubelet.options import KubeletOptions

Json = dict[str, Any]
output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
namespace_option = click.option("-n", "--namespace", default="default", show_default=True, help="The pod's namespace.")
container_option = click.option("-c", "--container", default="", help="Which container; the first one unless given.")
timeout_option = click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait at most.")
_LIST_CURE = "`minikube-raw pod list` shows those that are"
_HOPELESS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
_LOOK_SECONDS = 0.02


def agent_of(options: Options) -> KubeletOptions:
    """The agent of an installation, whether it runs or not."""
    return localagent.options_for(options.state_dir, options.run_dir)


def ensure(agent: KubeletOptions) -> None:
    """Start the agent unless it runs. Raises Failure."""
    try:
        localagent.ensure_agent(agent)
    except localagent.AgentError as error:
        raise Failure(str(error), "the log says why") from error


def get(agent: KubeletOptions, path: str) -> Json:
    """A JSON answer of a running agent. Raises Failure."""
    try:
        answer: Json = msgspec.json.decode(localagent.get(agent, path))
    except localagent.AgentError as error:
        raise Failure(str(error)) from error
    return answer


def pods(agent: KubeletOptions) -> Json:
    """A PodList; empty when no agent runs."""
    if localagent.answers(agent):
        try:
            return get(agent, "/pods")
        except Failure:
            if localagent.answers(agent):
                raise
            # It has left while we asked, with its last pod.
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}


def names(agent: KubeletOptions) -> list[tuple[str, str]]:
    """Namespace and name of every pod."""
    return [_key(meta) for meta in _metadata(agent)]


def pod(agent: KubeletOptions, namespace: str, name: str) -> Json:
    """One pod. Raises Failure."""
    for item in pods(agent)["items"]:
        if (item["metadata"].get("namespace"), item["metadata"]["name"]) == (namespace, name):
            return {"apiVersion": "v1", "kind": "Pod", **item}
    raise Failure(f"there is no pod {namespace}/{name} on this host", _LIST_CURE)


def manifest(agent: KubeletOptions, namespace: str, name: str) -> Path:
    """Where a pod's manifest is kept. Raises Failure."""
    path = localagent.manifest_path(agent, namespace, name)
    if not path.exists():
        raise Failure(f"there is no pod {namespace}/{name} on this host", _LIST_CURE)
    return path


def containers(found: Json) -> list[str]:
    """Names of a pod's containers, those that a user means first."""
    spec = found["spec"]
    kinds = ("containers", "initContainers", "ephemeralContainers")
    return [each["name"] for kind in kinds for each in spec.get(kind) or ()]


def container(found: Json, wanted: str) -> str:
    """The container a user means: the named one, else kubectl's default of the pod, else the first. Raises Failure."""
    names = containers(found)
    default = (found["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    chosen = wanted or (default if default in names else names[0])
    if chosen not in names:
        raise Failure(f"pod {found['metadata']['name']} has no container {chosen}", f"it has {', '.join(names)}")
    return chosen


def statuses(found: Json) -> list[Json]:
    """The statuses of all containers of a pod."""
    kinds = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    return [each for kind in kinds for each in found["status"].get(kind) or ()]


def need_running(found: Json, name: str) -> None:
    """Raise Failure, saying what the container does instead, unless it runs."""
    where = f"container {name} of pod {found['metadata']['namespace']}/{found['metadata']['name']}"
    state: Json = next((each["state"] for each in statuses(found) if each["name"] == name), {})
    if "running" in state:
        return
    if (ended := state.get("terminated")) is not None:
        what = f"has ended with exit code {ended['exitCode']} ({ended.get('reason', 'Error')})"
    else:
        what = f"does not run yet ({state.get('waiting', {}).get('reason', 'ContainerCreating')})"
    beside = [each["name"] for each in statuses(found) if "running" in each["state"]]
    cure = f"choose one that runs with -c: {', '.join(beside)}" if beside else "`minikube-raw pod events` may say more"
    raise Failure(f"{where} {what}", cure)


def until_gone(agent: KubeletOptions, namespace: str, name: str, timeout: float = 120.0) -> None:
    """Wait until nothing of a pod is left. Raises Failure after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while (namespace, name) in names(agent):
        if time.monotonic() > deadline:
            raise Failure(
                f"waited {timeout:.0f} s for pod {namespace}/{name} to go", f"see {agent.state_dir}/agent.log"
            )
        select.select([], [], [], _LOOK_SECONDS)


def until_left(agent: KubeletOptions, timeout: float = 30.0, *, unless_kept: bool = False) -> None:
    """Wait until an agent that is leaving has left; its last act is to remove its run directory. Raises Failure.

    With `unless_kept` no longer than until there is a manifest again, which keeps it.
    """
    deadline = time.monotonic() + timeout
    while Path(agent.run_dir).exists() and not (unless_kept and any(agent.manifests_dir.glob("*.yaml"))):
        if time.monotonic() > deadline:
            raise Failure(f"the agent has not left within {timeout:.0f} s", f"see {agent.state_dir}/agent.log")
        select.select([], [], [], _LOOK_SECONDS)


def _key(meta: Json) -> tuple[str, str]:
    return str(meta.get("namespace")), str(meta["name"])


def _metadata(agent: KubeletOptions) -> list[Json]:
    return [item["metadata"] for item in pods(agent)["items"]]


def wait_for(agent: KubeletOptions, asked: Json, state: str, timeout: float, since: float = 0.0) -> Json:
    """Wait until a pod has started, is ready or has ended; return it. What hinders it is the Failure.

    Of a pod that ran before `since` (Unix time) each container that will be started again must have been.
    """
    meta, deadline = asked["metadata"], time.monotonic() + timeout
    found: Json = {"status": {}}
    for found in _looks(agent, asked, deadline):
        status = found["status"]
        if _has_ended(status) or (state != "ended" and _REACHED[state](found, since)):
            return found
    reasons = [*_hindrances(found), *_last_warning(agent, meta["uid"])]
    if not found["status"] and _key(meta) in names(agent):
        reasons.append("the pod that had its name before has not ended yet")
    why = "; ".join(dict.fromkeys(reasons)) or f"its phase is {found['status'].get('phase', 'unknown')}"
    verb = {"started": "started", "ready": "become ready", "ended": "ended"}[state]
    cure = f"see `minikube-raw pod events {meta['name']}`; remove it with `minikube-raw pod rm {meta['name']}`"
    raise Failure(f"pod {meta['namespace']}/{meta['name']} has not {verb}: {why}", cure)


def _has_ended(status: Json) -> bool:
    return status.get("phase") in ("Succeeded", "Failed")


def _has_started(found: Json, since: float) -> bool:
    """Running, and no container shows an end from before `since`, or from an earlier boot, from which it is to begin anew."""
    status = found["status"]
    always = found.get("spec", {}).get("restartPolicy", "Always") == "Always"
    ends = [
        each["state"]["terminated"] for each in status.get("containerStatuses", ()) if "terminated" in each["state"]
    ]
    if any(map(_start_error, status.get("containerStatuses", ()))):
        return False
    return status.get("phase") == "Running" and not any(
        each.get("reason") == "ContainerStatusUnknown"  # its end is known since the agent looked, no more
        or ((always or each["exitCode"]) and times.parse(each["finishedAt"]).timestamp() <= int(since))
        for each in ends
    )


def _start_error(container: Json) -> str:
    """Why a container that waits to be tried again could not be started; "" for any other."""
    end = container.get("lastState", {}).get("terminated", {})
    return end.get("message", "") if "waiting" in container["state"] and end.get("reason") == "StartError" else ""


def _is_ready(found: Json, since: float) -> bool:
    conditions = found["status"].get("conditions", ())
    return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)


_REACHED: dict[str, Callable[[Json, float], bool]] = {"started": _has_started, "ready": _is_ready}


def _looks(agent: KubeletOptions, asked: Json, deadline: float) -> Iterator[Json]:
    """The pod again and again, until it is final for us: given time, or a reason that time does not change."""
    uid = asked["metadata"]["uid"]
    while True:
        found = next((each for each in pods(agent)["items"] if each["metadata"]["uid"] == uid), None)
        if found is not None:
            yield found
            reasons = {each["state"].get("waiting", {}).get("reason") for each in statuses(found)}
            if reasons & _HOPELESS or any(map(_start_error, statuses(found))):
                return
        if time.monotonic() > deadline:
            return
        select.select([], [], [], _LOOK_SECONDS)


def _hindrances(found: Json) -> Iterator[str]:
    if found["status"].get("message"):
        yield f"{found['status'].get('reason', '')}: {found['status']['message']}"
    for each in statuses(found) if "status" in found else ():
        waiting = each["state"].get("waiting")
        if waiting:
            yield f"{waiting['reason']}: {_start_error(each) or waiting.get('message', '')}".rstrip(": ")


def _last_warning(agent: KubeletOptions, uid: str) -> Iterator[str]:
    """What went wrong last: of a volume or a sandbox that cannot be made no status tells."""
    for each in reversed(get(agent, "/events")["items"] if localagent.answers(agent) else ()):
        if each["involvedObject"].get("uid") == uid and each["type"] == "Warning":
            yield f"{each['reason']}: {each['message']}"
            return


def why_failed(found: Json) -> str:
    """Why a pod is Failed, in a line; "" for any other."""
    if found["status"].get("phase") != "Failed":
        return ""
    ends = [(each["name"], each["state"].get("terminated") or {}) for each in statuses(found)]
    bad = [(name, end) for name, end in ends if end.get("exitCode")]
    told = [
        f"container {name}: {end['reason']} ({end['exitCode']}) {end.get('message', '')}".strip() for name, end in bad
    ]
    return "; ".join([*_hindrances({"status": {**found["status"], "containerStatuses": ()}}), *told])
