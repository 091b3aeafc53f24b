"""What containers are started with, how their ends are told, and init containers, as Kubernetes' conformance suite asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.clusters import Cluster

pytestmark = pytest.mark.root
Pod = dict[str, Any]
LAST_WORDS = {"terminationMessagePolicy": "FallbackToLogsOnError"}


def container(script: str | None = None, *, name: str = "c", image: str = "busybox", **more: Any) -> dict[str, Any]:
    command = {} if script is None else {"command": ["sh", "-c", script]}
    return {"name": name, "image": image, **command, **more}


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> Pod:
    body = {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def inits(*scripts: str) -> dict[str, Any]:
    return {"initContainers": [container(script, name=f"i{number}") for number, script in enumerate(scripts, 1)]}


VARIABLES = [{"name": "FOO", "value": "foo-value"}, {"name": "BAR", "value": "$(FOO);;$(NOPE);;$$(FOO)"}]
HOSTS = "cat /etc/hosts; echo; hostname; hostname -f"

# Fails, then succeeds, then runs on.
THREE_LIVES = "echo x >> /v/lives; case $(wc -l < /v/lives) in 1) exit 1;; 2) exit 0;; esac; exec sleep 3600"
LIVES = {"volumes": [{"name": "v", "emptyDir": {}}]}

PODS = [
    pod("message", container("echo -n DONE > /dev/termination-log; exit 1")),
    pod(
        "message-elsewhere",
        container(
            "echo -n DONE > /tmp/last/words",
            terminationMessagePath="/tmp/last/words",
            securityContext={"runAsUser": 1000, "runAsNonRoot": True},
        ),
    ),
    pod("message-in-dev", container("echo -n DONE > /dev/termination-custom-log",
        terminationMessagePath="/dev/termination-custom-log", securityContext={"runAsUser": 1000})),
    pod("message-log", container("echo -n DONE; exit 1", **LAST_WORDS)),
    pod("message-none", container("echo -n DONE", **LAST_WORDS)),
    pod("message-file", container("echo -n OK > /dev/termination-log; echo DONE", **LAST_WORDS)),
    pod("ends-0", container("exit 0")),
    pod("ends-3", container("exit 3")),
    pod("ends-on-failure", container("exit 1"), restartPolicy="OnFailure"),
    pod("ends-always", container("exit 0"), restartPolicy="Always"),
    *(pod(f"lives-{policy.lower()}", container(THREE_LIVES, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        restartPolicy=policy, **LIVES) for policy in ("Always", "OnFailure", "Never")),
    pod("no-program", container(command=["/nosuch"])),
    pod("shell-127", container("nosuch")),
    pod("segfault", container("sleep 0.1 & kill -SEGV $$$$; wait"), shareProcessNamespace=True),
    pod("defaults", container(image="httpd", name="c"), restartPolicy="Always"),
    pod("own-args", container(image="busybox", args=["echo", "override", "arguments"])),
    pod("own-command", container(image="httpd", command=["echo", "override"])),
    pod("own-both", container(command=["echo"], args=["override", "both"])),
    pod("env-file", container("echo $A", env=[
        {"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "made.env", "key": "B"}}}]),
        initContainers=[container("""echo "B='from a file'" > /v/made.env""", name="i",
                                  volumeMounts=[{"name": "v", "mountPath": "/v"}])],
        volumes=[{"name": "v", "emptyDir": {}}]),
    pod("variables", container('echo "$BAR"', env=VARIABLES)),
    pod("in-command", container("echo $(FOO)", env=VARIABLES)),
    pod("in-args", container(command=["echo"], args=["a-$(FOO)", "$(NOPE)", "$$(FOO)", "$$$$"], env=VARIABLES)),
    pod("read-only", container("echo x > /file", securityContext={"readOnlyRootFilesystem": True})),
    pod("aliases", container(HOSTS), hostAliases=[{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]),
    pod("named", container(HOSTS), hostname="hh", subdomain="sub"),
    pod("in-node", container("cat /etc/hosts"), hostNetwork=True, hostAliases=[{"ip": "192.0.2.7", "hostnames": ["far"]}]),
    pod("own-hosts", container("cat /etc/hosts", volumeMounts=[{"name": "v", "mountPath": "/etc/hosts", "subPath": "hosts"}]),
        volumes=[{"name": "v", "configMap": {"name": "hosts"}}]),
    pod("init-never", container("echo main"), **inits("exit 0", "exit 0")),
    pod("init-always", container("exec sleep 3600"), **inits("exit 0", "exit 0"), restartPolicy="Always"),
    pod("init-fails-never", container("echo main"), **inits("exit 0", "exit 1", "exit 0")),
    pod("init-fails-always", container("exec sleep 3600"), **inits("exit 1", "exit 0"), restartPolicy="Always"),
    pod("rules", container("exit 42", restartPolicy="Never", restartPolicyRules=[
        {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}])),
    pod("own-never", container("exit 3", restartPolicy="Never"), container("exec sleep 3600", name="d"), restartPolicy="Always"),
    pod("one-pid-space", container("exec sleep 3600"), container("sleep 0.5; ps", name="d"), shareProcessNamespace=True),
    pod("gang", container("exec sleep 3600"), container(
            "[ -f /v/once ] || { touch /v/once; exit 88; }; exec sleep 3600", name="boss", restartPolicy="Never",
            restartPolicyRules=[{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}],
            volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "emptyDir": {}}], **inits("exit 0")),
    pod("changes", container("trap 'exit 0' TERM; while true; do sleep 0.1; done")),
]  # fmt: skip
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hosts"}, "data": {"hosts": "1.2.3.4 mine\n"}}


@pytest.fixture(scope="module")
def ran(cluster: Cluster) -> Iterator[str]:
    """A namespace in which all of these pods were applied at once."""
    cluster.kubectl("create", "namespace", "ran")
    cluster.kubectl(
        "-n",
        "ran",
        "apply",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [CONFIG, *PODS]}),
    )
    yield "ran"
    cluster.kubectl("delete", "namespace", "ran", "--wait=false")


@pytest.fixture
def see(cluster: Cluster, ran: str) -> Any:
    """A pod's status, once it is as wanted."""

    def look(name: str, wanted: Any) -> Any:
        return until(lambda: cluster.get("-n", ran, "pod", name)["status"], wanted, seconds=60)

    return look


