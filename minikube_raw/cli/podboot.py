"""`pod start`, `halt`, `enable` and `disable`: pods across reboots, by hand or by systemd.

Manifests in the state directory are the wish; whatever of a pod an earlier boot left is history that the agent tidies up.
The unit runs `pod start` when the machine comes up and `pod halt` before it goes down, so that pods get their grace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import click
import yaml

from minikube_raw.api.plain_text import one_line
from minikube_raw.cli import podagent
from minikube_raw.cli.errors import Failure, need_root
from minikube_raw.cli.main import Options
from minikube_raw.cli.podagent import Json, namespace_option, timeout_option
from minikube_raw.kubelet import localagent, manifests
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.linux import durability

UNIT = "minikube-raw-pods.service"
UNIT_DIRECTORY = Path("/etc/systemd/system")
_UNIT = """\
# Written by `minikube-raw pod enable`; `minikube-raw pod disable` takes it away.
[Unit]
Description=Pods of minikube_raw in {state_dir}
Documentation=https://kubernetes.io/docs/concepts/workloads/pods/
Wants=network-online.target
After=network-online.target local-fs.target
RequiresMountsFor={state_dir}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command} --state-dir {state_dir} --run-dir {run_dir} pod start --no-wait
ExecStop={command} --state-dir {state_dir} --run-dir {run_dir} pod halt
# The agent, its launcher and the keepers outlive the command, and end by `pod halt`, not by a signal from here.
KillMode=process
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
TimeoutStopSec=180

[Install]
WantedBy=multi-user.target
"""


@click.command()
@click.argument("name", required=False)
@namespace_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return when they have started.")
@timeout_option
@click.pass_obj
def start(options: Options, name: str | None, namespace: str, wait: bool, timeout: float) -> None:
    """Bring back what should run: all pods after a reboot or `halt`, or NAME after it was stopped or has ended."""
    need_root("starting pods")
    agent, began = podagent.agent_of(options), time.time()
    if name is not None:
        wanted = [_begin_anew(agent, namespace, name)]
    else:
        wanted = _wished(agent)
        if wanted or Path(agent.run_dir).exists():  # an agent that was killed while it removed the last pod left that
            with localagent.take_lock(agent):
                podagent.ensure(agent)
    for each in wanted if wait else ():
        podagent.wait_for(agent, each, "started", timeout, began)


def _wished(agent: KubeletOptions) -> list[Json]:
    """The pods that were not stopped by hand."""
    pods = []
    for path in sorted(agent.manifests_dir.glob("*.yaml")):
        try:
            pod, _ = manifests.documents(path)
        except (OSError, ValueError, yaml.YAMLError) as error:
            click.echo(f"{path} is left out: {one_line(' '.join(str(error).split()))}", err=True)
            continue
        if manifests.STOPPED not in pod["metadata"].get("annotations", {}):
            pods.append(pod)
    return pods


def _begin_anew(agent: KubeletOptions, namespace: str, name: str) -> Json:
    """A pod that has ended stays ended: one of the same manifest takes its place. One that runs is left as it is."""
    path = podagent.manifest(agent, namespace, name)
    with localagent.take_lock(agent):
        pod, objects = manifests.documents(path)
        stopped = pod["metadata"].get("annotations", {}).pop(manifests.STOPPED, None) is not None
        if stopped or _has_ended(agent, pod["metadata"]["uid"]):
            pod["metadata"]["uid"] = str(uuid.uuid4())
            manifests.write(path, pod, objects)
        podagent.ensure(agent)
    return pod


def _has_ended(agent: KubeletOptions, uid: str) -> bool:
    found = next((each for each in podagent.pods(agent)["items"] if each["metadata"]["uid"] == uid), None)
    return found is not None and found["status"].get("phase") in ("Succeeded", "Failed")


@click.command()
@click.pass_obj
def halt(options: Options) -> None:
    """Stop every pod with its grace, as before a shutdown, and leave nothing running; the pods stay wished for."""
    need_root("stopping pods")
    agent = podagent.agent_of(options)
    if not localagent.answers(agent):
        if not Path(agent.run_dir).exists():
            return
        with localagent.take_lock(agent):  # pods outlive an agent that was ended: another one gives them their grace
            podagent.ensure(agent)
    try:
        localagent.halt(agent)
    except localagent.AgentError as error:
        raise Failure(str(error), f"see {agent.state_dir}/agent.log") from error
    podagent.until_left(agent)


@click.command()
@click.option("--print", "only_print", is_flag=True, help="Print the unit and install nothing.")
@click.option("--unit-dir", type=click.Path(path_type=Path), default=UNIT_DIRECTORY, show_default=True)
@click.pass_obj
def enable(options: Options, only_print: bool, unit_dir: Path) -> None:
    """Have systemd bring this host's pods back after a reboot, and give them their grace before one."""
    text = unit(options)
    if only_print:
        click.echo(text, nl=False)
        return
    need_root("installing a systemd unit")
    if not unit_dir.is_dir():
        raise Failure(
            f"{unit_dir} is not there: this host has no systemd", "run `minikube-raw pod start` at boot another way"
        )
    durability.write_file(unit_dir / UNIT, text.encode(), sync=True, mode=0o644)
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", UNIT)
    durability.sync_file_system(str(unit_dir))  # systemctl's link too outlives a power cut
    click.echo(f"wrote {unit_dir / UNIT}")


@click.command()
@click.option("--unit-dir", type=click.Path(path_type=Path), default=UNIT_DIRECTORY, show_default=True)
@click.pass_obj
def disable(options: Options, unit_dir: Path) -> None:
    """Take the systemd unit away; pods that run go on."""
    need_root("removing a systemd unit")
    path = unit_dir / UNIT
    if not path.exists():
        raise Failure(f"{path} is not there", "nothing brings pods back; `minikube-raw pod enable` would")
    _systemctl("disable", UNIT)
    path.unlink()
    _systemctl("daemon-reload")


def unit(options: Options) -> str:
    """The unit's text for an installation."""
    command = shutil.which("minikube-raw", path=str(Path(sys.executable).parent))
    return _UNIT.format(
        command=_quoted(command) if command else f"{_quoted(sys.executable)} -m minikube_raw",
        state_dir=_quoted(str(options.state_dir)),
        run_dir=_quoted(str(options.run_dir)),
    )


def _quoted(path: str) -> str:
    """A path as systemd reads it in a unit (systemd.syntax(7), systemd.unit(5) specifiers)."""
    if "\n" in path:
        raise Failure(f"{path!r} cannot stand in a unit", "use a directory without a line break in its name")
    escaped = path.replace("%", "%%").replace("\\", "\\\\")
    return '"' + escaped.replace('"', '\\"') + '"' if any(c in path for c in ' "\\') else escaped


def _systemctl(*words: str) -> None:
    """Ask systemd, where it is what runs this machine."""
    if not os.path.isdir("/run/systemd/system"):
        click.echo(f"systemd does not run here: skipped `systemctl {' '.join(words)}`", err=True)
        return
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"systemctl {' '.join(words)}: {done.stderr.strip()}", "see `journalctl -u " + UNIT + "`")
