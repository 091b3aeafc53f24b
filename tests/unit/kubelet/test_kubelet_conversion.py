"""From a Pod's fields to what the runtime is asked for; values compared with what a real kubelet wrote."""

from __future__ import annotations

import msgspec
import pytest
from pod_builders import pod

from minikube_raw.api.core import ConfigMap, Secret, Service, ServicePort, ServiceSpec
from minikube_raw.api.meta import ObjectMeta
from minikube_raw.kubelet import convert, dns, downward, env, qos
from minikube_raw.kubelet.pods import from_manifest
from minikube_raw.runtime import cri

NODE = convert.NodeFacts(
    name="n1",
    ip="10.243.0.11",
    cluster=dns.ClusterDNS(("10.96.0.10",)),
    resolver=cri.DNSConfig(("192.0.2.1",), ("example.org",)),
    memory_capacity=24_684_092 * 1024,
    allocatable={"cpu": "2", "memory": "8Gi"},
)
GUARANTEED = {"limits": {"cpu": "100m", "memory": "32Mi"}}
CLUSTER_SEARCHES = ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org")


def with_resources(*resources: dict) -> object:
    return pod(containers=[{"name": f"c{n}", "image": "i", "resources": each} for n, each in enumerate(resources)])


def test_a_pod_is_limited_only_if_each_container_is() -> None:
    both, one = with_resources(GUARANTEED, GUARANTEED), with_resources(GUARANTEED, {})

    assert (qos.pod_resources(both).cpu_quota, qos.pod_resources(both).memory_limit_in_bytes) == (20_000, 67_108_864)
    assert (qos.pod_resources(one).cpu_quota, qos.pod_resources(one).memory_limit_in_bytes) == (None, None)
    assert qos.qos_class(one) == "Burstable"


def test_service_variables_are_dockers_links_and_kubernetes_own() -> None:
    ports = (ServicePort(name="http-x", port=80), ServicePort(name="udp", port=53, protocol="UDP"))
    service = Service(metadata=ObjectMeta(name="my-svc"), spec=ServiceSpec(cluster_ip="10.96.0.9", ports=ports))

    assert env.service_variables([service]) == {
        "MY_SVC_SERVICE_HOST": "10.96.0.9",
        "MY_SVC_SERVICE_PORT": "80",
        "MY_SVC_SERVICE_PORT_HTTP_X": "80",
        "MY_SVC_SERVICE_PORT_UDP": "53",
        "MY_SVC_PORT": "tcp://10.96.0.9:80",
        "MY_SVC_PORT_80_TCP": "tcp://10.96.0.9:80",
        "MY_SVC_PORT_80_TCP_PROTO": "tcp",
        "MY_SVC_PORT_80_TCP_PORT": "80",
        "MY_SVC_PORT_80_TCP_ADDR": "10.96.0.9",
        "MY_SVC_PORT_53_UDP": "udp://10.96.0.9:53",
        "MY_SVC_PORT_53_UDP_PROTO": "udp",
        "MY_SVC_PORT_53_UDP_PORT": "53",
        "MY_SVC_PORT_53_UDP_ADDR": "10.96.0.9",
    }


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)-$(C)-$$(A)", "x-$(C)-$(A)"),
        ("$$$$", "$$"),
        ("$A $(", "$A $("),
        ("$(NONE)", "$(NONE)"),
        ("$($(A))", "$($(A))"),
        ("$(B $(A)", "$(B $(A)"),
    ],
)
def test_references_expand_to_earlier_variables(text, expanded) -> None:
    assert env.expand(text, {"A": "x"}) == expanded