@pytest.fixture
def end(see) -> Any:
    """How the first container of a pod has ended for good."""
    return lambda name: see(name, ended)["containerStatuses"][0]["state"]["terminated"]


@pytest.fixture
def log(cluster: Cluster, ran: str, see) -> Any:
    """What a pod that ends has printed."""

    def look(name: str, *arguments: str) -> str:
        see(name, ended)
        return cluster.kubectl("-n", ran, "logs", name, *arguments).stdout

    return look


def ended(status: Any) -> bool:
    return status["phase"] in ("Succeeded", "Failed")


def restarted(status: Any) -> bool:
    return any(each["restartCount"] for each in status.get("containerStatuses", ()))


def reasons(status: Any) -> list[str]:
    every = status.get("initContainerStatuses", [])
    return [next(iter(each["state"].values())).get("reason", "") for each in every]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("message", "DONE", id="from its file"),
        pytest.param("message-elsewhere", "DONE", id="as non-root user and at a non-default path"),
        pytest.param("message-in-dev", "DONE", id="as non-root user and at a path in dev"),
        pytest.param("message-log", "DONE", id="from log output after a failure with FallbackToLogsOnError"),
        pytest.param("message-none", None, id="empty when the pod succeeds with FallbackToLogsOnError"),
        pytest.param("message-file", "OK", id="from file when the pod succeeds with FallbackToLogsOnError"),
    ],
)
def test_on_terminated_container_report_termination_message(end, name: str, message: str | None) -> None:
    assert end(name).get("message") == message


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        pytest.param("ends-0", 0, "Completed", id="success"),
        pytest.param("ends-3", 3, "Error", id="failure"),
        pytest.param("shell-127", 127, "Error", id="a command the shell does not find"),
        pytest.param("segfault", 139, "Error", id="a signal"),
        pytest.param("no-program", 128, "StartError", id="a program that is not there"),
    ],
)
def test_when_starting_a_container_that_exits_run_with_the_expected_status(end, name, code, reason) -> None:
    assert (end(name)["exitCode"], end(name)["reason"]) == (code, reason)


@pytest.mark.parametrize(
    ("policy", "phase", "restarts", "ready"),
    [
        pytest.param("Always", "Running", 2, True, id="Always"),
        pytest.param("OnFailure", "Succeeded", 1, False, id="OnFailure"),
        pytest.param("Never", "Failed", 0, False, id="Never"),
    ],
)
def test_a_container_that_fails_then_succeeds_then_runs_ends_as_its_restart_policy_says(
    see, policy: str, phase: str, restarts: int, ready: bool
) -> None:
    def settled(status: Any) -> bool:
        container = status.get("containerStatuses", [{}])[0]
        return (status["phase"], container.get("restartCount"), container.get("ready")) == (phase, restarts, ready)

    see(f"lives-{policy.lower()}", settled)


@pytest.mark.parametrize("name", ["ends-always", "ends-on-failure", "rules"])
def test_what_ends_and_is_to_be_restarted_is(see, name: str) -> None:
    see(name, restarted)


def test_a_container_may_restart_all_of_its_pod(see) -> None:
    status = see("gang", lambda status: restarted(status) and str(status["containerStatuses"]).count("'running'") == 2)

    every = status["initContainerStatuses"] + status["containerStatuses"]
    assert [each["restartCount"] for each in every] == [1, 1, 1]
    assert {each["lastState"]["terminated"]["reason"] for each in every} == {"RestartingAllContainers"}
    conditions = {each["type"]: each["status"] for each in status["conditions"]}
    assert conditions["AllContainersRestarting"] == "False"


