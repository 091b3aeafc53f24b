"""An unmodified kubectl does its everyday work against the cluster."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clusters import KUBECTLS, Cluster, newest_kubectl

from .manifests import TWO_CONTAINERS, WEB, pod

Apply = Callable[..., str]
READY = ("--for=condition=Ready", "--timeout=50s")


@pytest.fixture
def web(cluster: Cluster, namespace: str, apply: Apply) -> str:
    """A Deployment of three httpd, rolled out."""
    apply(WEB)
    cluster.kubectl("-n", namespace, "rollout", "status", "deploy/web", "--timeout=50s")
    return namespace


@pytest.mark.parametrize("binary", KUBECTLS)
def test_nodes_are_ready_and_show_their_address(cluster: Cluster, binary: str | None) -> None:
    lines = cluster.kubectl("get", "nodes", "-o", "wide", binary=binary).stdout.splitlines()
    assert lines[0].split()[:5] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert [line.split()[1] for line in lines[1:]] == ["Ready"] * 3
    assert all(re.search(r" 10\.\d+\.\d+\.\d+ ", line) for line in lines[1:])


@pytest.mark.parametrize("binary", KUBECTLS)
def test_applying_the_same_file_twice_says_unchanged(apply: Apply, binary: str | None) -> None:
    assert apply(WEB, binary=binary) == "deployment.apps/web created\n"
    assert apply(WEB, binary=binary) == "deployment.apps/web unchanged\n"


@pytest.mark.parametrize("binary", KUBECTLS)
def test_a_deployment_of_three_runs_on_the_nodes(cluster: Cluster, web: str, binary: str | None) -> None:
    table = cluster.kubectl("-n", web, "get", "deploy", "web", binary=binary).stdout.splitlines()
    assert table[1].split()[:4] == ["web", "3/3", "3", "3"]
    pods = cluster.kubectl("-n", web, "get", "pods", "-o", "wide", binary=binary).stdout.splitlines()[1:]
    assert [line.split()[1:3] for line in pods] == [["1/1", "Running"]] * 3
    assert len({line.split()[6] for line in pods}) == 3, "one replica on each node"


def test_two_containers_share_localhost_and_an_empty_dir(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(TWO_CONTAINERS)
    cluster.kubectl("-n", namespace, "wait", "pod/pair", *READY)
    deadline = 20
    logs = ""
    while deadline and logs.count("from-server") < 2:
        logs = cluster.kubectl("-n", namespace, "logs", "pair", "-c", "client").stdout
        deadline -= 1
    assert logs == "from-server\nfrom-server\n"


@pytest.mark.parametrize("binary", KUBECTLS)
def test_output_formats_agree(cluster: Cluster, web: str, binary: str | None) -> None:
    as_json = json.loads(cluster.kubectl("-n", web, "get", "deploy", "web", "-o", "json", binary=binary).stdout)
    as_yaml = cluster.kubectl("-n", web, "get", "deploy", "web", "-o", "yaml", binary=binary).stdout
    path = cluster.kubectl(
        "-n", web, "get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}", binary=binary
    ).stdout
    assert as_json["status"]["readyReplicas"] == 3
    assert "readyReplicas: 3" in as_yaml
    assert path == "3"


def test_a_watch_shows_a_pod_coming(cluster: Cluster, namespace: str, apply: Apply) -> None:
    command = [newest_kubectl(), "-n", namespace, "get", "pods", "-w", "--no-headers"]
    with subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, text=True) as watch:
        apply(pod("seen"))
        assert watch.stdout is not None
        states = []
        for line in watch.stdout:
            states.append(line.split()[2])
            if states[-1] == "Running":
                break
        watch.kill()
    assert (states[0], states[-1]) == ("Pending", "Running")


@pytest.mark.parametrize("binary", KUBECTLS)
def test_describe_tells_a_pods_story(cluster: Cluster, web: str, binary: str | None) -> None:
    text = cluster.kubectl("-n", web, "describe", "pods", "-l", "app=web", binary=binary).stdout
    for reason in ("Scheduled", "Created", "Started"):
        assert re.search(rf"Normal\s+{reason}\s", text), text


@pytest.mark.parametrize("binary", KUBECTLS)
def test_logs_follow_until_the_container_ends(
    cluster: Cluster, namespace: str, apply: Apply, binary: str | None
) -> None:
    apply(pod("speaker", "for i in 1 2 3; do echo line $i; sleep 0.2; done", spec="restartPolicy: Never"))
    cluster.kubectl("-n", namespace, "wait", "pod/speaker", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=50s")
    assert cluster.kubectl("-n", namespace, "logs", "-f", "speaker", binary=binary).stdout == "line 1\nline 2\nline 3\n"
    assert cluster.kubectl("-n", namespace, "logs", "--tail=1", "speaker", binary=binary).stdout == "line 3\n"


@pytest.mark.parametrize("binary", KUBECTLS)
def test_exec_gives_output_and_exit_code(cluster: Cluster, web: str, binary: str | None) -> None:
    done = cluster.kubectl(
        "-n", web, "exec", "deploy/web", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False, binary=binary
    )
    assert done.stdout == "out\n"
    assert done.stderr.startswith("err\n")
    assert done.returncode == 7


@pytest.mark.parametrize("binary", KUBECTLS)
def test_exec_passes_standard_input_through_to_its_end(cluster: Cluster, web: str, binary: str | None) -> None:
    text = "".join(f"{n}\n" for n in range(20_000))
    done = cluster.kubectl("-n", web, "exec", "-i", "deploy/web", "--", "wc", "-l", stdin=text, binary=binary)
    assert done.stdout.strip() == "20000"


@pytest.mark.parametrize("binary", KUBECTLS)
def test_exec_with_a_terminal_is_interactive(cluster: Cluster, web: str, binary: str | None) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            binary or newest_kubectl(),
            ["kubectl", "-n", web, "exec", "-it", "deploy/web", "--", "sh", "-c", "tty && read x && echo got=$x"],
            cluster.environment,
        )
    seen = b""
    os.write(terminal, b"hello\n")
    while select.select([terminal], [], [], 20)[0]:
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # EIO: the other side is gone
            break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen
    assert b"/dev/pts/0" in seen
    assert b"got=hello" in seen


def test_scaling_up_and_down(cluster: Cluster, web: str) -> None:
    cluster.kubectl("-n", web, "scale", "deploy/web", "--replicas=5")
    cluster.kubectl("-n", web, "rollout", "status", "deploy/web", "--timeout=50s")
    assert cluster.get("-n", web, "deploy", "web")["status"]["readyReplicas"] == 5
    cluster.kubectl("-n", web, "scale", "deploy/web", "--replicas=1")
    cluster.kubectl("-n", web, "wait", "deploy/web", "--for=jsonpath={.status.replicas}=1", "--timeout=50s")


def test_a_new_image_rolls_out_and_undo_brings_the_old_one_back(cluster: Cluster, web: str) -> None:
    cluster.kubectl("-n", web, "set", "image", "deploy/web", "httpd=docker.io/library/httpd:latest")
    cluster.kubectl("-n", web, "rollout", "status", "deploy/web", "--timeout=50s")
    images = cluster.kubectl("-n", web, "get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}").stdout
    assert "docker.io/library/httpd:latest" in images
    cluster.kubectl("-n", web, "rollout", "undo", "deploy/web")
    cluster.kubectl("-n", web, "rollout", "status", "deploy/web", "--timeout=50s")
    assert cluster.get("-n", web, "deploy", "web")["spec"]["template"]["spec"]["containers"][0]["image"] == "httpd"


@pytest.mark.parametrize("binary", KUBECTLS)
def test_labels_annotations_and_patches_of_every_kind(cluster: Cluster, web: str, binary: str | None) -> None:
    def run(*arguments: str) -> str:
        return cluster.kubectl("-n", web, *arguments, binary=binary).stdout

    assert "labeled" in run("label", "deploy/web", "tier=front")
    assert "annotated" in run("annotate", "deploy/web", "note=hello")
    strategic = '{"spec":{"template":{"spec":{"containers":[{"name":"httpd","env":[{"name":"A","value":"1"}]}]}}}}'
    assert "patched" in run("patch", "deploy/web", "-p", strategic)
    assert "patched" in run("patch", "deploy/web", "--type=merge", "-p", '{"metadata":{"labels":{"tier":null}}}')
    assert "patched" in run(
        "patch", "deploy/web", "--type=json", "-p", '[{"op":"add","path":"/metadata/labels/x","value":"y"}]'
    )
    deployment = cluster.get("-n", web, "deploy", "web")
    assert deployment["metadata"]["labels"] == {"app": "web", "x": "y"}
    assert deployment["metadata"]["annotations"]["note"] == "hello"
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["env"]) == ("httpd", [{"name": "A", "value": "1"}])


@pytest.mark.parametrize("binary", KUBECTLS)
def test_edit_in_an_editor(cluster: Cluster, web: str, tmp_path: Path, binary: str | None) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/replicas: 3/replicas: 2/" "$1"\n')
    editor.chmod(0o755)
    environment = cluster.environment | {"KUBE_EDITOR": str(editor)}
    command = [binary or newest_kubectl(), "-n", web, "edit", "deploy/web"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.stdout == "deployment.apps/web edited\n", done.stderr
    assert cluster.get("-n", web, "deploy", "web")["spec"]["replicas"] == 2


@pytest.mark.parametrize("binary", KUBECTLS)
def test_diff_shows_what_apply_would_change(cluster: Cluster, web: str, binary: str | None) -> None:
    changed = WEB.replace("replicas: 3", "replicas: 4")
    same = cluster.kubectl("-n", web, "diff", "-f", "-", stdin=WEB, check=False, binary=binary)
    other = cluster.kubectl("-n", web, "diff", "-f", "-", stdin=changed, check=False, binary=binary)
    assert (same.returncode, same.stdout) == (0, "")
    assert other.returncode == 1
    assert "-  replicas: 3\n+  replicas: 4" in other.stdout


@pytest.mark.parametrize("binary", KUBECTLS)
def test_server_side_apply_owns_fields_and_refuses_anothers(
    cluster: Cluster, namespace: str, binary: str | None
) -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ssa}\ndata: {key: %s}\n"

    def run(value: str, manager: str, *more: str) -> subprocess.CompletedProcess[str]:
        arguments = ("-n", namespace, "apply", "--server-side", f"--field-manager={manager}", "-f", "-", *more)
        return cluster.kubectl(*arguments, stdin=config % value, check=False, binary=binary)

    assert run("one", "first").stdout == "configmap/ssa serverside-applied\n"
    refused = run("two", "second")
    assert refused.returncode != 0
    assert 'conflict with "first"' in refused.stderr
    assert run("two", "second", "--force-conflicts").returncode == 0
    assert cluster.get("-n", namespace, "cm", "ssa")["data"] == {"key": "two"}


def test_wait_and_delete(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("brief"))
    cluster.kubectl("-n", namespace, "wait", "pod/brief", *READY)
    assert cluster.kubectl("-n", namespace, "delete", "pod/brief").stdout.startswith('pod "brief" deleted')
    gone = cluster.kubectl("-n", namespace, "get", "pod", "brief", check=False)
    assert gone.stderr == 'Error from server (NotFound): pods "brief" not found\n'


@pytest.mark.parametrize("binary", KUBECTLS)
def test_explain_and_api_resources(cluster: Cluster, binary: str | None) -> None:
    explained = cluster.kubectl("explain", "pod.spec", binary=binary).stdout
    assert "containers" in explained
    assert "restartPolicy" in explained
    resources = cluster.kubectl("api-resources", binary=binary).stdout
    for name in ("pods", "nodes", "deployments", "replicasets", "leases", "events"):
        assert re.search(rf"^{name} ", resources, re.MULTILINE), name


def test_deleting_a_deployment_takes_its_pods_along(cluster: Cluster, web: str) -> None:
    cluster.kubectl("-n", web, "delete", "deploy/web")
    cluster.kubectl("-n", web, "wait", "pods", "-l", "app=web", "--for=delete", "--timeout=50s")
    assert cluster.get("-n", web, "rs,pods")["items"] == []


def test_deleting_a_namespace_deletes_what_is_in_it(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "short")
    cluster.kubectl("-n", "short", "create", "configmap", "c", "--from-literal=a=b")
    cluster.kubectl("-n", "short", "apply", "-f", "-", stdin=pod("p"))
    cluster.kubectl("delete", "namespace", "short", "--timeout=50s")
    assert cluster.kubectl("get", "namespace", "short", check=False).returncode == 1
