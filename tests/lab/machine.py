"""A machine of the lab: QEMU without hardware help, a disk of its own over the shared image, commands by ssh with deadlines.

It lives in the network namespace of whoever starts it (`make lab` gives one), where its forwarded port is nobody else's.
A machine is a context manager and QEMU a child that dies with us: nothing is left, however a test ends.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import image

REPOSITORY = Path(__file__).parents[2]
MEMORY = "768"  # MiB
CPU = "qemu64,-cx16"  # QEMU 7.2 breaks the flags register in cmpxchg16b, which Linux 6.12 does not survive
KUBECTL = ".cache/kubernetes-client/usr/bin/kubectl"
CHECKERS = ("mypy", "mypyc", "*__mypyc.*", "pip", "ruff*")  # the host runs these
KERNEL_ARGUMENTS = (
    "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off audit=0 cryptomgr.notests no_timer_check"
    " random.trust_cpu=on systemd.show_status=0 systemd.journald.forward_to_console=0"
)

SSH_CONFIG = """\
Host {name}
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile {key}
  BatchMode yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 10
  # One connection for all commands: a handshake costs an emulated machine a second.
  ControlMaster auto
  ControlPath {control}
  ControlPersist yes
"""


class Failed(AssertionError):
    """A command in the machine did not end as it should."""


class Machine:
    """One machine. `number` (from 1) tells its port and its addresses from those of others in the same namespace."""

    command = f"{REPOSITORY}/.venv/bin/minikube-raw"

    def __init__(self, name: str, number: int, directory: Path, system: image.Image, tree: Path, numa: int = 1) -> None:
        self.name, self._number, self._directory, self._image, self._tree = name, number, directory, system, tree
        self._numa = numa
        self._qemu: subprocess.Popen[bytes] | None = None
        config = SSH_CONFIG.format(name=name, port=2300 + number, key=system.key, control=directory / f"{name}.socket")
        (directory / f"{name}.ssh_config").write_text(config)
        base = ["-b", str(system.disk.resolve()), "-F", "raw"]
        disk = directory / f"{name}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(disk)], check=True, timeout=30)

    def boot(self, timeout: float = 180) -> None:
        """Start it, wait until systemd has started everything and until the working tree is where it is here."""
        disk, mac = self._directory / f"{self.name}.qcow2", f"52:54:00:00:00:{self._number:02x}"
        self._qemu = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "nice", "qemu-system-x86_64", "-name", self.name),
                *("-accel", "tcg,thread=single,tb-size=192", "-machine", "q35", "-cpu", CPU, *numa_nodes(self._numa)),
                *("-nodefaults", "-display", "none", "-serial", f"file:{self.console}"),
                *("-drive", f"if=none,id=root,file={disk},format=qcow2,cache=unsafe"),
                *("-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci"),
                *("-drive", f"if=none,id=tree,file={self._tree},format=raw,snapshot=on"),  # a new one at every boot
                *("-device", "virtio-blk-pci,drive=tree"),
                *("-netdev", f"user,id=eth0,hostfwd=tcp:127.0.0.1:{2300 + self._number}-:22"),
                *("-device", f"virtio-net-pci,netdev=eth0,mac={mac},romfile="),
                *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd)),
                *("-append", f"{KERNEL_ARGUMENTS} systemd.hostname={self.name}"),
            ],
            stdin=subprocess.DEVNULL,
            stderr=(self._directory / "qemu.log").open("ab"),
        )
        self._wait_until_up(timeout)
        self.run(
            f"findmnt -n {REPOSITORY} || {{ mkdir -p {REPOSITORY}"
            f" && echo '/dev/vdb {REPOSITORY} ext4 defaults 0 0' >> /etc/fstab && sync && mount {REPOSITORY}; }}"
        )

    def _wait_until_up(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            self._check_alive()
            try:
                self.run("systemctl is-system-running --wait", timeout=deadline - time.monotonic(), check=False)
                return
            except (Failed, subprocess.TimeoutExpired):
                if time.monotonic() > deadline:
                    raise Failed(f"{self.name} is not up after {timeout} s:\n{self.console_tail()}") from None
                time.sleep(0.5)

    def _check_alive(self) -> None:
        if self._qemu is None or self._qemu.poll() is not None:
            raise Failed(f"QEMU has ended: {(self._directory / 'qemu.log').read_text()}\n{self.console_tail()}")
        if "Kernel panic" in self.console_tail():
            raise Failed(f"{self.name} has stopped:\n{self.console_tail()}")

    @property
    def console(self) -> Path:
        """What the machine's kernel has said, for people to read."""
        return self._directory / f"{self.name}.console"

    def console_tail(self) -> str:
        """The end of that."""
        return self.console.read_text(errors="replace")[-2000:] if self.console.exists() else ""

    def run(self, command: str, *, timeout: float = 60, check: bool = True, stdin: str | None = None) -> str:
        """Run a shell command as root and return what it wrote; Failed if it exits with another status than 0 or too late."""
        inside = f"timeout -k 5 {timeout:.0f} bash -c {shlex.quote(command)}"
        done = subprocess.run(
            self._ssh(self.name, inside),
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=timeout + 30,
            check=False,
        )
        if done.returncode == 255 or (check and done.returncode):
            raise Failed(f"{self.name}: {command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def product(self, arguments: str, *, timeout: float = 300, check: bool = True, stdin: str | None = None) -> str:
        """Run `minikube-raw …` of the working tree."""
        return self.run(f"{self.command} {arguments}", timeout=timeout, check=check, stdin=stdin)

    def _ssh(self, *words: str) -> list[str]:
        return ["ssh", "-F", str(self._directory / f"{self.name}.ssh_config"), *words]

    def _hang_up(self) -> None:
        """Forget the connection, which a reset machine no longer knows of."""
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(self._ssh("-O", "exit", self.name), capture_output=True, timeout=10, check=False)
        (self._directory / f"{self.name}.socket").unlink(missing_ok=True)

    def reboot(self, timeout: float = 300) -> None:
        """Have systemd stop everything and start again."""
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        with suppress(Failed):  # the connection may be gone before it has answered
            self.run("systemctl reboot", check=False)
        self._hang_up()
        deadline = time.monotonic() + timeout
        while True:
            self._check_alive()
            try:
                if self.run("cat /proc/sys/kernel/random/boot_id", timeout=20) != before:
                    break
            except (Failed, subprocess.TimeoutExpired):
                self._hang_up()
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} has not come back after {timeout} s:\n{self.console_tail()}")
            time.sleep(0.5)
        self._wait_until_up(deadline - time.monotonic())

    def cut_power(self) -> None:
        """End it at once; what its kernel had not written to the disk is lost. boot() starts it again."""
        assert self._qemu is not None
        self._qemu.kill()
        self._qemu.wait()
        self._hang_up()


