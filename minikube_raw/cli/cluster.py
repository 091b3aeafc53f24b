"""up, down, stop, start, status and kubeconfig: a cluster of several nodes on this host."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec
import yaml

from minikube_raw.api import quantity
from minikube_raw.cli import doctor, nodelogs, noderesources, processlist, runtimehandlers
from minikube_raw.cli import kubeconfig as kubeconfigs
from minikube_raw.cli.errors import Failure, need_root
from minikube_raw.cli.lifecycle import Cluster, check_port_free
from minikube_raw.cli.main import Options
from minikube_raw.cli.output import print_as
from minikube_raw.machine import remains, underlay
from minikube_raw.machine.layout import FIRST_NODE, ClusterRecord, Layout, NodeRecord, clusters

DEFAULT_NAME = "minikube-raw"
UNDERLAY_POOL = "10.243.0.0/16"
_NODE_PREFIX = 24  # of each node's pods
_LEAST_SERVICES = 30
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")  # RFC 1123, short enough for host names made from it
SAMPLE = Path(__file__).parent / "sample.yaml"

name_option = click.option(
    "--name", default=DEFAULT_NAME, show_default=True, help="Name of the cluster and its kubeconfig context."
)
timeout_option = click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the nodes.")


@click.command()
@name_option
@timeout_option
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1, 200), help="Number of nodes.")
@click.option(
    "--store",
    type=click.Choice(["sqlite"]),
    default="sqlite",
    show_default=True,
    help="Where the API keeps its objects.",
)
@click.option(
    "--api-port", default=6443, show_default=True, type=click.IntRange(1, 65535), help="Port of the API on 127.0.0.1."
)
@click.option("--pod-cidr", default="10.244.0.0/16", show_default=True, help="Pods' addresses, a /24 per node.")
@click.option("--service-cidr", default="10.96.0.0/12", show_default=True, help="Services' addresses.")
@click.option(
    "--node-cpus", type=click.FloatRange(min=0.01), help="CPUs of each node; without it nodes share the host's."
)
@click.option(
    "--node-memory", metavar="QUANTITY", help="Memory of each node, as in 2Gi; without it nodes share the host's."
)
@noderesources.options
@nodelogs.options
@runtimehandlers.option
@click.option(
    "--node-monitor-grace",
    default=16.0,
    show_default=True,
    help="Seconds without a heartbeat until a node is NotReady.",
)
@click.option(
    "--eviction-after",
    default=5.0,
    show_default=True,
    help="Seconds until the pods of a dead node move, where they do not say.",
)
@click.option("--sample", is_flag=True, help="Apply a small sample when the nodes are Ready.")
@click.pass_obj
def up(
    options: Options,
    /,
    name: str,
    timeout: float,
    nodes: int,
    store: str,
    api_port: int,
    pod_cidr: str,
    service_cidr: str,
    node_cpus: float | None,
    node_memory: str | None,
    node_monitor_grace: float,
    eviction_after: float,
    sample: bool,
    container_log_max_size: str,
    container_log_max_files: int,
    runtime_handler: tuple[str, ...],
    **kubelet: str | None,
) -> None:
    """Start a master and nodes on this host, in the background; returns when all nodes are Ready."""
    need_root("a cluster")
    check_name(name)
    for finding in doctor.refuse_if_hopeless():
        click.echo(f"note: {finding.what}")
    began = time.monotonic()
    layout = Layout(options.state_dir, options.run_dir, name)
    with one_at_a_time(layout):
        record = load(layout)
        if record is not None:
            if len(record.nodes) != nodes:
                raise Failure(
                    f"cluster {name} exists with {len(record.nodes)} nodes, not {nodes}",
                    f"`minikube-raw down --name {name}` removes it, `minikube-raw start --name {name}` repairs it",
                )
            click.echo(f"cluster {name} exists; bringing back what is missing")
        else:
            check_networks(pod_cidr, service_cidr, nodes)
            check_port_free(api_port)
            others = recorded(options.state_dir, options.run_dir)
            taken = [
                *underlay.networks_in_use(),
                *(each.underlay for each in others),
                *(each.pod_cidr for each in others),
            ]
            refuse_taken(pod_cidr, taken)
            record = ClusterRecord(
                name=name,
                link=free_link(others),
                underlay=underlay.free_network(UNDERLAY_POOL, [*taken, pod_cidr, service_cidr]),
                pod_cidr=pod_cidr,
                service_cidr=service_cidr,
                api_port=api_port,
                kubeconfig=str(kubeconfigs.default_path()),
                nodes=(),
                store=store,
                node_monitor_grace=node_monitor_grace,
                eviction_after=eviction_after,
                kubelet=noderesources.parse(kubelet)
                | nodelogs.parse(container_log_max_size, container_log_max_files)
                | {"oci_runtimes": runtimehandlers.parse(runtime_handler)},
            )
            record = with_nodes(record, nodes, node_cpus, parse_memory(node_memory))
            kubeconfigs.load(Path(record.kubeconfig))  # refuse a broken one now, not when everything runs
            layout.save(record)
        cluster = Cluster(layout, record, click.echo)
        cluster.start(timeout)
        if sample:
            cluster.apply(SAMPLE)
    click.echo(f"{nodes} node{'s are' if nodes > 1 else ' is'} Ready after {time.monotonic() - began:.1f} s")
    click.echo(next_steps(name, sample))


@click.command()
@name_option
@click.pass_obj
def down(options: Options, name: str) -> None:
    """Remove a cluster and everything it made on this host."""
    need_root("removing a cluster")
    layout = Layout(options.state_dir, options.run_dir, name)
    if not layout.state.exists() and not layout.run.exists():
        click.echo(f"there is no cluster {name} in {options.state_dir}")
        return
    with one_at_a_time(layout):
        Cluster(layout, what_is_left(layout), click.echo).remove()
    click.echo(f"cluster {name} is gone")


@click.command()
@name_option
@click.pass_obj
def stop(options: Options, name: str) -> None:
    """Power a cluster's machines off and end its master; its state stays."""
    need_root("stopping a cluster")
    layout = Layout(options.state_dir, options.run_dir, name)
    with one_at_a_time(layout):
        cluster_of(layout).stop()
    click.echo(f"cluster {name} is stopped; `minikube-raw start` brings it back")


