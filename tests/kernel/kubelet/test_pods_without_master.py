"""`minikube-raw pod …` on a host of its own: pods run, answer, survive a killed agent, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from standalone_host import Host, gone, until

from minikube_raw.kubelet import localagent
from minikube_raw.kubelet.localagent import options_for
from minikube_raw.linux.cgroups import manager
from tests.criu import needs_criu

pytestmark = pytest.mark.root

CONFIGURED = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{greeting: hello, file.txt: "from the file"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: secret}}
stringData: {{word: sesame}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  volumes: [{{name: v, configMap: {{name: settings}}}}]
  containers:
  - name: one
    image: busybox
    command: [sh, -c, "echo $GREETING $WORD; cat /v/file.txt; echo; read line; echo got $line; exit 3"]
    stdin: true
    env:
    - {{name: GREETING, valueFrom: {{configMapKeyRef: {{name: settings, key: greeting}}}}}}
    - {{name: WORD, valueFrom: {{secretKeyRef: {{name: secret, key: word}}}}}}
    volumeMounts: [{{name: v, mountPath: /v}}]
  - {{name: two, image: busybox, command: [echo, beside]}}
"""


CLAIMING = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: own}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: given}}
spec: {{accessModes: [ReadWriteOnce], storageClassName: "", resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: directory}}
spec: {{accessModes: [ReadWriteOnce], capacity: {{storage: 1Gi}}, hostPath: {{path: "GIVEN"}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  volumes:
  - {{name: a, persistentVolumeClaim: {{claimName: own}}}}
  - {{name: b, persistentVolumeClaim: {{claimName: given}}}}
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "for v in /a /b; do echo line >> $v/f; wc -l < $v/f; done"]
    volumeMounts: [{{name: a, mountPath: /a}}, {{name: b, mountPath: /b}}]
"""


TOKEN = """
kind: Pod
metadata: {{name: p}}
spec:
  containers: [{{name: c, image: busybox}}]
  volumes: [{{name: t, projected: {{sources: [{{serviceAccountToken: {{path: token}}}}]}}}}]
"""


ENDING = """
kind: Pod
metadata: {{name: {name}}}
spec: {{restartPolicy: Never, containers: [{{name: c, image: busybox, command: [%s]}}]}}
"""


def test_a_pod_of_two_containers_runs_and_leaves_nothing_behind(host: Host) -> None:
    before = host.links()
    mounts = Path("/proc/self/mountinfo").read_text()

    assert host("pod", "run", "-f", host.manifest("two")) == "pod default/two running\n"

    (listed,) = host.pods()
    ip = listed["status"]["podIP"]
    assert host("pod", "exec", "two", "-c", "reader", "--", "cat", "/s/f") == f"from {ip}\n"
    assert host("pod", "exec", "two", "--", "cat", "/i/name") == "two"
    assert host("pod", "logs", "two") == "started\n"
    host("pod", "exec", "two", "--", "sh", "-c", "exit 3", status=3)
    assert "executable file not found" in host("pod", "exec", "two", "--", "nosuch", status=1)
    assert json.loads(host("trace", "pod", "default/two", "-o", "json"))["start_ms"] > 0
    assert Path("/proc/self/mountinfo").read_text() == mounts

    host("pod", "rm", "two")
    gone(host)
    assert host.links() == before
    assert not any(Path("/sys/fs/cgroup").glob(f"*/{options_for(host.state, host.run_dir).cgroup_root}"))
    assert not list((host.state / "standalone" / "logs").iterdir())


def test_a_stopped_pod_stays_listed_with_its_logs(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("one"))

    host("pod", "stop", "one")

    assert [each["status"]["phase"] for each in host.pods()] == ["Succeeded"]
    assert host("pod", "logs", "one") == "started\n"


def test_a_killed_agent_is_replaced_and_no_container_notices(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("kept"))
    pid = host("pod", "exec", "kept", "--", "cat", "/proc/1/stat").split()[21]
    agent = host.agent()
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    psutil.wait_procs([agent], timeout=60)

    host("pod", "run", "-f", host.manifest("other"))

    statuses = {each["metadata"]["name"]: each["status"] for each in host.pods()}
    assert [each["restartCount"] for each in statuses["kept"]["containerStatuses"]] == [0, 0]
    assert host("pod", "exec", "kept", "--", "cat", "/proc/1/stat").split()[21] == pid
    assert len(host.launchers()) == 1


SHARING = """
kind: Pod
metadata: {{name: {name}}}
spec:
  shareProcessNamespace: true
  containers:
  - {{name: a, image: busybox, command: [sh, -c, "trap 'exit 0' TERM; while true; do sleep 0.05; done"]}}
  - {{name: b, image: busybox, command: [sh, -c, "trap 'exit 0' TERM; while true; do sleep 0.05; done"]}}
"""


def test_a_pod_whose_shared_process_namespace_has_ended_is_made_anew(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("sharing", SHARING))
    (listed,) = host.pods()
    pod = f"{options_for(host.state, host.run_dir).cgroup_root}/kubepods/besteffort/pod{listed['metadata']['uid']}"
    (pause,) = manager(f"{pod}/pause").procs()
    os.kill(pause, signal.SIGKILL)

    def statuses() -> list[dict[str, Any]]:
        (listed,) = host.pods()
        return sorted(listed["status"]["containerStatuses"], key=lambda each: str(each["name"]))

    until(lambda: all(each["restartCount"] and each["ready"] for each in statuses()), "the containers run again")
    assert [(each["restartCount"], each["lastState"]["terminated"]["exitCode"]) for each in statuses()] == [
        (1, 137)
    ] * 2
    for name in ("a", "b"):
        assert host("pod", "exec", "sharing", "-c", name, "--", "cat", "/proc/1/comm") == "pause\n"


IN_MEMORY = """
apiVersion: v1
kind: Secret
metadata: {{name: secret}}
stringData: {{word: sesame}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  volumes: [{{name: m, emptyDir: {{medium: Memory}}}}, {{name: s, secret: {{secretName: secret}}}}]
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; echo up >> /m/boots; stat -c %d /m /s; cat /m/boots; while true; do sleep 0.05; done"]
    volumeMounts: [{{name: m, mountPath: /m}}, {{name: s, mountPath: /s}}]
"""


def test_volumes_in_memory_outlive_the_agent(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("kept", IN_MEMORY))
    until(lambda: host("pod", "logs", "kept").endswith("up\n"), "the container spoke")
    first = host("pod", "logs", "kept")
    agent = host.agent()
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    psutil.wait_procs([agent], timeout=60)
    host("pod", "run", "-f", host.manifest("other"))

    host("pod", "exec", "kept", "--", "kill", "1")

    def began_again() -> bool:
        (kept,) = (each for each in host.pods() if each["metadata"]["name"] == "kept")
        (container,) = kept["status"]["containerStatuses"]
        return (container["restartCount"], container["started"]) == (1, True)

    until(began_again, "the container began again")
    until(lambda: host("pod", "logs", "kept") == f"{first}up\n", "it found what it had left, on the same devices")


def test_a_pod_that_comes_while_the_agent_leaves_gets_another_once_it_has_left(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("first"))
    agent, socket = host.agent(), options_for(host.state, host.run_dir).socket
    assert agent is not None
    rubbish = host.state / "standalone/pods/.removed/removed-before"
    rubbish.mkdir(parents=True)
    for number in range(30_000):  # to be deleted before the agent leaves, so that we see it do so
        (rubbish / str(number)).touch()
    host("pod", "rm", "first", "--no-wait")
    until(lambda: not socket.exists(), "the agent leaves")
    with contextlib.suppress(psutil.NoSuchProcess):  # it may have left
        agent.suspend()
    with host.started("pod", "run", "-f", host.manifest("second")) as running:
        lock = f":{(host.state / 'standalone/lock').stat().st_ino} "
        until(lambda: running.poll() is not None or any(lock in each for each in locks_waited_for()), "it waits")
        with contextlib.suppress(psutil.NoSuchProcess):
            agent.resume()
        assert running.wait(60) == 0
    psutil.wait_procs([agent], timeout=60)
    assert (len(host.launchers()), "minikube-raw0" in host.links()) == (1, True)
    assert host("pod", "exec", "second", "--", "cat", "/i/name") == "second"


def locks_waited_for() -> list[str]:
    return [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]


def test_objects_beside_a_pod_are_its_own_and_its_streams_can_be_joined(host: Host) -> None:
    manifest = host.manifest("set", CONFIGURED)
    host("pod", "run", "-f", manifest)

    host("pod", "attach", "-i", "set", stdin="a line\n", status=3)

    assert host("pod", "logs", "set") == "hello sesame\nfrom the file\ngot a line\n"
    assert host("pod", "logs", "set", "--tail", "1", "--limit-bytes", "4") == "got "
    everything = host("pod", "logs", "set", "--all-containers", "--prefix", "--since", "1h").splitlines()
    assert everything[0] == "[pod/set/one] hello sesame"
    assert everything[-1] == "[pod/set/two] beside"
    events = json.loads(host("pod", "events", "set", "-o", "json"))["items"]
    assert [each["reason"] for each in events][-2:] == ["Created", "Started"]


def test_a_claims_data_outlives_its_pods_until_it_is_removed_with_one(host: Host, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    manifest = host.manifest("counter", CLAIMING.replace("GIVEN", str(tmp_path / "given")))

    def run() -> str:
        host("pod", "run", "-f", manifest, "--wait", "ended")
        return host("pod", "logs", "counter")

    assert run() == "1\n1\n"
    host("pod", "rm", "counter")
    assert run() == "2\n2\n"
    host("pod", "rm", "counter", "--volumes")
    assert run() == "1\n3\n"  # what lies in a volume that was given is not ours to remove
    host("pod", "rm", "counter", "--volumes")
    assert list((host.state / "standalone" / "volumes").iterdir()) == []


EPHEMERAL = """
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  volumes:
  - name: e
    ephemeral:
      volumeClaimTemplate: {{spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}}}
  initContainers: [{{name: i, image: busybox, command: [sh, -c, "echo line >> /e/f"], volumeMounts: [{{name: e, mountPath: /e}}]}}]
  containers: [{{name: c, image: busybox, command: [cat, /e/f], volumeMounts: [{{name: e, mountPath: /e}}]}}]
"""


def test_a_volume_that_is_claimed_for_a_pod_goes_with_it(host: Host) -> None:
    for _ in range(2):
        host("pod", "run", "-f", host.manifest("brief", EPHEMERAL), "--wait", "ended")
        assert host("pod", "logs", "brief") == "line\n"
        host("pod", "rm", "brief")
    assert not (host.state / "standalone" / "volumes").exists()


RAW = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: raw}}
spec: {{accessModes: [ReadWriteOnce], volumeMode: Block, storageClassName: "", resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: disk}}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {{storage: 1Mi}}
  volumeMode: Block
  local: {{path: "DEVICE"}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: Exists}}]}}]}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  volumes: [{{name: d, persistentVolumeClaim: {{claimName: raw}}}}]
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "head -c 4 /dev/xvda && printf new > /dev/xvda"]
    volumeDevices: [{{name: d, devicePath: /dev/xvda}}]
"""


def test_a_claim_of_a_block_device_passes_the_device_on(host: Host, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"old".ljust(1 << 20))
    made = subprocess.run(["losetup", "--find", "--show", tmp_path / "disk"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    try:
        manifest = host.manifest("raw", RAW.replace("DEVICE", made.stdout.strip()))
        host("pod", "run", "-f", manifest, "--wait", "ended")
        assert (host("pod", "logs", "raw"), host.pods()[0]["status"]["phase"]) == ("old ", "Succeeded")
        host("pod", "rm", "raw")
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)
    assert (tmp_path / "disk").read_bytes()[:4] == b"new "


def test_a_pod_is_replaced_once_the_old_one_has_ended(host: Host) -> None:
    manifest = host.manifest("one")
    first = json.loads(host("pod", "run", "-f", manifest, "-o", "json"))
    assert "exists" in host("pod", "run", "-f", manifest, status=1)

    second = json.loads(host("pod", "run", "-f", manifest, "--replace", "--wait", "ready", "-o", "json"))

    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert [each["metadata"]["uid"] for each in host.pods()] == [second["metadata"]["uid"]]
    assert {each["state"]["running"]["startedAt"] for each in second["status"]["containerStatuses"]}


def test_a_pod_that_runs_to_its_end_can_be_waited_for(host: Host) -> None:
    assert (
        host("pod", "run", "-f", host.manifest("good", ENDING % "'true'"), "--wait", "ended")
        == "pod default/good succeeded\n"
    )

    host("pod", "run", "-f", host.manifest("bad", ENDING % "'false'"), "--wait", "ended", status=1)


SERVING = """
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "mkdir -p /w/sub; echo page > /w/index.html; ln -s index.html /w/sub/near; ln -s ../index.html /w/sub/in;
      ln -s /etc/passwd /w/out; ln -s ../../etc /w/sub/up; mkfifo /w/pipe; exec httpd -f -p 127.0.0.1:8080 -h /w"]
"""


def test_a_pod_is_looked_into_copied_from_and_reached(host: Host, tmp_path: Path) -> None:
    host("pod", "run", "-f", host.manifest("web", SERVING), "--wait", "ready")

    (process,) = json.loads(host("pod", "top", "web", "-o", "json"))["processes"]
    assert (process["container"], process["pid"], process["user"]) == ("c", 1, "root")
    assert "httpd" in Path(f"/proc/{process['hostPid']}/cmdline").read_text()
    (figures,) = json.loads(host("pod", "stats", "web", "-o", "json"))["pods"]
    assert figures["memory"]["workingSetBytes"] > 0
    assert figures["process_stats"]["process_count"] >= 1
    assert host("pod", "stats").splitlines()[1].split()[:2] == ["default", "web"]  # a new pod has no CPU rate yet

    host("pod", "cp", "web:/w", str(tmp_path / "copy"))
    copied = tmp_path / "copy"
    assert (copied / "index.html").read_text() == "page\n"
    assert sorted(str(path.relative_to(copied)) for path in copied.rglob("*")) == [
        "index.html",
        "sub",
        "sub/in",
        "sub/near",
    ]
    (copied / "evil").symlink_to("/etc")
    host("pod", "exec", "web", "--", "ln", "-s", "/etc", "/w/trap")
    host("pod", "cp", str(copied), "web:/w/new")
    assert host("pod", "exec", "web", "--", "cat", "/w/new/sub/in") == "page\n"
    host("pod", "exec", "web", "--", "test", "-e", "/w/new/evil", status=1)
    assert "leads outside" in host("pod", "cp", "web:/w/out", str(tmp_path / "passwd"), status=1)

    with host.started("pod", "port-forward", "web", ":8080") as forwarding:
        port = forwarding.stdout.readline().split()[2].rpartition(":")[2]
        fetch = ["curl", "-s", "--max-time", "10", f"http://127.0.0.1:{port}/index.html"]
        assert subprocess.run([*host.enter, *fetch], capture_output=True, text=True).stdout == "page\n"


LASTING = """
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 5
  volumes: [{{name: v, emptyDir: {{}}}}]
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "trap 'echo bye; exit 0' TERM; echo up >> /v/boots; cat /v/boots; while true; do sleep 0.05; done"]
    volumeMounts: [{{name: v, mountPath: /v}}]
"""


def test_a_halted_host_brings_its_pods_back_with_what_they_had(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("kept", LASTING))
    host("pod", "run", "-f", host.manifest("resting", LASTING))
    host("pod", "stop", "resting")

    host("pod", "halt")

    assert not (host.run_dir / "standalone").exists()
    assert host.pods() == []
    assert not any(Path("/sys/fs/cgroup").glob(f"*/{options_for(host.state, host.run_dir).cgroup_root}"))
    host("pod", "start")
    statuses = {each["metadata"]["name"]: each["status"] for each in host.pods()}
    assert statuses["kept"]["phase"] == "Running"
    assert statuses["resting"]["phase"] in ("Succeeded", "Failed")  # how it ended was forgotten with its containers
    assert host("pod", "exec", "kept", "--", "cat", "/v/boots") == "up\nup\n"
    assert "bye" in host("pod", "logs", "kept", "--previous")
    host("pod", "start", "resting")
    assert host("pod", "exec", "resting", "--", "cat", "/v/boots") == "up\n"


def test_a_halt_goes_on_when_the_agents_session_ends(host: Host) -> None:
    slow = LASTING.replace("trap 'echo bye;", "trap 'touch /v/going; sleep 1; echo bye >> /v/boots; echo bye;")
    host("pod", "run", "-f", host.manifest("kept", slow))
    agent = host.agent()
    assert agent is not None
    with host.started("pod", "halt") as halting:
        until(lambda: list(host.state.rglob("going")), "the container was told to end")
        agent.send_signal(signal.SIGTERM)
        agent.send_signal(signal.SIGHUP)
        assert halting.wait(timeout=30) == 0
    gone(host)

    host("pod", "start")

    assert host("pod", "exec", "kept", "--", "cat", "/v/boots") == "up\nbye\nup\n"


def test_pods_whose_agent_has_been_ended_are_halted_with_their_grace(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("kept", LASTING.replace("echo bye;", "echo bye >> /v/boots;")))
    agent = host.agent()
    assert agent is not None
    agent.terminate()
    agent.wait(timeout=30)

    host("pod", "halt")

    assert not (host.run_dir / "standalone").exists()
    host("pod", "start")
    assert host("pod", "exec", "kept", "--", "cat", "/v/boots") == "up\nbye\nup\n"


def test_after_a_power_cut_pods_come_back_from_the_state_directory(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("kept", LASTING))
    cut_power(host)

    host("pod", "start")

    (pod,) = host.pods()
    assert pod["status"]["phase"] == "Running"
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 1
    assert host("pod", "exec", "kept", "--", "cat", "/v/boots") == "up\nup\n"


def cut_power(host: Host) -> None:
    """Nothing of this host's pods runs any more, and what belongs to one boot is gone; the state directory is there."""
    agent, group = host.agent(), manager(options_for(host.state, host.run_dir).cgroup_root)
    assert agent is not None
    dying = [agent, *agent.children(recursive=True)]
    for process in dying:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(dying, timeout=60)
    assert group.kill_all()
    group.remove()
    shutil.rmtree(host.run_dir)
    subprocess.run([*host.enter, "ip", "link", "delete", "minikube-raw0"], check=True)


def test_the_unit_that_brings_pods_back_is_one_that_systemd_takes(host: Host, tmp_path: Path) -> None:
    text = host("pod", "enable", "--print")
    assert f"--state-dir {host.state} --run-dir {host.run_dir} pod start --no-wait" in text

    (tmp_path / "minikube-raw-pods.service").write_text(text)

    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this host")
    words = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "minikube-raw-pods.service")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, "minikube-raw-pods.service" in done.stderr) == (0, False), done.stderr


def test_the_unit_is_installed_and_taken_away(host: Host, tmp_path: Path) -> None:
    units = tmp_path / "units"
    units.mkdir()

    host("pod", "enable", "--unit-dir", str(units))
    assert [path.name for path in units.iterdir()] == ["minikube-raw-pods.service"]
    host("pod", "disable", "--unit-dir", str(units))

    assert list(units.iterdir()) == []
    assert "is not there" in host("pod", "disable", "--unit-dir", str(units), status=1)


PLAIN = """
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: dir, image: "dir:%s/root", command: [/bin/busybox, sh, -c, "echo mine > /added; /bin/busybox cat /said /added"]}}
  - {{name: tar, image: "tar:%s/root.tar.gz", command: [/bin/busybox, cat, /said]}}
"""


def test_a_directory_and_a_tar_are_images_and_stay_as_they_are(host: Host, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", root / "bin")
    (root / "said").write_text("hello\n")
    subprocess.run(["tar", "czf", tmp_path / "root.tar.gz", "-C", root, "."], check=True)

    host("pod", "run", "-f", host.manifest("plain", PLAIN % (tmp_path, tmp_path)), "--wait", "ended")

    assert host("pod", "logs", "plain", "-c", "dir") == "hello\nmine\n"
    assert host("pod", "logs", "plain", "-c", "tar") == "hello\n"
    assert sorted(path.name for path in root.iterdir()) == ["bin", "said"]
    gone = PLAIN.replace("tar:%s/root.tar.gz", "dir:%s/nosuch") % (tmp_path, tmp_path)
    assert "nosuch is not a directory" in host("pod", "run", "-f", host.manifest("gone", gone), status=1)


COUNTING = """
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: "%s", command: [sh, -c, "i=0; until [ -e /end ]; do i=$((i+1)); echo $i; sleep 0.02; done; exit 7"]}}]
"""


@needs_criu
def test_a_container_goes_on_in_another_pod_from_its_checkpoint_by_path_and_as_an_image(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("counter", COUNTING % "busybox"))
    until(lambda: len(host("pod", "logs", "counter").split()) > 5, "it has counted")
    path = host("pod", "checkpoint", "counter").strip()
    assert host("image", "from-checkpoint", path, "-t", "saved:v1").startswith(
        "made docker.io/library/saved:v1 sha256:"
    )

    for name, image in (("again", f"checkpoint:{path}"), ("third", "saved:v1")):
        assert host("pod", "run", "-f", host.manifest(name, COUNTING % image)) == f"pod default/{name} running\n"
        host("pod", "exec", name, "--", "touch", "/end")
    until(lambda: exit_codes(host) == {"again": 7, "third": 7}, "both have ended")
    for name in ("again", "third"):
        first, *others = map(int, host("pod", "logs", name).split())
        assert first > 5
        assert others == list(range(first + 1, first + 1 + len(others)))


def exit_codes(host: Host) -> dict[str, int]:
    """Of the pods whose container has ended."""
    states = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["state"] for pod in host.pods()}
    return {name: state["terminated"]["exitCode"] for name, state in states.items() if "terminated" in state}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\n  x: [", "is not YAML"),
        ("kind: Deployment", "Deployment is not a Pod"),
        ("kind: Pod\nmetadata: {{name: p}}\nspec: {{containers: {{}}}}", "containers"),
        (
            "kind: Pod\nmetadata: {{name: p}}\nspec: {{containers: []}}",
            'Pod "p" is invalid: spec.containers: Required value',
        ),
        (
            "kind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: c, image: x, comand: [y]}}]}}",
            "unknown field",
        ),
        ("", "holds no pod"),
        (TOKEN, "volume t asks for a service-account token, which a master issues"),
    ],
)
def test_what_is_no_pod_is_refused_in_one_line_and_starts_nothing(host: Host, text: str, message: str) -> None:
    complaint = host("pod", "run", "-f", host.manifest("bad", text), status=1)

    assert message in complaint.splitlines()[0]
    assert not host.run_dir.exists()