def numa_nodes(count: int) -> list[str]:
    """QEMU's words for a machine whose memory lies on so many NUMA nodes with a CPU each."""
    words = ["-smp", str(count), "-m", MEMORY]
    for number in range(count) if count > 1 else ():
        words += ["-object", f"memory-backend-ram,id=node{number},size={int(MEMORY) // count}M"]
        words += ["-numa", f"node,nodeid={number},cpus={number},memdev=node{number}"]
    return words


@contextmanager
def machine(name: str = "lab", number: int = 1, *, numa: int = 1) -> Iterator[Machine]:
    """A booted machine with the working tree in it, of so many NUMA nodes; afterwards there is nothing of it."""
    system = image.find()
    assert system is not None, "there is no image yet: python -m tests.lab.image"
    with tempfile.TemporaryDirectory(prefix="minikube-raw-lab-") as directory:
        tree = Path(directory) / "tree.raw"
        pack_working_tree(tree)
        made = Machine(name, number, Path(directory), system, tree, numa)
        try:
            made.boot()
            yield made
        finally:
            made.cut_power()


def pack_working_tree(disk: Path) -> None:
    """Write a disk of this repository, its virtual environment and a kubectl, which run in the machine from the same path as here."""
    image.CACHE.mkdir(parents=True, exist_ok=True)
    left_out = shutil.ignore_patterns(".git", ".cache", ".*_cache", ".hypothesis", "__pycache__", *CHECKERS)
    with tempfile.TemporaryDirectory(dir=image.CACHE) as scratch:
        # Hard links: the copy takes no room and no time.
        shutil.copytree(REPOSITORY, f"{scratch}/tree", symlinks=True, ignore=left_out, copy_function=_link)
        (Path(scratch) / "tree" / KUBECTL).parent.mkdir(parents=True)
        _link(str(REPOSITORY / KUBECTL), f"{scratch}/tree/{KUBECTL}")
        image.make_disk(disk, Path(scratch) / "tree", "1G")


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