@click.command()
@name_option
@timeout_option
@click.pass_obj
def start(options: Options, name: str, timeout: float) -> None:
    """Bring a stopped cluster back, or whichever of its processes is missing."""
    need_root("starting a cluster")
    layout = Layout(options.state_dir, options.run_dir, name)
    with one_at_a_time(layout):
        cluster_of(layout).start(timeout)
    click.echo(f"cluster {name} is up")


@click.command()
@name_option
@click.option("-o", "output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_obj
def status(options: Options, name: str, output: str) -> None:
    """Show nodes and processes of a cluster."""
    cluster = cluster_of(Layout(options.state_dir, options.run_dir, name))
    print_as(output, processlist.describe(cluster.layout, cluster.record), processlist.tables)


@click.command()
@name_option
@click.pass_obj
def kubeconfig(options: Options, name: str) -> None:
    """Print the kubeconfig of the cluster's administrator."""
    need_root("reading the administrator's key")
    config = cluster_of(Layout(options.state_dir, options.run_dir, name)).user_config()
    click.echo(yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False), nl=False)


def check_name(name: str) -> None:
    """Raise Failure unless the name can be a host name's part and a folder."""
    if not DNS_LABEL.fullmatch(name):
        raise Failure(
            f"{name!r} cannot name a cluster",
            "use at most 40 lower-case letters, digits and dashes, no dash first or last",
        )


def what_is_left(layout: Layout) -> ClusterRecord:
    """The record as far as removal needs it; what this host shows of the cluster where it is damaged, which is said."""
    try:
        if (record := layout.remains()) is not None:
            return record
        what = f"cluster {layout.name} has no record"
    except ValueError as error:
        what = f"{error}, and there is no good copy of it"
    click.echo(f"note: {what}; what this host shows of it is removed, and net.ipv4.ip_forward stays as it is")
    return remains.find(layout, kubeconfigs.default_path())


def load(layout: Layout) -> ClusterRecord | None:
    """The record, or None. Raises Failure when it is damaged."""
    try:
        return layout.load()
    except ValueError as error:
        raise Failure(
            str(error), f"`minikube-raw down --name {layout.name}` removes what can be found of it"
        ) from error


def cluster_of(layout: Layout) -> Cluster:
    """The cluster that the record describes. Raises Failure if there is none."""
    record = load(layout)
    if record is None:
        known = ", ".join(clusters(layout.state_root)) or "none"
        raise Failure(
            f"there is no cluster {layout.name} in {layout.state_root}",
            f"clusters there: {known}; `minikube-raw up` makes one",
        )
    return Cluster(layout, record, click.echo)