def test_variables_come_from_fields_config_maps_and_secrets() -> None:
    variables = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LAB", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['l']"}}},
        {"name": "PIP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LC", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "RCM", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        {"name": "CM", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
        {"name": "SEC", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
        {"name": "OPT", "valueFrom": {"secretKeyRef": {"name": "nosuch", "key": "k", "optional": True}}},
        {"name": "ALL", "value": "$(NAME)/$(P_a)"},
    ]
    sources = [{"prefix": "P_", "configMapRef": {"name": "cm"}}]
    spec = {"name": "c", "env": variables, "envFrom": sources, "resources": {"requests": {"cpu": "50m"}}}
    wish = pod(containers=[spec], metadata={"labels": {"l": "v1"}})
    referred = env.Referred({"cm": ConfigMap(data={"k": "v", "a": "b"})}, {"sec": Secret(data={"k": "cw=="})})

    got = convert.variables(wish, wish.spec.containers[0], referred, downward.Addresses("h", ("10.244.1.5",)), NODE)

    assert got == {
        "P_k": "v",
        "P_a": "b",
        "NAME": "p",
        "LAB": "v1",
        "PIP": "10.244.1.5",
        "LC": "2",
        "RCM": "50",
        "CM": "v",
        "SEC": "s",
        "ALL": "p/b",
    }


@pytest.mark.parametrize(
    ("own", "whole", "told"),
    [
        pytest.param({"memory": "16Mi"}, {"memory": "64Mi"}, "16", id="the container's own"),
        pytest.param({}, {"memory": "64Mi"}, "64", id="else its pod's"),
        pytest.param({}, {"cpu": "1"}, "8192", id="else what the node has"),
        pytest.param({"memory": "0"}, {}, "8192", id="none is no limit"),
    ],
)
def test_a_container_is_told_the_limit_that_bounds_it(own: dict[str, str], whole: dict[str, str], told: str) -> None:
    reference = {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}
    spec = {"name": "c", "env": [{"name": "A", "valueFrom": reference}], "resources": {"limits": own}}
    wish = pod(containers=[spec], resources={"limits": whole})

    got = convert.variables(wish, wish.spec.containers[0], env.Referred(), downward.Addresses("h"), NODE)

    assert got == {"A": told}


def test_a_container_is_told_of_no_huge_pages_that_it_did_not_ask_for() -> None:
    """Nobody gets those without asking, however many the node has."""
    reference = {"resourceFieldRef": {"resource": "limits.hugepages-2Mi", "divisor": "1Mi"}}
    wish = pod(containers=[{"name": "c", "env": [{"name": "A", "valueFrom": reference}]}])
    node = msgspec.structs.replace(NODE, allocatable={"hugepages-2Mi": "64Mi"})

    assert convert.variables(wish, wish.spec.containers[0], env.Referred(), downward.Addresses("h"), node) == {"A": "0"}


def test_of_a_config_map_only_text_becomes_a_variable() -> None:
    """Its binary data cannot be one: a NUL byte would keep the container from its start."""
    sources = [{"configMapRef": {"name": "cm"}}]
    by_key = {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "b", "optional": True}}}
    wish = pod(containers=[{"name": "c", "env": [by_key], "envFrom": sources}])
    referred = env.Referred({"cm": ConfigMap(data={"a": "x"}, binary_data={"b": "AAH/"})})

    assert convert.variables(wish, wish.spec.containers[0], referred, downward.Addresses("h"), NODE) == {"a": "x"}


def test_a_variable_with_a_nul_byte_is_named() -> None:
    wish = pod(containers=[{"name": "c", "envFrom": [{"secretRef": {"name": "sec"}}]}])
    referred = env.Referred(secrets={"sec": Secret(data={"KEY": "AAH/"})})

    with pytest.raises(env.ConfigError, match='environment variable "KEY" contains a NUL byte'):
        convert.variables(wish, wish.spec.containers[0], referred, downward.Addresses("h"), NODE)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"configMapKeyRef": {"name": "nosuch", "key": "k"}}, 'configmap "nosuch" not found'),
        ({"secretKeyRef": {"name": "nosuch", "key": "k"}}, 'secret "nosuch" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "nokey"}}, "couldn't find key nokey in ConfigMap ns/cm"),
    ],
)
def test_what_is_missing_is_said_in_kubernetes_words(reference, message) -> None:
    wish = pod(containers=[{"name": "c", "env": [{"name": "A", "valueFrom": reference}]}])
    referred = env.Referred({"cm": ConfigMap(data={"k": "v"})})

    with pytest.raises(env.ConfigError, match=message):
        convert.variables(wish, wish.spec.containers[0], referred, downward.Addresses("h"), NODE)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(
            {},
            cri.DNSConfig(
                ("10.96.0.10",),
                ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"),
                ("ndots:5",),
            ),
            id="ClusterFirst",
        ),
        pytest.param({"dnsPolicy": "Default"}, NODE.resolver, id="Default"),
        pytest.param({"hostNetwork": True}, NODE.resolver, id="ClusterFirst with hostNetwork is the node's"),
        pytest.param(
            {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4"], "options": [{"name": "ndots", "value": "2"}]}},
            cri.DNSConfig(("1.2.3.4",), (), ("ndots:2",)),
            id="None",
        ),
        pytest.param(
            {"dnsPolicy": "None", "dnsConfig": {"options": [{"name": "edns0"}, {"name": "trust-ad", "value": ""}]}},
            cri.DNSConfig((), (), ("edns0", "trust-ad")),
            id="options without a value",
        ),
    ],
)  # fmt: skip
def test_resolv_conf_by_policy(spec, expected) -> None:
    assert dns.pod_dns(pod(**spec), NODE.cluster, NODE.resolver) == expected