def test_a_pod_that_cannot_start_says_why(host: Host) -> None:
    missing = "kind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: nosuch.example/x:1}}]}}"

    complaint = host("pod", "run", "-f", host.manifest("noimage", missing), status=1)

    assert "ErrImagePull" in complaint


LONGER = """
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {{name: first, image: busybox, command: ["true"]}}
  - {{name: side, image: busybox, restartPolicy: Always, command: [sh, -c, "trap 'exit 0' TERM; while true; do sleep 0.05; done"]}}
  containers:
  - {{name: c, image: busybox, command: [sh, -c, "trap 'exit 0' TERM; while true; do sleep 0.05; done"]}}
"""


def test_a_command_that_cannot_says_what_on_what_and_the_cure(host: Host, tmp_path: Path) -> None:
    host("pod", "run", "-f", host.manifest("one", LONGER), "--wait", "ready")

    ended = "container first of pod default/one has ended with exit code 0 (Completed)"
    for verb, more in (("exec", ("--", "true")), ("attach", ())):
        complaint = host("pod", verb, "one", "-c", "first", *more, status=1)
        assert complaint.splitlines() == [f"minikube-raw: {ended}", "  choose one that runs with -c: side, c"]
    for arguments, message, cure in (
        (("run", "-f", "nosuch.yaml"), "nosuch.yaml: No such file or directory", "name a manifest"),
        (("logs", "one", "--since-time", "today"), '--since-time: "today" is not an RFC 3339 time', "write it as"),
        (("events", "nosuch"), "there is no pod default/nosuch on this host", "pod list"),
        (("cp", "one:/nosuch", str(tmp_path)), "copying /nosuch of the container to", "name a file that is there"),
        (("cp", "/etc/hostname", "one:/no/dir"), "of the container: No such file or directory: /no", "a directory"),
        (("cp", "/etc/hostname", "one:"), "one: lacks its path", "write it as POD:PATH"),
    ):
        first, second = host("pod", *arguments, status=1).splitlines()
        assert message in first
        assert cure in second


