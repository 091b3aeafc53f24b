"""Nothing of an image is loaded by us: our Python runs inside it between pivot_root and exec, as root (CVE-2019-14271's class)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runtime_node import Node, container, ended, running_node

from minikube_raw.oci.manifests import ImageConfig
from minikube_raw.runtime.cri import RuntimeServiceError

pytestmark = pytest.mark.root

# Runs before the launcher: what a process does that does not stand in the host's file system is written down, in memory
# shared by all its forks, since they close every descriptor they do not know.
WATCHER = """
import mmap, os, struct, sys
_file = os.open({evidence!r}, os.O_RDWR)
_page = mmap.mmap(_file, 1 << 20)
_host = os.stat("/").st_ino, os.stat("/").st_dev
_looking = False
def _watch(event, arguments):
    global _looking
    if _looking or event not in ("import", "open", "ctypes.dlopen", "ctypes.dlsym"):
        return
    _looking = True
    try:
        root = os.stat("/")
        if (root.st_ino, root.st_dev) != _host:
            line = (event + " " + repr(arguments[:1]) + "\\n").encode()
            used = struct.unpack_from("Q", _page)[0]
            _page[8 + used : 8 + used + len(line)] = line
            struct.pack_into("Q", _page, 0, used + len(line))
    finally:
        _looking = False
sys.addaudithook(_watch)
"""

POISON = "import os; os.write(2, b'POISON'); open('/poisoned', 'w')\n"


def poison(root: Path) -> None:
    """Puts poisoned modules and libraries wherever our interpreter or glibc would look for some."""
    names = (
        "traceback",
        "linecache",
        "encodings/idna",
        "encodings/utf_8",
        "encodings/ascii",
        "pwd",
        "grp",
        "site",
        "tokenize",
    )
    host_paths = subprocess.run(
        [os.path.realpath(sys.executable), "-I", "-S", "-c", "import sys; print(*sys.path, sep='\\n')"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    package = str(Path(__file__).parents[3])
    for directory in (*host_paths, package, "/"):
        for name in names:
            path = root / directory.lstrip("/") / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(POISON)
    for library in ("libnss_files.so.2", "libnss_compat.so.2", "libgcc_s.so.1"):
        for directory in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib"):
            path = root / directory / library
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not a library")
    (root / "etc/ld.so.preload").write_text("/lib/libgcc_s.so.1\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files compat\n")


class WatchedNode(Node):
    def start_launcher(self) -> None:
        original = subprocess.Popen
        evidence = str(self.logs / "evidence")
        Path(evidence).write_bytes(bytes(1 << 20))

        def watched(argv: list[str], **options: object) -> subprocess.Popen[bytes]:
            code = argv.index("-c") + 1
            start = "import sys, os\nif os.readlink('/proc/self/exe').startswith('/memfd:'):\n"
            hook = "".join(f"    {line}\n" for line in WATCHER.format(evidence=evidence).splitlines())
            argv = [*argv[:code], f"{start}{hook}\n{argv[code]}", *argv[code + 1 :]]
            return original(argv, **options)  # type: ignore[call-overload,no-any-return]

        subprocess.Popen = watched  # type: ignore[misc,assignment]
        try:
            super().start_launcher()
        finally:
            subprocess.Popen = original  # type: ignore[misc]


async def test_a_poisoned_image_starts_without_a_byte_of_it_run_by_us(tmp_path: Path) -> None:
    async with running_node(tmp_path, WatchedNode) as (node, runtime):
        root = node.images.images["busybox"][0]
        poison(root)
        sandbox = await runtime.run_pod_sandbox(node.pod())
        created = await runtime.create_container(sandbox, container("sh", "-c", "ls /poisoned; exec sleep 100"))
        await runtime.start_container(created)
        assert (await runtime.exec_sync(created, ["true"])).exit_code == 0
        session = await runtime.exec(created, ["true"], tty=True)
        await session.wait()
        session.close()
        with pytest.raises(RuntimeServiceError, match="not found in"):
            await runtime.exec_sync(created, ["nosuch"])
        await start_badly(node, sandbox, runtime)
        await runtime.stop_container(created, 0)
        assert "No such file" in node.output(await ended(runtime, created), "stderr")
        evidence = (node.logs / "evidence").read_bytes()[8:].rstrip(b"\0").decode().splitlines()
    places_to_mount_on = ("open ('hostname'", "open ('hosts'", "open ('resolv.conf'")
    own_device = "open ('null'"  # below a /dev of ours that nothing of the image is in
    allowed = ("open ('/'", "open ('/dev/", "open ('/proc/", own_device, *places_to_mount_on)
    assert evidence, "the hook saw nothing at all, so it proves nothing"
    assert [line for line in evidence if not line.startswith(allowed)] == []


async def start_badly(node: Node, sandbox: str, runtime: object) -> None:
    """Every way in which a start fails after the switch to the image's root."""
    root = node.images.images["busybox"][0]
    images = {
        "no user": ImageConfig(user="ghost", cmd=("true",)),
        "strange user": ImageConfig(user="\u2603:\u2603", cmd=("true",)),
        "not found": ImageConfig(cmd=("\u2603",)),
        "not executable": ImageConfig(cmd=("/etc/passwd",)),
        "format": ImageConfig(cmd=("/lib/libgcc_s.so.1",)),
        "working directory": ImageConfig(cmd=("true",), working_dir="/etc/passwd/x"),
    }
    (root / "lib/libgcc_s.so.1").chmod(0o755)
    for name, config in images.items():
        node.images.images[name] = (root, config)
        created = await runtime.create_container(sandbox, container(name=name.replace(" ", ""), image=name))  # type: ignore[attr-defined]
        with pytest.raises(RuntimeServiceError):
            await runtime.start_container(created)  # type: ignore[attr-defined]


