"""`pod inspect --oci`: finds the container that is meant and has its OCI bundle written; refusals become two lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minikube_raw.cli.errors import Failure
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.runtime import bundling
from minikube_raw.runtime.layout import Layout


def write(agent: KubeletOptions, pod: dict[str, Any], container: str, directory: Path) -> None:
    """Write the bundle of a pod's container (the first one if it is not named) into a new directory. Raises Failure."""
    name = container or pod["spec"]["containers"][0]["name"]
    try:
        bundling.write(directory, Layout(agent.state_dir, agent.run_dir), running_id(pod, name))
    except LookupError as error:
        raise Failure(str(error), "a bundle joins the pod's namespaces: see that its containers run") from error
    except NotImplementedError as error:
        raise Failure(str(error), "run the pod without hostUsers: false to look at it under runc") from error
    except FileExistsError as error:
        raise Failure(f"{directory} exists", "name a directory that does not") from error


def running_id(pod: dict[str, Any], name: str) -> str:
    """Return the runtime's id of a container that runs now. LookupError if none does."""
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    statuses = [status for kind in kinds for status in pod["status"].get(kind, ())]
    for status in statuses:
        if status["name"] == name and "running" in status["state"]:
            return str(status["containerID"]).partition("://")[2]
    known = ", ".join(status["name"] for status in statuses)
    raise LookupError(f"no container {name} runs in pod {pod['metadata']['name']}, which has: {known or 'none yet'}")