@contextlib.contextmanager
def one_at_a_time(layout: Layout) -> Iterator[None]:
    """Hold the installation's lock, or fail saying that another command works on it."""
    try:
        with layout.locked():
            yield
    except BlockingIOError as error:
        raise Failure(
            f"another minikube-raw command is at work in {layout.run_root}", "wait for it, or end it"
        ) from error


def parse_memory(text: str | None) -> int | None:
    """Bytes of a quantity. Raises Failure."""
    if text is None:
        return None
    try:
        return quantity.parse(text).value()
    except quantity.QuantityError as error:
        raise Failure(f"--node-memory {text}: {error}", "write it as 512Mi or 2Gi") from error


def recorded(state_dir: Path, run_dir: Path) -> list[ClusterRecord]:
    """The clusters of this installation, running or not. Raises Failure naming one whose record is damaged."""
    records = [load(Layout(state_dir, run_dir, name)) for name in clusters(state_dir)]
    return [record for record in records if record is not None]


def check_networks(pod_cidr: str, service_cidr: str, nodes: int) -> None:
    """Refuse networks that are none, overlap, or have no room: a /24 for each node, an address or two for Services. Raises Failure."""
    pods, services = _network("--pod-cidr", pod_cidr), _network("--service-cidr", service_cidr)
    if pods.prefixlen > _NODE_PREFIX or 1 << (_NODE_PREFIX - pods.prefixlen) < nodes:
        needed = _NODE_PREFIX - (nodes - 1).bit_length()
        raise Failure(
            f"--pod-cidr {pod_cidr} has no /{_NODE_PREFIX} for each of {nodes} nodes", f"give one of /{needed} or wider"
        )
    if services.prefixlen > _LEAST_SERVICES:
        raise Failure(f"--service-cidr {service_cidr} is too small", f"give one of /{_LEAST_SERVICES} or wider")
    if pods.overlaps(services):
        raise Failure(
            f"--pod-cidr {pod_cidr} and --service-cidr {service_cidr} overlap", "give them networks of their own"
        )


def _network(option: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise Failure(f"{option} {text} is not an IPv4 network: {error}", "write it as in 10.245.0.0/16") from error


def refuse_taken(pod_cidr: str, taken: Iterable[str]) -> None:
    """Refuse pods' addresses that others have: the host's routes to them would become ours, and go with us. Raises Failure."""
    clash = underlay.taken_inside(pod_cidr, taken)
    if clash is not None:
        raise Failure(
            f"--pod-cidr {pod_cidr}: {clash} in it is in use on this host, by another cluster maybe",
            "give this one a network of its own, as in --pod-cidr 10.245.0.0/16",
        )


def free_link(others: Iterable[ClusterRecord]) -> str:
    """The first of mkr0, mkr1, … that neither a device nor one of the other clusters, which may be stopped, has."""
    taken = {record.link for record in others} | underlay.device_names()
    return next(f"mkr{n}" for n in range(1000) if f"mkr{n}" not in taken)


def with_nodes(record: ClusterRecord, count: int, cpus: float | None, memory: int | None) -> ClusterRecord:
    """The record with `count` nodes, named after the cluster and numbered from 1."""
    network = ipaddress.ip_network(record.underlay)
    members = tuple(
        NodeRecord(f"{record.name}-{n + 1}", str(network[FIRST_NODE + n]), cpus, memory) for n in range(count)
    )
    return msgspec.structs.replace(record, nodes=members)


def next_steps(name: str, sample: bool) -> str:
    """What to try, for whoever sees a cluster for the first time."""
    lines = [f"kubectl is pointed at it (context {name}); try:", "  kubectl get nodes -o wide"]
    if shutil.which("kubectl") is None:
        lines.insert(0, "note: there is no kubectl on PATH; Debian's and Ubuntu's package is kubernetes-client")
    if sample:
        lines += ["  kubectl get pods -o wide", "  kubectl exec -it deploy/hello -- sh"]
    else:
        lines += ["  kubectl create deployment web --image=httpd --replicas=3"]
    return "\n".join([*lines, f"  {our_command()} status{'' if name == DEFAULT_NAME else f' --name {name}'}"])


def our_command() -> str:
    """How this shell reaches this installation: by name if PATH leads to it, else by its path from here."""
    script = Path(sys.executable).parent / "minikube-raw"
    found = shutil.which("minikube-raw")
    if found is not None and Path(found).resolve() == script.resolve():
        return "minikube-raw"
    return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)