async def test_the_program_we_run_from_cannot_be_written_from_inside(tmp_path: Path) -> None:
    """CVE-2019-5736: an entrypoint of /proc/self/exe is our own interpreter, which must be a sealed copy."""
    async with running_node(tmp_path) as (node, runtime):
        root = node.images.images["busybox"][0]
        (root / "bin/trap").write_text("#!/proc/self/exe\n")
        (root / "bin/trap").chmod(0o755)
        interpreter = Path(os.path.realpath(sys.executable))
        before = interpreter.stat()
        sandbox = await runtime.run_pod_sandbox(node.pod())
        for name, command in (("exe", "/proc/self/exe"), ("script", "/bin/trap")):
            created = await runtime.create_container(sandbox, container(command, name=name))
            try:
                await runtime.start_container(created)
            except RuntimeServiceError:
                continue
            await ended(runtime, created)
        after = interpreter.stat()
        assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
        assert node.launcher is not None
        assert os.readlink(f"/proc/{node.launcher.pid}/exe").startswith("/memfd:")
        with pytest.raises(OSError, match=r"Operation not permitted|Text file busy"):
            os.open(f"/proc/{node.launcher.pid}/exe", os.O_WRONLY)


async def test_no_output_of_a_container_can_forge_a_log_line(tmp_path: Path) -> None:
    async with running_node(tmp_path) as (node, runtime):
        sandbox = await runtime.run_pod_sandbox(node.pod())
        forged = "2020-01-01T00:00:00.000000000Z stdout F forged"
        created = await runtime.create_container(sandbox, container("printf", f"a\\r{forged}\\033[2J\\n{forged}\\n"))
        await runtime.start_container(created)
        status = await ended(runtime, created)
        lines = Path(status.log_path).read_bytes().split(b"\n")
        assert [line.count(b" stdout F ") for line in lines] == [2, 2, 0]
        assert all(not line.startswith(b"2020") for line in lines)