@pytest.mark.parametrize(
    ("config", "kept", "told"),
    [
        pytest.param(
            {"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3"]},
            cri.DNSConfig(("10.96.0.10", "1.1.1.1", "2.2.2.2"), CLUSTER_SEARCHES, ("ndots:5",)),
            [("Nameserver limits were exceeded, some nameservers have been omitted, "
             "the applied nameserver line is: 10.96.0.10 1.1.1.1 2.2.2.2")],
            id="three servers",
        ),
        pytest.param(
            {"searches": ["x" * 254, *[f"s{number}" for number in range(28)]]},
            cri.DNSConfig(("10.96.0.10",), (*CLUSTER_SEARCHES, *[f"s{number}" for number in range(27)]), ("ndots:5",)),
            ["Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
             + " ".join([*CLUSTER_SEARCHES, *[f"s{number}" for number in range(27)]])],
            id="32 searches, none longer than a name",
        ),
        pytest.param(
            {"searches": [letter * 250 for letter in "abcdefgh"]},
            cri.DNSConfig(("10.96.0.10",), (*CLUSTER_SEARCHES, *[letter * 250 for letter in "abcdefg"]), ("ndots:5",)),
            ["Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
             + " ".join([*CLUSTER_SEARCHES, *[letter * 250 for letter in "abcdefg"]])],
            id="2048 characters of searches",
        ),
        pytest.param(
            {"searches": ["a.b"]},
            cri.DNSConfig(("10.96.0.10",), (*CLUSTER_SEARCHES, "a.b"), ("ndots:5",)),
            [],
            id="what fits is told to nobody",
        ),
    ],
)  # fmt: skip
def test_resolv_conf_has_no_more_than_resolvers_read_and_what_is_left_out_is_told(config, kept, told) -> None:
    wish = pod(dnsConfig=config)

    assert dns.pod_dns(wish, NODE.cluster, NODE.resolver) == kept
    assert dns.omissions(wish, NODE.cluster, NODE.resolver) == told


def test_a_sandbox_config_says_which_namespaces_are_the_nodes() -> None:
    config = convert.sandbox_config(pod(hostNetwork=True, hostPID=True), 2, "/logs", NODE)

    assert config.namespaces == cri.NamespaceOption(cri.NamespaceMode.NODE, cri.NamespaceMode.NODE)
    assert (config.hostname, config.attempt) == ("n1", 2)


def test_a_containers_security_context_goes_before_the_pods() -> None:
    container = {"name": "c", "securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": False}}
    shared = {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}
    wish = pod(containers=[container], securityContext=shared)

    config = convert.container_config(wish, wish.spec.containers[0], 0, convert.Prepared("sha256:abc"), NODE)

    assert (config.security.run_as_user, config.security.run_as_group) == (7, 2)
    assert config.security.supplemental_groups == (4, 3)
    assert config.security.no_new_privs


