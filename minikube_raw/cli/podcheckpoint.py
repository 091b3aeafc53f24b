"""`pod checkpoint`: a running container saved to an archive, by the agent's checkpoint API; `image: checkpoint:PATH` brings it back."""

from __future__ import annotations

import click
import msgspec

from minikube_raw.cli import podagent
from minikube_raw.cli.errors import Failure, need_root
from minikube_raw.cli.main import Options
from minikube_raw.cli.podagent import container_option, namespace_option
from minikube_raw.kubelet import localagent


@click.command()
@click.argument("name")
@namespace_option
@container_option
@click.pass_obj
def checkpoint(options: Options, name: str, namespace: str, container: str) -> None:
    """Save the processes of a pod's container and what it has written; it runs on. Prints the archive's path.

    A pod whose `image` is checkpoint:PATH, or what `minikube-raw image from-checkpoint` makes of it, goes on from there.
    """
    need_root("saving a container's processes")
    agent = podagent.agent_of(options)
    chosen = podagent.container(podagent.pod(agent, namespace, name), container)
    try:
        answer = b"".join(localagent.stream(agent, f"/checkpoint/{namespace}/{name}/{chosen}", "POST"))
    except localagent.AgentError as error:
        raise Failure(str(error), "it needs CRIU (apt install criu), one that `criu check` is content with") from error
    for path in msgspec.json.decode(answer)["items"]:
        click.echo(path)