def test_the_list_shows_pods_as_kubectl_does(host: Host) -> None:
    failing = LONGER.replace('["true"]', '["false"]').replace("spec:\n", "spec:\n  restartPolicy: Never\n")
    host("pod", "run", "-f", host.manifest("one", LONGER), "--wait", "ready")
    host("pod", "run", "-f", host.manifest("two", failing), "--wait", "ended", status=1)

    rows = [line.split()[1:5] for line in host("pod", "list").splitlines()[1:]]

    assert rows == [["one", "2/2", "Running", "0"], ["two", "0/2", "Init:Error", "0"]]


NO_VOLUME = """
kind: Pod
metadata: {{name: {name}}}
spec:
  volumes: [{{name: v, configMap: {{name: nosuch}}}}]
  containers: [{{name: c, image: busybox, volumeMounts: [{{name: v, mountPath: /v}}]}}]
"""


def test_what_keeps_a_pod_from_running_is_told(host: Host) -> None:
    complaint = host("pod", "run", "-f", host.manifest("waits", NO_VOLUME), "--timeout", "3", status=1)
    assert 'FailedMount: MountVolume.SetUp failed for volume "v" : configmap "nosuch" not found' in complaint

    said = host("pod", "run", "-f", host.manifest("bad", ENDING % "nosuch"))
    assert said.startswith("pod default/bad failed: container c: StartError (128)")
    assert 'exec: "nosuch": executable file not found in $PATH' in said


