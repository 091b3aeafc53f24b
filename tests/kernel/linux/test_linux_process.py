"""What a process sets about itself before it becomes a program: signals, descriptors, capabilities, limits, keyring."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minikube_raw.linux import capabilities, fds, files, mounts, namespaces, process, rlimits, signals

pytestmark = pytest.mark.root
InChild = Callable[..., None]


def status(field: str, pid: int | str = "self") -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.split()[1]
    raise AssertionError(field)


def test_a_program_started_after_reset_ignores_and_blocks_nothing() -> None:
    import signal

    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, 40})
        ignore = ctypes.create_string_buffer(b"\1", 32)  # struct sigaction with SIG_IGN
        signals._rt_sigaction(32, ctypes.addressof(ignore), None, 8)  # glibc's own functions refuse 32
        signals.reset()
        os.dup2(tell, 1)
        os.execv("/bin/cat", ["cat", "/proc/self/status"])
    os.close(tell)
    with os.fdopen(told) as pipe:
        fields = dict(line.split(":", 1) for line in pipe.read().splitlines() if line.startswith("Sig"))
    os.waitpid(child, 0)
    assert {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")} == dict.fromkeys(
        ("SigBlk", "SigIgn", "SigCgt"), 0
    )


def test_what_went_first_goes_with_others_again_as_before(in_child: InChild) -> None:
    def check() -> None:
        process.go_with_others()
        os.setpriority(os.PRIO_PROCESS, 0, 5)
        process.go_first()
        assert os.getpriority(os.PRIO_PROCESS, 0) == -10
        process.go_with_others()
        assert os.getpriority(os.PRIO_PROCESS, 0) == 5

    in_child(check)


def test_who_may_not_go_first_goes_with_others(in_child: InChild) -> None:
    def check() -> None:
        os.setresuid(65534, 65534, 65534)
        before = os.getpriority(os.PRIO_PROCESS, 0)
        process.go_first()
        assert os.getpriority(os.PRIO_PROCESS, 0) == before

    in_child(check)


def test_only_the_descriptors_that_are_kept_stay_open(in_child: InChild) -> None:
    def check() -> None:
        opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]
        kept = [0, 1, 2, opened[7], opened[200]]
        fds.close_all_but(kept)
        assert [fd for fd in fds.open_descriptors() if _is_open(fd)] == kept

    in_child(check)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_sealed_program_runs_and_cannot_be_changed() -> None:
    sealed = fds.sealed_copy("/bin/echo", "echo")
    assert fds.is_sealed(sealed)
    assert not fds.is_sealed(0)
    with pytest.raises(OSError) as refused:
        os.write(sealed, b"x")
    assert refused.value.errno == errno.EPERM
    with pytest.raises(OSError):
        os.ftruncate(sealed, 0)
    ran = subprocess.run(
        ["echo", "hello"], executable=f"/proc/self/fd/{sealed}", pass_fds=[sealed], capture_output=True
    )
    os.close(sealed)
    assert ran.stdout == b"hello\n"


def test_a_process_keeps_exactly_the_capabilities_it_is_left(in_child: InChild) -> None:
    wanted = capabilities.mask(capabilities.DEFAULT)

    def check() -> None:
        capabilities.drop_bounding(wanted)
        capabilities.apply(wanted)
        sets = {field: int(status(field), 16) for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert sets == {"CapInh": 0, "CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted, "CapAmb": 0}
        with pytest.raises(PermissionError):
            capabilities.set_sets(wanted | 1 << capabilities.NUMBERS["CAP_SYS_ADMIN"], wanted)

    in_child(check)


def test_our_bounding_set_is_what_the_kernel_says() -> None:
    assert capabilities.available() == int(status("CapBnd"), 16)


def test_a_hard_limit_that_may_not_be_raised_is_cut_and_named(in_child: InChild) -> None:
    def check() -> None:
        rlimits.set_limits({"RLIMIT_NOFILE": (100, 200)})
        capabilities.apply(capabilities.available() & ~(1 << capabilities.NUMBERS["CAP_SYS_RESOURCE"]))
        lowered = rlimits.set_limits({"RLIMIT_NOFILE": (1000, 4000), "RLIMIT_CORE": (0, 0)})
        assert lowered == ["RLIMIT_NOFILE"]
        assert rlimits.get_limit("RLIMIT_NOFILE") == (200, 200)
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)

    in_child(check)


@pytest.mark.parametrize("limits", [{"RLIMIT_NONSENSE": (1, 1)}, {"RLIMIT_NOFILE": (2, 1)}])
def test_a_limit_that_makes_no_sense_is_a_value_error(limits: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(ValueError):
        rlimits.set_limits(limits)


def test_a_new_session_keyring_is_another_one(in_child: InChild) -> None:
    def check() -> None:
        if not process.join_new_session_keyring():
            pytest.skip("keyrings are refused here")
        first = Path("/proc/keys").read_text()
        process.join_new_session_keyring("named")
        assert Path("/proc/keys").read_text() != first

    in_child(check)


def test_the_host_name_belongs_to_the_namespace(in_child: InChild) -> None:
    before = os.uname()

    def check() -> None:
        process.set_hostname("web-0")
        assert os.uname().nodename == "web-0"

    in_child(check, namespaces.CLONE_NEWUTS)
    assert os.uname() == before


def test_prctl_settings_show_in_proc(in_child: InChild) -> None:
    def check() -> None:
        process.set_name("keeper default/web-0")
        process.set_no_new_privileges()
        process.set_dumpable(False)
        assert Path("/proc/self/comm").read_text() == "keeper default/\n"
        assert status("NoNewPrivs") == "1"
        assert os.stat("/proc/self/status").st_uid == 0

    in_child(check)


def test_lowering_the_oom_score_says_whether_it_was_allowed(in_child: InChild) -> None:
    def check() -> None:
        assert process.set_oom_score_adj(500)
        allowed = process.set_oom_score_adj(-500)
        assert Path("/proc/self/oom_score_adj").read_text().strip() == ("-500" if allowed else "500")
        resource_bit = 1 << capabilities.NUMBERS["CAP_SYS_RESOURCE"]
        assert allowed == bool(capabilities.available() & resource_bit)

    in_child(check)


def test_nodes_are_made_with_their_mode_whatever_the_umask(in_child: InChild, tmp_path: Path) -> None:
    def check() -> None:
        os.umask(0o077)
        mounts.tmpfs(str(tmp_path), flags=mounts.MS_NOSUID)
        files.make_character_device(f"{tmp_path}/null", 1, 3)
        assert files.make_directory(f"{tmp_path}/shm", 0o1777)
        assert not files.make_directory(f"{tmp_path}/shm", 0o700)
        files.make_symlink(f"{tmp_path}/fd", "/proc/self/fd")
        assert os.stat(f"{tmp_path}/null").st_mode & 0o777 == 0o666
        assert os.stat(f"{tmp_path}/null").st_rdev == os.makedev(1, 3)
        assert os.stat(f"{tmp_path}/shm").st_mode & 0o7777 == 0o1777

    in_child(check)


ISOLATED = """
import sys
sys.path.insert(0, {root!r})
import os
from minikube_raw.linux import capabilities, fds, features, files, mounts, namespaces, paths, pidfd, process, rlimits
from minikube_raw.linux import signals, steps
from minikube_raw.linux.cgroups import manager

