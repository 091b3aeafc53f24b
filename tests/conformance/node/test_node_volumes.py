"""Volumes as Kubernetes' conformance suite asks for them: all pods start at once, then each behaviour is looked at in them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from volume_pods import GROUP, KINDS, MEDIA, MODES, UID, objects, pods, short_name, write

from tests.cluster.waiting import until
from tests.clusters import Cluster

pytestmark = pytest.mark.root

# What a container sees of every file below /v: mode, owners and content; data that links lead to is shown once.
DUMP = r"""
find -L /v -type f ! -path '*/..*' | while read f; do
  printf '%s %s %s\n' "$f" "$(stat -L -c '%a %u %g' "$f")" "$(base64 -w0 "$f" 2>/dev/null)"
done
"""
RUNNING = ("root", "user", "group", "subpath", "expands", "sharing")


class Seen(NamedTuple):
    """A file as a container sees it; content is None where it may not read it."""

    mode: str
    uid: int
    gid: int
    content: bytes | None


class Volumes:
    """The namespace with its pods."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self._seen: dict[str, dict[str, Seen]] = {}

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **more).stdout

    def sh(self, pod: str, script: str, container: str = "c") -> str:
        return self.kubectl("exec", pod, "-c", container, "--", "sh", "-c", script)

    def files(self, pod: str, *, again: bool = False) -> dict[str, Seen]:
        """Path → file; looked at once per pod, unless `again`."""
        if again or pod not in self._seen:
            lines = [line.split(" ") for line in self.sh(pod, DUMP).splitlines()]
            self._seen[pod] = {
                path.removeprefix("/v/"): Seen(mode, int(uid), int(gid), base64.b64decode(text[0]) if text else None)
                for path, mode, uid, gid, *text in lines
            }
        return self._seen[pod]

    def below(self, pod: str, volume: str) -> dict[str, Seen]:
        """The files of one volume."""
        prefix = f"{volume}/"
        return {path.removeprefix(prefix): seen for path, seen in self.files(pod).items() if path.startswith(prefix)}

    def status(self, pod: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("-n", self.namespace, "pod", pod)["status"]
        return found


@pytest.fixture(scope="module")
def volumes(cluster: Cluster) -> Iterator[Volumes]:
    """Everything applied, and running if it is to run."""
    namespace = "node-volumes"
    for name in (namespace, f"{namespace}-other"):
        cluster.kubectl("create", "namespace", name)
    other = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "data"}, "stringData": {"data-1": "another"}}
    cluster.kubectl("-n", f"{namespace}-other", "create", "-f", "-", stdin=json.dumps(other))
    made = Volumes(cluster, namespace)
    everything = {"apiVersion": "v1", "kind": "List", "items": objects() + pods()}
    made.kubectl("create", "-f", "-", stdin=json.dumps(everything))
    made.kubectl("wait", *(f"pod/{name}" for name in RUNNING), "--for=condition=Ready", "--timeout=60s")
    yield made
    for name in (namespace, f"{namespace}-other"):
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def changed(volumes: Volumes) -> dict[str, Seen]:
    """The root pod's files after objects were changed, made and deleted, as soon as it shows all of that."""
    volumes.files("root")
    patches = {"configmap": {"data": {"data-1": "value-2"}}, "secret": {"stringData": {"data-1": "value-2"}}}
    for kind, patch in patches.items():
        volumes.kubectl("patch", kind, "changes", "-p", json.dumps(patch))
        volumes.kubectl("delete", kind, "gone")
    volumes.kubectl("create", "configmap", "comes", "--from-literal=data-1=value-1")
    volumes.kubectl("create", "secret", "generic", "comes", "--from-literal=data-1=value-1")
    more = {"labels": {"key3": "value3"}, "annotations": {"builder": "foo"}}
    volumes.kubectl("patch", "pod", "root", "-p", json.dumps({"metadata": more}))

    def shown(files: dict[str, Seen]) -> bool:
        return all(
            files[f"{short}-changes/data-1"].content == b"value-2"
            and f"{short}-gone/data-1" not in files
            and f"{short}-comes/data-1" in files
            for short in map(short_name, KINDS)
        ) and all(b"key3" in (files[f"{prefix}down/labels"].content or b"") for prefix in ("", "pr-"))

    return until(lambda: volumes.files("root", again=True), shown, seconds=60)


# -- configMap, secret, projected configMap, projected secret ----------------------------------------------------------

EACH_KIND = pytest.mark.parametrize("kind", [pytest.param(short_name(kind), id=kind) for kind in KINDS])


@EACH_KIND
def test_consumable_from_pods_in_volume(volumes: Volumes, kind: str) -> None:
    for name in ("plain", "again"):  # and in multiple volumes in the same pod
        found = volumes.below("root", f"{kind}-{name}")
        assert found["data-1"] == Seen("644", 0, 0, b"value-1")
        assert found["data-2"] == Seen("644", 0, 0, b"value-2")


@EACH_KIND
def test_consumable_from_pods_in_volume_with_default_mode_set(volumes: Volumes, kind: str) -> None:
    assert volumes.below("root", f"{kind}-mode")["data-1"] == Seen("400", 0, 0, b"value-1")