def test_a_container_that_must_not_restart_leaves_the_others_alone(see) -> None:
    status = see(
        "own-never", lambda status: "terminated" in str(status.get("containerStatuses")) and "running" in str(status)
    )

    assert status["phase"] == "Running"
    assert [each["restartCount"] for each in status["containerStatuses"]] == [0, 0]


def test_use_the_image_defaults_if_command_and_args_are_blank(see) -> None:
    see("defaults", lambda status: status["phase"] == "Running")


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        pytest.param("own-args", "override arguments\n", id="arguments (container cmd)"),
        pytest.param("own-command", "override\n", id="command (container entrypoint)"),
        pytest.param("own-both", "override both\n", id="command and arguments"),
    ],
)
def test_able_to_override_the_images_default(log, name: str, printed: str) -> None:
    assert log(name) == printed


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        pytest.param("variables", "foo-value;;$(NOPE);;$(FOO)\n", id="allow composing env vars into new env vars"),
        pytest.param("in-command", "foo-value\n", id="allow substituting values in a container's command"),
        pytest.param(
            "in-args", "a-foo-value $(NOPE) $(FOO) $$\n", id="allow substituting values in a container's args"
        ),
    ],
)
def test_variable_expansion(log, name: str, printed: str) -> None:
    assert log(name) == printed


def test_when_scheduling_a_read_only_busybox_container_not_write_to_root_filesystem(log) -> None:
    assert log("read-only") == "sh: can't create /file: Read-only file system\n"


def test_write_hostaliases_to_etc_hosts(log) -> None:
    assert "# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar\n" in log("aliases")


def test_kubelet_managed_etc_hosts_file(cluster: Cluster, ran: str, log, see) -> None:
    address = see("named", ended)["podIP"]
    qualified = f"hh.sub.{ran}.svc.cluster.local"

    assert log("named").startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert f"{address}\t{qualified}\thh\n" in log("named")
    assert log("named").splitlines()[-2:] == ["hh", qualified]
    assert log("in-node").startswith("# Kubernetes-managed hosts file (host network).\n")
    assert log("in-node").endswith("\n# Entries added by HostAliases.\n192.0.2.7\tfar\n")
    assert log("own-hosts") == "1.2.3.4 mine\n"


def test_invoke_init_containers_on_a_restartnever_pod(see, log) -> None:
    status = see("init-never", ended)

    assert (status["phase"], reasons(status)) == ("Succeeded", ["Completed", "Completed"])
    assert log("init-never") == "main\n"


def test_invoke_init_containers_on_a_restartalways_pod(see) -> None:
    status = see("init-always", lambda status: status["phase"] == "Running")

    assert reasons(status) == ["Completed", "Completed"]


def test_not_start_app_containers_and_fail_the_pod_if_init_containers_fail_on_a_restartnever_pod(see) -> None:
    status = see("init-fails-never", ended)

    assert (status["phase"], reasons(status)) == ("Failed", ["Completed", "Error", "PodInitializing"])
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert [each["message"] for each in status["conditions"] if each["type"] == "Initialized"] == [
        "containers with incomplete status: [i2 i3]"
    ]


def test_not_start_app_containers_if_init_containers_fail_on_a_restartalways_pod(see) -> None:
    status = see("init-fails-always", lambda status: reasons(status)[:1] == ["CrashLoopBackOff"])

    assert (status["phase"], reasons(status)[1]) == ("Pending", "PodInitializing")
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


def test_containers_of_a_pod_see_each_others_processes_if_they_share_them(cluster: Cluster, ran: str, see) -> None:
    see(
        "one-pid-space",
        lambda status: any("terminated" in each["state"] for each in status.get("containerStatuses", ())),
    )

    assert "sleep 3600" in cluster.kubectl("-n", ran, "logs", "one-pid-space", "-c", "d").stdout


def test_an_image_changed_in_place_restarts_its_container(cluster: Cluster, ran: str, see) -> None:
    see("changes", lambda status: status["phase"] == "Running")

    cluster.kubectl("-n", ran, "set", "image", "pod/changes", "c=busybox:latest")

    status = see("changes", restarted)
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 0
    found = cluster.get("-n", ran, "events", "--field-selector", "involvedObject.name=changes,reason=Killing")
    assert [each["message"] for each in found["items"]] == ["Container c definition changed, will be restarted"]


def test_a_pod_whose_command_always_fails_can_be_deleted(cluster: Cluster, ran: str, see) -> None:
    see("ends-on-failure", restarted)

    cluster.kubectl("-n", ran, "delete", "pod", "ends-on-failure", "--timeout=50s")


def test_a_variable_comes_from_a_file_that_an_init_container_wrote(log) -> None:
    assert log("env-file") == "from a file\n"