@pytest.mark.parametrize(
    ("shared", "own", "expected"),
    [
        ({}, {}, {}),
        ({"runAsUser": 5}, {"runAsUser": 0}, {"run_as_user": 0}),
        ({"supplementalGroups": [7], "fsGroup": 8}, {}, {"supplemental_groups": (7, 8)}),
        ({}, {"privileged": True}, {"privileged": True}),
        ({}, {"privileged": True, "allowPrivilegeEscalation": False}, {"privileged": True}),
        ({}, {"allowPrivilegeEscalation": False}, {"no_new_privs": True}),
        ({}, {"allowPrivilegeEscalation": True}, {}),
        (
            {},
            {"allowPrivilegeEscalation": False, "capabilities": {"add": ["SYS_ADMIN"]}},
            {"add_capabilities": ("SYS_ADMIN",), "no_new_privs": True},
        ),
        (
            {},
            {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}},
            {"add_capabilities": ("NET_ADMIN",), "drop_capabilities": ("ALL",)},
        ),
        ({}, {"readOnlyRootFilesystem": True}, {"readonly_rootfs": True}),
        ({}, {"procMount": "Unmasked"}, {"unmasked_proc": True}),
        ({}, {"procMount": "Default"}, {}),
        ({"seccompProfile": {"type": "Unconfined"}}, {}, {"seccomp": cri.SecurityProfile(cri.ProfileType.UNCONFINED)}),
        ({"seccompProfile": {"type": "Unconfined"}}, {"seccompProfile": {"type": "RuntimeDefault"}}, {}),
        (
            {},
            {"seccompProfile": {"type": "Localhost", "localhostProfile": "audit/p.json"}},
            {"seccomp": cri.SecurityProfile(cri.ProfileType.LOCALHOST, "/state/seccomp/audit/p.json")},
        ),
        (
            {"appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}},
            {},
            {"apparmor": cri.SecurityProfile(cri.ProfileType.LOCALHOST, "mine")},
        ),
        ({"seLinuxOptions": {"level": "s0:c1,c2"}}, {"seLinuxOptions": {"type": "t"}}, {}),
    ],
)
def test_each_field_of_a_security_context_reaches_the_runtime(shared: dict, own: dict, expected: dict) -> None:
    wish = pod(securityContext=shared, containers=[{"name": "c", "securityContext": own}])
    asked = wish.spec.containers[0].security_context

    assert asked is not None
    assert convert.security_context(wish, asked, "/state/seccomp") == cri.SecurityContext(**expected)


def test_a_pod_with_users_of_its_own_asks_for_a_user_namespace() -> None:
    assert convert.sandbox_config(pod(hostUsers=False), 0, "/logs", NODE).user_namespace
    assert not convert.sandbox_config(pod(), 0, "/logs", NODE).user_namespace


def test_commands_are_expanded_with_the_containers_own_variables() -> None:
    wish = pod(containers=[{"name": "c", "command": ["echo", "$(A)"], "args": ["$$(A)"]}])

    config = convert.container_config(wish, wish.spec.containers[0], 1, convert.Prepared("i", {"A": "x"}), NODE)

    assert (config.command, config.args, config.log_path) == (("echo", "x"), ("$(A)",), "c/1.log")


def test_annotations_are_quoted_as_go_does() -> None:
    annotations = {"a": 'line1\nline"2"\\té'}
    wish = from_manifest({"metadata": {"name": "p", "annotations": annotations}, "spec": {}})

    assert downward.field(wish, "metadata.annotations", downward.Addresses("h")) == 'a="line1\\nline\\"2\\"\\\\té"'


def test_a_qualified_name_is_the_host_name_only_if_the_kernel_has_room_for_it() -> None:
    spec = {"hostname": "hh", "subdomain": "sub", "setHostnameAsFQDN": True}

    assert dns.hostname_and_domain(pod(**spec), "cluster.local", "n1") == ("hh.sub.ns.svc.cluster.local",) * 2
    with pytest.raises(dns.NameTooLong, match=r"is too long \(64 characters is the max, 87 characters requested\)"):
        dns.hostname_and_domain(pod(**spec | {"subdomain": "s" * 63}), "cluster.local", "n1")


def test_a_host_name_that_overrides_replaces_all_others_but_the_nodes() -> None:
    spec = {"hostname": "hh", "subdomain": "sub", "hostnameOverride": "db.example.org"}

    assert dns.hostname_and_domain(pod(**spec), "cluster.local", "n1") == ("db.example.org", "")
    assert dns.hostname_and_domain(pod(**spec, hostNetwork=True), "cluster.local", "n1") == ("n1", "")
