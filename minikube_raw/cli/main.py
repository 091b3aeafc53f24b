"""The command line: options every command shares, and commands imported only when they are called.

A command family lives in a module of its own; `minikube-raw pod list` must not pay for what `up` imports.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from minikube_raw.cli.errors import from_os_error
from minikube_raw.cli.lazygroup import LazyGroup

# command → (module, attribute, help line)
COMMANDS = {
    "up": ("cluster", "up", "start a master and nodes on this host, in the background"),
    "down": ("cluster", "down", "remove a cluster and everything it made on this host"),
    "stop": ("cluster", "stop", "power a cluster's machines off; its state stays"),
    "start": ("cluster", "start", "bring a stopped cluster back, or whichever of its processes is missing"),
    "status": ("cluster", "status", "nodes and processes of a cluster"),
    "kubeconfig": ("cluster", "kubeconfig", "print the cluster's kubeconfig"),
    "pod": ("pod", "pod", "pods on this host, with no master"),
    "image": ("image", "image", "images in this host's store"),
    "cni": ("cni", "cni", "our CNI plugins for others' runtimes"),
    "trace": ("trace", "trace", "every step a pod went through, timed"),
    "doctor": ("doctor", "doctor", "what on this host would hinder a cluster, and the cure"),
    "master": ("master", "master", "run a master in the foreground"),
    "node": ("node", "node", "run a node agent in the foreground"),
}


class Options:
    """What every command is told: where this installation keeps state and what belongs to one boot."""

    def __init__(self, state_dir: Path, run_dir: Path, debug: bool) -> None:
        self.state_dir = state_dir
        self.run_dir = run_dir
        self.debug = debug


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--state-dir",
    envvar="MINIKUBE_RAW_STATE_DIR",
    default="/var/lib/minikube-raw",
    show_default=True,
    type=click.Path(path_type=Path),
    help="What survives a reboot. [env: MINIKUBE_RAW_STATE_DIR]",
)
@click.option(
    "--run-dir",
    envvar="MINIKUBE_RAW_RUN_DIR",
    default="/run/minikube-raw",
    show_default=True,
    type=click.Path(path_type=Path),
    help="What belongs to one boot. [env: MINIKUBE_RAW_RUN_DIR]",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="minikube-raw")
@click.pass_context
def cli(ctx: click.Context, state_dir: Path, run_dir: Path, debug: bool) -> None:
    """A Kubernetes you can read: pods straight from namespaces, cgroups and overlayfs."""
    ctx.obj = Options(state_dir.absolute(), run_dir.absolute(), debug)


def shared_options_first(arguments: list[str]) -> list[str]:
    """Let the shared options stand after the command too (`up --state-dir DIR`), up to a `--`."""
    first: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in ("--state-dir", "--run-dir"):
            first += [word, *[value for value in [next(words, None)] if value is not None]]
        elif word == "--debug" or word.startswith(("--state-dir=", "--run-dir=")):
            first.append(word)
        else:
            rest.append(word)
    return first + rest


def main() -> None:
    """Run the command line; every expected failure is two lines on standard error, a traceback only with --debug."""
    arguments = shared_options_first(sys.argv[1:])
    debug = "--debug" in arguments
    try:
        sys.exit(cli.main(arguments, standalone_mode=False, prog_name="minikube-raw") or 0)
    except click.ClickException as error:
        error.show()
        if debug and error.__cause__:
            raise
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)  # the reader of our output left, as with `| head`
    except OSError as error:
        if debug:
            raise
        from_os_error(error).show()
        sys.exit(1)