NEVER_STARTS = """
kind: Pod
metadata: {{name: {name}}}
spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, image: busybox, command: [nosuch]}}]}}
"""


def test_a_pod_whose_program_cannot_be_executed_has_not_started_and_can_be_replaced(host: Host) -> None:
    complaint = host("pod", "run", "-f", host.manifest("never", NEVER_STARTS), status=1)

    assert complaint.startswith("minikube-raw: pod default/never has not started: ")
    assert 'exec: "nosuch": executable file not found in $PATH' in complaint
    assert host("pod", "run", "--replace", "-f", host.manifest("never")) == "pod default/never running\n"


def test_pods_whose_agent_was_killed_are_not_passed_over_and_files_that_are_no_manifests_are(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("kept"))
    agent = host.agent()
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    with host.started("pod", "list", errors=True) as listing:
        assert "no agent runs, and what is here (1 to be kept) is looked after by nobody" in listing.communicate()[0]
    directory = host.state / "standalone/manifests"
    files = {"broken": "{{{", "empty": "", "nobodys": "kind: Pod\nmetadata: {name: nobodys, namespace: default}"}
    files["copy"] = (directory / "default_kept.yaml").read_text()
    for name, text in files.items():
        (directory / f"default_{name}.yaml").write_text(text)

    host("pod", "start")

    assert [each["metadata"]["name"] for each in host.pods()] == ["kept"]
    assert "cannot be read: it is not named after its pod, default/kept" in host("pod", "stop", "copy", status=1)
    host("pod", "rm", *files)
    assert [each["status"]["phase"] for each in host.pods()] == ["Running"]


