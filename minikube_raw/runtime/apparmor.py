"""Which AppArmor profile a container has: the default one (loaded when it is first wanted), one that the node has, or none.

As with containerd: on a node that can confine, a container that says nothing gets the default, a privileged one nothing.
"""

from __future__ import annotations

import functools
import os
import subprocess

from minikube_raw.linux import apparmor

from .cri import ProfileType, RuntimeServiceError, SecurityContext

DEFAULT = "minikube-raw-default"
_PARSER = "/sbin/apparmor_parser"
_ABSTRACTIONS = "/etc/apparmor.d"
_PARSER_SECONDS = 60

# The bounds of cri-containerd.apparmor.d: whatever the container's capabilities, the kernel's own switches are out of
# reach. AppArmor's globs know no "all but": the steps below spell out the neighbours of what stays writable.
_RULES = """\
profile {name} flags=(attach_disconnected, mediate_deleted) {{
  {base}
  capability,
  network,
  file,
  umount,
  deny mount,

  # The node may signal every process of the container; these, each other.
  signal (receive) peer=unconfined,
  signal (send, receive) peer={name},
  ptrace (trace, tracedby, read, readby) peer={name},

  # Of /proc a process may write below its own number and below sys/kernel/shm*.
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}}/** w,
  deny @{{PROC}}/sys/[^k]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny @{{PROC}}/{{sysrq-trigger,mem,kmem,kcore}} rwklx,

  # Of /sys nothing but fs/cgroup.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"""


def profile(security: SecurityContext) -> str:
    """Returns the profile that the container's programs change to, "" for none; may load the default, so not for the loop.

    Raises RuntimeServiceError (CreateContainerError) in containerd's words for one that is not loaded or cannot be.
    """
    asked = security.apparmor
    if asked is None and not can_confine():
        return ""
    kind = ProfileType.RUNTIME_DEFAULT if asked is None else asked.type
    if kind is ProfileType.UNCONFINED or (kind is ProfileType.RUNTIME_DEFAULT and security.privileged):
        return ""
    if asked is not None and kind is ProfileType.LOCALHOST:
        if not apparmor.is_loaded(asked.localhost_ref):
            raise _failure(f"apparmor profile not found {asked.localhost_ref}")
        return asked.localhost_ref
    if not can_confine():
        raise _failure("apparmor is not supported")
    _load_default()
    return DEFAULT


@functools.cache
def can_confine() -> bool:
    """Whether the kernel enforces profiles and the node has what compiles them."""
    return apparmor.is_enabled() and os.access(_PARSER, os.X_OK)


@functools.cache
def _load_default() -> None:
    """Loads the default profile, once per process: in place of what another release may have loaded."""
    command = [_PARSER, "--replace", "--skip-cache", "--quiet"]
    text = default_text(abstractions=os.path.isdir(f"{_ABSTRACTIONS}/abstractions"))
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_PARSER_SECONDS, check=False)
    if done.returncode:
        raise _failure(f"load apparmor profile {DEFAULT}: {' '.join(done.stderr.split())}")


def default_text(*, abstractions: bool) -> str:
    """The default profile as apparmor_parser reads it; `abstractions`: the distribution's own are there to include."""
    header = "#include <tunables/global>\n" if abstractions else "@{PROC}=/proc/\n"
    return header + _RULES.format(name=DEFAULT, base="#include <abstractions/base>" if abstractions else "")


def _failure(text: str) -> RuntimeServiceError:
    words = f"failed to get container spec opts: failed to generate apparmor spec opts: {text}"
    return RuntimeServiceError("CreateContainerError", words)