features.all()
seen = []
watching = False
def watch(event, arguments):
    if watching and (event in ("import", "ctypes.dlopen", "ctypes.dlsym", "exec", "compile") or event == "open"):
        seen.append((event, str(arguments[0])))
sys.addaudithook(watch)
namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWUTS)
mounts.set_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
mounts.tmpfs({target!r})
os.mkdir({target!r} + "/proc")
mounts.proc({target!r} + "/proc")
sys.path[:] = []
watching = True
steps.start_recording()
mounts.switch_root({target!r})
root = os.open("/", os.O_PATH)
process.set_hostname("inside")
process.set_link_up("lo")
process.join_new_session_keyring()
process.set_oom_score_adj(500)
files.make_directory("/dev", 0o755)
mounts.tmpfs("/dev")
files.make_character_device("/dev/null", 1, 3)
paths.make_directories_in_root(root, "/a/b")
try:
    mounts.tmpfs("/missing")
except OSError as error:
    str(error)
rlimits.set_limits({{"RLIMIT_NOFILE": (512, 1024)}})
pidfd.open_process(os.getpid())
capabilities.drop_bounding(capabilities.mask(capabilities.DEFAULT))
os.setgroups([])
signals.reset()
process.set_no_new_privileges()
capabilities.apply(capabilities.mask(capabilities.DEFAULT))
fds.close_on_exec_all_but([0, 1, 2]) if features.close_range() else None
steps.take()
watching = False
made_here = ("/", ".", "a", "b")
print([event for event in seen if event[0] != "open" or not event[1].startswith("/proc/") and event[1] not in made_here])
"""


def test_inside_a_foreign_root_nothing_is_imported_looked_up_or_loaded(tmp_path: Path) -> None:
    """What an image holds at our import paths would run as root on the host."""
    code = ISOLATED.format(root=str(Path(__file__).parents[3]), target=str(tmp_path))
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.stdout == "[]\n"
