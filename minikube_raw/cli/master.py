"""`master run`: API server, scheduler and controllers in one process; `master init` prepares one on a machine of its own.

Scheduler and controllers talk to the API server through the same client code that runs over HTTP, as users of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import msgspec
import uvloop

from minikube_raw.api import plain_text
from minikube_raw.apiserver import pki, server
from minikube_raw.cli.errors import Failure
from minikube_raw.cli.main import Options
from minikube_raw.cli.masteroptions import MasterOptions
from minikube_raw.client.informer import Informers
from minikube_raw.client.rest import Client
from minikube_raw.controllers import manager
from minikube_raw.controllers.options import Options as ControllerOptions
from minikube_raw.linux import process, proctitle
from minikube_raw.scheduler.scheduler import Scheduler
from minikube_raw.store.kv import StoreError
from minikube_raw.store.sqlite import SQLiteStore

log = logging.getLogger(__name__)

# From ip(7): lets the API listen on the underlay before its cable is plugged in, so that both are made at the same time.
IP_FREEBIND = 15
# Objects are bytes: what the collector would walk more often holds next to nothing that it could free.
COLLECTOR_THRESHOLDS = (50_000, 20, 50)


@click.group()
def master() -> None:
    """Run a master in the foreground."""


@master.command()
@click.option(
    "--config", type=click.Path(path_type=Path), help="JSON file of options.  [default: STATE/master/master.json]"
)
@click.pass_obj
def run(options: Options, config: Path | None) -> None:
    """Serve the API and run scheduler and controllers until SIGTERM."""
    chosen = load(config or options.state_dir / "master/master.json")
    plain_text.log_to_stderr()
    proctitle.set_title(f"master :{chosen.port}")
    process.go_first()
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(serve(chosen))


@master.command()
@click.option("--address", required=True, help="This machine's address as the nodes reach it.")
@click.option("--port", default=6443, show_default=True)
@click.pass_obj
def init(options: Options, address: str, port: int) -> None:
    """Make the certificates and the options of a master on this machine; doing it again keeps what is there."""
    folder = options.state_dir / "master"
    made = pki.load_or_create_pki(folder / "pki", server_names=(address, socket.gethostname()))
    addresses = ("127.0.0.1", address)
    chosen = MasterOptions(store=str(folder / "store.sqlite"), pki=str(made.directory), addresses=addresses, port=port)
    (folder / "master.json").write_bytes(msgspec.json.format(msgspec.json.encode(chosen), indent=2))
    click.echo(f"a master for {address}:{port} is prepared in {folder}; `minikube-raw master run` starts it")


def load(path: Path) -> MasterOptions:
    """Read a master's options. Raises Failure naming the file and the field that is wrong."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=MasterOptions)
    except FileNotFoundError as error:
        raise Failure(f"there is no {path}", "`minikube-raw master init` writes it") from error
    except msgspec.MsgspecError as error:
        raise Failure(f"{path}: {error}", "write the field as the message says") from error


async def serve(options: MasterOptions) -> None:
    """Run everything in one task group; ends when it is cancelled or a part of it fails."""
    _cancel_on_signals()
    threads = ThreadPoolExecutor(thread_name_prefix="master", initializer=process.go_with_others)
    asyncio.get_running_loop().set_default_executor(threads)  # not the store's own, for which every write waits
    store = SQLiteStore(Path(options.store))
    try:
        await store.open()
    except StoreError as error:
        raise Failure(str(error)) from error
    api = server.APIServer(store, serving(options))
    await api.start()
    controllers = Client(api.local_transport("system:kube-controller-manager"), user_agent="kube-controller-manager")
    scheduling = Client(api.local_transport("system:kube-scheduler"), user_agent="kube-scheduler")
    informers = Informers(scheduling)
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(informers.run())
            tasks.create_task(manager.run(controllers, controlling(options), informers=informers))
            tasks.create_task(Scheduler(scheduling, informers).run())
    finally:
        await api.stop()
        await store.close()


def serving(options: MasterOptions) -> server.Options:
    """How the API server serves: which sockets, which certificates."""
    folder = Path(options.pki)
    return server.Options(
        listeners=[listen(address, options.port) for address in options.addresses],
        server_certificate=(folder / "apiserver.crt", folder / "apiserver.key"),
        client_ca=folder / "ca.crt",
        kubelet_client=(folder / "apiserver-kubelet-client.crt", folder / "apiserver-kubelet-client.key"),
        token_keys=token_keys(folder),
        service_cidr=options.service_cidr,
        advertise=f"{options.addresses[-1]}:{options.port}",
    )


def token_keys(folder: Path) -> tuple[Path, Path] | None:
    """The files that sign and judge service accounts' tokens; a master prepared by a release without tokens has none."""
    keys = folder / "sa.key", folder / "sa.jwks"
    if all(path.exists() for path in keys):
        return keys
    log.warning("no %s: service accounts get no tokens until `minikube-raw master init` has made it", keys[0])
    return None


def controlling(options: MasterOptions) -> ControllerOptions:
    """How patient the controllers are, and with which networks."""
    return ControllerOptions(
        cluster_cidr=options.pod_cidr,
        root_ca=Path(options.pki, "ca.crt").read_text(),
        node_grace_period=options.node_monitor_grace,
        eviction_seconds=options.eviction_after,
    )


def listen(address: str, port: int) -> socket.socket:
    """A socket bound to an address, which need not exist yet. Raises Failure when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        cure = "end the process that listens there, or choose another port"
        raise Failure(f"{address}:{port}: {error.strerror}", cure) from error
    return listener


def _cancel_on_signals() -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