@EACH_KIND
def test_consumable_from_pods_in_volume_with_mappings(volumes: Volumes, kind: str) -> None:
    assert volumes.below("root", f"{kind}-map") == {"path/to/data-2": Seen("644", 0, 0, b"value-2")}


@EACH_KIND
def test_consumable_from_pods_in_volume_with_mappings_and_item_mode_set(volumes: Volumes, kind: str) -> None:
    assert volumes.below("root", f"{kind}-mapmode") == {"path/to/data-2": Seen("400", 0, 0, b"value-2")}


@EACH_KIND
def test_consumable_from_pods_in_volume_as_non_root_with_and_without_mappings(volumes: Volumes, kind: str) -> None:
    assert volumes.below("user", f"{kind}-plain")["data-1"].content == b"value-1"
    assert volumes.below("user", f"{kind}-map") == {"path/to/data-2": Seen("644", 0, 0, b"value-2")}


@EACH_KIND
def test_consumable_in_volume_as_non_root_with_default_mode_and_fs_group_set(volumes: Volumes, kind: str) -> None:
    assert volumes.below("group", kind)["data-1"] == Seen("440", 0, GROUP, b"value-1")


@EACH_KIND
def test_updates_should_be_reflected_in_volume(volumes: Volumes, changed: dict[str, Seen], kind: str) -> None:
    assert changed[f"{kind}-changes/data-1"].content == b"value-2"


@EACH_KIND
def test_optional_updates_should_be_reflected_in_volume(volumes: Volumes, changed: dict[str, Seen], kind: str) -> None:
    assert f"{kind}-gone/data-1" not in changed
    assert changed[f"{kind}-comes/data-1"].content == b"value-1"


@pytest.mark.parametrize("kind", ["configmap", "secret"])
def test_immutable_if_immutable_field_is_set(volumes: Volumes, kind: str) -> None:
    volumes.kubectl("patch", kind, "data", "-p", json.dumps({"metadata": {"labels": {"still": "mutable"}}}))
    for patch in ({"data": {"data-1": "eA=="}}, {"immutable": False}):
        done = volumes.cluster.kubectl(
            "-n", volumes.namespace, "patch", kind, "fixed", "-p", json.dumps(patch), check=False
        )
        assert "immutable" in done.stderr
    assert volumes.below("root", f"{kind}-fixed")["data-1"].content == b"value-1"


def test_binary_data_should_be_reflected_in_volume(volumes: Volumes) -> None:
    assert volumes.below("root", "configmap-plain")["bytes"].content == bytes.fromhex("decafebad0feffff")


def test_a_secret_of_the_same_name_in_a_different_namespace_does_not_matter(volumes: Volumes) -> None:
    assert volumes.below("root", "secret-plain")["data-1"].content == b"value-1"


def test_project_all_components_that_make_up_the_projection_api(volumes: Volumes) -> None:
    found = {name: seen.content for name, seen in volumes.below("root", "combined").items()}
    assert found == {"from-config": b"value-1", "from-secret": b"value-1", "podname": b"root"}


@pytest.mark.parametrize("source", ["configmap", "secret"])
def test_consumable_via_environment_variables(volumes: Volumes, source: str) -> None:
    name, prefix = {"configmap": ("FROM_CONFIG", "c_"), "secret": ("FROM_SECRET", "s_")}[source]
    text = volumes.kubectl("exec", "root", "--", "env")  # a shell would drop names it cannot use
    variables = dict(line.split("=", 1) for line in text.splitlines())
    assert variables[name] == "value-1"
    assert {variables[f"{prefix}data-{number}"] for number in (1, 2)} == {"value-1", "value-2"}


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_an_object_with_an_empty_key_is_refused(volumes: Volumes, kind: str) -> None:
    value = {"": "dmFsdWUtMQ=="}
    wrong = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "empty-key"}, "data": value}
    done = volumes.cluster.kubectl("-n", volumes.namespace, "create", "-f", "-", stdin=json.dumps(wrong), check=False)
    assert done.returncode
    assert "Invalid value" in done.stderr


@pytest.mark.parametrize("kind", ["configmap", "secret"])
def test_run_through_a_lifecycle(volumes: Volumes, kind: str) -> None:
    generic = ["generic"] if kind == "secret" else []
    volumes.kubectl("create", kind, *generic, "lives", "--from-literal=key=value")
    volumes.kubectl("label", kind, "lives", "test=patched")
    volumes.kubectl("patch", kind, "lives", "-p", json.dumps({"data": {"key": "bmV3"}}))
    found = volumes.cluster.get(kind, "--all-namespaces", "-l", "test=patched")["items"]
    assert [each["data"]["key"] for each in found] == ["bmV3"]
    volumes.kubectl("delete", kind, "-l", "test=patched")
    assert volumes.kubectl("get", kind, "-l", "test=patched", "-o", "name") == ""


# -- downwardAPI -------------------------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("prefix", [pytest.param("", id="downwardAPI"), pytest.param("pr-", id="projected")])


