"""`minikube-raw pod …`: pods on this host with no master, in the manifests and words of Kubernetes.

This is the table of the family; a command lives in the module of its concern and is imported when it is called. Most are a
request to the standalone agent, which the first pod starts in the background and which leaves with the last.
"""

from __future__ import annotations

import click

from minikube_raw.cli.lazygroup import LazyGroup

# command → (module, attribute, help line)
COMMANDS = {
    "run": ("podrun", "run", "run the pods of a manifest and wait for them"),
    "list": ("podshow", "list_", "list the pods of this host"),
    "inspect": ("podshow", "inspect", "print a pod with its status"),
    "events": ("podshow", "events", "what has happened to pods lately"),
    "logs": ("podstreams", "logs", "print what containers have written"),
    "exec": ("podstreams", "exec_", "run a command in a container"),
    "attach": ("podstreams", "attach", "join the streams of a container's first process"),
    "cp": ("podcopy", "cp", "copy files and directories into and out of a container"),
    "port-forward": ("podforward", "port_forward", "local ports that end in a pod"),
    "checkpoint": ("podcheckpoint", "checkpoint", "save a running container to an archive that a pod can go on from"),
    "top": ("podprocesses", "top", "the processes of a pod"),
    "stats": ("podprocesses", "stats", "what pods use"),
    "start": ("podboot", "start", "bring pods back: all after a reboot, or one that was stopped"),
    "stop": ("podrun", "stop", "end a pod's containers; it stays listed"),
    "rm": ("podrun", "rm", "remove pods and everything of them"),
    "halt": ("podboot", "halt", "stop all pods as before a shutdown; `start` brings them back"),
    "enable": ("podboot", "enable", "have systemd bring pods back after a reboot"),
    "disable": ("podboot", "disable", "have systemd leave pods alone again"),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def pod() -> None:
    """Pods on this host, with no master."""