@pytest.mark.parametrize("command", [("start",), ("rm", "--all")])
def test_a_pod_whose_agent_was_killed_while_it_removed_it_is_ended_by_the_next(
    host: Host, command: tuple[str, ...]
) -> None:
    host("pod", "run", "-f", host.manifest("left"))
    agent = host.agent()
    assert agent is not None
    agent.suspend()
    (host.state / "standalone/manifests/default_left.yaml").unlink()
    agent.kill()
    agent.wait()

    host("pod", *command)

    if command == ("rm", "--all"):
        assert (host.launchers(), host.run_dir.joinpath("standalone").exists()) == ([], False)
    gone(host)


LONG_NAMED = """
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: busybox, command: [sh, -c, "trap 'exit 0' TERM; echo up; while true; do sleep 0.05; done"]}]
"""


@pytest.mark.parametrize("length", [242, 253])
def test_a_pods_name_may_be_as_long_as_the_api_allows(host: Host, length: int) -> None:
    name = ".".join(["a" * 63] * 4)[: length - 1] + "z"
    namespace = "n" * 63 if length == 253 else "default"
    text = LONG_NAMED % name
    host("pod", "run", "-n", namespace, "-f", "-", stdin=text)
    host("pod", "run", "-n", namespace, "-f", "-", stdin=LONG_NAMED % f"{name[:-1]}y")

    assert host("pod", "logs", "-n", namespace, name) == "up\n"
    assert "exists" in host("pod", "run", "-n", namespace, "-f", "-", status=1, stdin=text)
    host("pod", "rm", "-n", namespace, name)
    host("pod", "stop", "-n", namespace, f"{name[:-1]}y")
    assert [each["metadata"]["name"] for each in host.pods()] == [f"{name[:-1]}y"]
    host("pod", "start", "-n", namespace, f"{name[:-1]}y")
    host("pod", "rm", "--all")

    assert [*(host.state / "standalone/manifests").iterdir()] == []
    assert [*(host.state / "standalone").glob("**/*aaaa*")] == []


def test_who_may_not_ask_the_agent_is_not_told_that_there_are_no_pods(host: Host) -> None:
    host("pod", "run", "-f", host.manifest("one"))
    host.run_dir.chmod(0o700)

    child = os.fork()
    if not child:
        os.setgid(65534)
        os.setuid(65534)
        try:
            os._exit(int(localagent.answers(options_for(host.state, host.run_dir))))
        except PermissionError:
            os._exit(42)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_a_pod_on_its_way_out_is_shown_so_and_holds_its_name(host: Host) -> None:
    stubborn = LONGER.replace("PeriodSeconds: 1", "PeriodSeconds: 8").replace("trap 'exit 0' TERM", "trap '' TERM")
    host("pod", "run", "-f", host.manifest("one", stubborn), "--wait", "ready")

    host("pod", "rm", "one", "--no-wait")
    until(lambda: host.pods()[0]["metadata"].get("deletionTimestamp"), "the agent has seen it")
    assert host("pod", "list").splitlines()[1].split()[1:4] == ["one", "2/2", "Terminating"]

    complaint = host("pod", "run", "-f", host.manifest("one", LONGER), "--timeout", "1", status=1)
    assert "the pod that had its name before has not ended yet" in complaint