@BOTH
def test_provide_podname_only(volumes: Volumes, prefix: str) -> None:
    assert volumes.below("root", f"{prefix}down")["podname"] == Seen("644", 0, 0, b"root")


@BOTH
def test_set_default_mode_on_files(volumes: Volumes, prefix: str) -> None:
    assert volumes.below("root", f"{prefix}down-mode") == {"podname": Seen("400", 0, 0, b"root")}


@BOTH
def test_set_mode_on_item_file(volumes: Volumes, prefix: str) -> None:
    assert volumes.below("root", f"{prefix}down-itemmode") == {"podname": Seen("400", 0, 0, b"root")}


@BOTH
def test_update_labels_and_annotations_on_modification(volumes: Volumes, changed: dict[str, Seen], prefix: str) -> None:
    assert changed[f"{prefix}down/labels"].content == b'key1="value1"\nkey3="value3"'
    assert changed[f"{prefix}down/annotations"].content == b'builder="foo"'


# -- emptyDir ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("pod", "uid"), [("root", 0), ("user", UID)])
def test_empty_dir_should_support(volumes: Volumes, medium: str, mode: str, pod: str, uid: int) -> None:
    assert volumes.sh(pod, write(mode, medium)) == f"{mode[1:]},{uid}\nmount-tester\n"


@pytest.mark.parametrize(("medium", "mode"), [("default", "777"), ("tmpfs", "1777")])
def test_empty_dir_should_have_the_correct_mode(volumes: Volumes, medium: str, mode: str) -> None:
    script = f"stat -c %a /v/{medium}; grep ' /v/{medium} ' /proc/mounts | cut -d' ' -f3"
    found, kind = volumes.sh("root", script).split()
    assert (found, kind == "tmpfs") == (mode, medium == "tmpfs")


def test_pod_should_support_shared_volumes_between_containers(volumes: Volumes) -> None:
    assert volumes.sh("sharing", "cat /v/shared/file") == "Hello from the busy-box\n"
    assert volumes.sh("sharing", "df -k /v/shared | tail -1").split()[1] == "16384"


def test_empty_dir_wrapper_volumes_should_not_conflict_and_not_race(volumes: Volumes) -> None:
    """Fifty ConfigMap volumes in one pod, a Secret among them: each shows its own object."""
    names = [f"racey-{number}" for number in range(50)]
    made = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n}, "data": {"data": n}} for n in names]
    wanted = [{"name": n, "configMap": {"name": n}} for n in names] + [{"name": "s", "secret": {"secretName": "data"}}]
    mounts = [{"name": each["name"], "mountPath": f"/etc/{each['name']}"} for each in wanted]
    container = {"name": "c", "image": "busybox", "command": ["sleep", "3600"], "volumeMounts": mounts}
    spec = {"containers": [container], "volumes": wanted, "terminationGracePeriodSeconds": 0}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "racey"}, "spec": spec}
    volumes.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [*made, pod]}))
    volumes.kubectl("wait", "pod/racey", "--for=condition=Ready", "--timeout=50s")

    assert sorted(volumes.sh("racey", "for f in /etc/racey-*/data; do cat $f; echo; done").split()) == sorted(names)
    assert volumes.sh("racey", "cat /etc/s/data-1") == "value-1"


# -- subPath and subPathExpr -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "content"),
    [
        pytest.param("/v/config", "value-1", id="configmap pod"),
        pytest.param("/etc/passwd", "value-2", id="configmap pod with mountPath of existing file"),
        pytest.param("/v/down", "subpath", id="downward pod"),
        pytest.param("/v/both", "value-1", id="projected pod"),
        pytest.param("/v/hidden", "value-1", id="secret pod"),
    ],
)
def test_support_subpaths_with(volumes: Volumes, place: str, content: str) -> None:
    assert volumes.sh("subpath", f"cat {place}") == content


def test_allow_substituting_values_in_a_volume_subpath_and_writing_there(volumes: Volumes) -> None:
    assert volumes.sh("expands", "cat /whole/expands/test.log") == "test\n"
    volumes.sh("expands", "echo more > /whole/expands/more")
    assert volumes.sh("expands", "cat /part/more") == "more\n"


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        pytest.param("backsteps", "unable to provision SubPath `..`: must not contain '..'", id="backticks"),
        pytest.param("absolute", "error SubPath `/tmp` must not be an absolute path", id="absolute path"),
        pytest.param("later", "missing value for NOTE", id="nothing to substitute"),
    ],
)
def test_fail_substituting_values_in_a_volume_subpath_with(volumes: Volumes, pod: str, message: str) -> None:
    (status,) = volumes.status(pod)["containerStatuses"]
    assert status["state"] == {"waiting": {"reason": "CreateContainerConfigError", "message": message}}


def test_verify_that_a_failing_subpath_expansion_can_be_modified_during_the_lifecycle(volumes: Volumes) -> None:
    volumes.kubectl("annotate", "pod", "later", "mysubpath=mypath")
    volumes.kubectl("wait", "pod/later", "--for=condition=Ready", "--timeout=50s")
    assert volumes.sh("later", "cat /whole/mypath/later/test.log") == "test\n"
