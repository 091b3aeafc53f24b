"""What a pod finds in /etc/resolv.conf and as its host name, decided by dnsPolicy, dnsConfig and the node's own file.

Pure; the runtime writes the files. Source: k8s.io/kubernetes/pkg/kubelet/network/dns.
"""

from __future__ import annotations

import msgspec

from minikube_raw.api.core import Pod, PodDNSConfig
from minikube_raw.runtime.cri import DNSConfig

HOST_NAME_MAX = 64  # sethostname(2)
MAX_SERVERS = 3  # resolvers ask no more
MAX_SEARCHES, MAX_SEARCH_LINE, MAX_SEARCH = 32, 2048, 253


class NameTooLong(ValueError):
    """A host name that the kernel would refuse."""


class ClusterDNS(msgspec.Struct, frozen=True):
    """What the cluster offers. Without servers ClusterFirst pods get the node's resolver, as upstream."""

    servers: tuple[str, ...] = ()
    domain: str = "cluster.local"


def parse_resolv_conf(text: str) -> DNSConfig:
    """resolv.conf(5): nameserver lines, the last search line, options."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) > 1 and words[0] == "nameserver":
            servers.append(words[1])
        elif words and words[0] in ("search", "domain"):
            searches = tuple(words[1:])
        elif words and words[0] == "options":
            options += words[1:]
    return DNSConfig(servers=tuple(servers), searches=searches, options=tuple(options))


def pod_dns(pod: Pod, cluster: ClusterDNS, node: DNSConfig) -> DNSConfig:
    """The resolver configuration of a pod, of which no more is kept than resolvers read."""
    asked = _asked(pod, cluster, node)
    return DNSConfig(servers=asked.servers[:MAX_SERVERS], searches=_fitting(asked.searches), options=asked.options)


def omissions(pod: Pod, cluster: ClusterDNS, node: DNSConfig) -> list[str]:
    """What of it was left out, as the messages of DNSConfigForming Events."""
    asked, given = _asked(pod, cluster, node), pod_dns(pod, cluster, node)
    kinds = (
        ("Nameserver", "nameservers", "nameserver", asked.servers, given.servers),
        ("Search Line", "search paths", "search", asked.searches, given.searches),
    )
    return [
        f"{what} limits were exceeded, some {many} have been omitted, the applied {line} line is: {' '.join(kept)}"
        for what, many, line, wanted, kept in kinds
        if wanted != kept
    ]


def _asked(pod: Pod, cluster: ClusterDNS, node: DNSConfig) -> DNSConfig:
    base = _by_policy(pod, cluster, node)
    config = pod.spec.dns_config
    return base if config is None else _merged(base, config)


def _fitting(searches: tuple[str, ...]) -> tuple[str, ...]:
    kept = [each for each in searches[:MAX_SEARCHES] if len(each) <= MAX_SEARCH]
    while len(" ".join(kept)) > MAX_SEARCH_LINE:
        kept.pop()
    return tuple(kept)


def _by_policy(pod: Pod, cluster: ClusterDNS, node: DNSConfig) -> DNSConfig:
    policy = pod.spec.dns_policy
    if policy == "None":
        return DNSConfig()
    cluster_first = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.host_network)
    if not cluster_first or not cluster.servers:
        return node
    namespace, domain = pod.metadata.namespace, cluster.domain
    searches = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)
    unique = searches + tuple(each for each in node.searches if each not in searches)
    return DNSConfig(servers=cluster.servers, searches=unique, options=("ndots:5",))


def _merged(base: DNSConfig, config: PodDNSConfig) -> DNSConfig:
    """dnsConfig adds servers and searches; an option of the same name replaces."""
    options = {each.split(":")[0]: each for each in base.options}
    for option in config.options:
        options[option.name] = f"{option.name}:{option.value}" if option.value else option.name
    return DNSConfig(
        servers=_unique(base.servers, config.nameservers),
        searches=_unique(base.searches, config.searches),
        options=tuple(options.values()),
    )


def _unique(first: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *more]))


def hostname_and_domain(pod: Pod, cluster_domain: str, node_name: str) -> tuple[str, str]:
    """(host name, qualified name or ""): spec.hostname, else the pod's name cut to 63; the node's with hostNetwork.

    spec.hostnameOverride goes before all but that, and is qualified as it is (KEP-4762).

    Raises NameTooLong when the qualified name is to be the host name and the kernel has no room for it.
    """
    if pod.spec.host_network:
        return node_name, ""
    if pod.spec.hostname_override:
        return pod.spec.hostname_override, ""
    name = pod.spec.hostname or pod.metadata.name[:63].rstrip("-.")
    if not pod.spec.subdomain:
        return name, ""
    qualified = f"{name}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}"
    if not pod.spec.set_hostname_as_fqdn:
        return name, qualified
    if len(qualified) > HOST_NAME_MAX:
        raise NameTooLong(
            f"Failed to construct FQDN from Pod hostname and cluster domain, FQDN {qualified} is too long "
            f"({HOST_NAME_MAX} characters is the max, {len(qualified)} characters requested)"
        )
    return qualified, qualified
