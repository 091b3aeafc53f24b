"""seccomp profiles of a node (Localhost) in the shapes people write: what each refuses is the same under runc."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
X86 = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
# Enough for the probe to look around and say what it saw; then what a runtime does between the filter and exec.
_NEEDED = """
access arch_prctl brk chdir clone clone3 close connect dup dup2 execve exit exit_group faccessat fcntl fork fstat
fstatfs getcwd getdents64 getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresuid getrlimit getsid gettid getuid ioctl keyctl lseek lstat mkdir mmap mprotect munmap newfstatat open openat pipe
pipe2 poll prctl pread64 prlimit64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask rt_sigreturn
sched_getaffinity set_robust_list set_tid_address setitimer setsid sigaltstack socket stat statfs statx sysinfo umask
uname unlink vfork wait4 write writev
capget capset close_range epoll_create1 epoll_ctl epoll_pwait eventfd2 faccessat2 fchdir fchown fchownat futex getsockopt
madvise nanosleep recvmsg sched_yield sendmsg setgid setgroups setresgid setresuid setuid tgkill
"""
NEEDED = _NEEDED.split()


def rule(names: list[str], action: str, **more: Any) -> Json:
    return {"names": names, "action": f"SCMP_ACT_{action}", **more}


def compared(index: int, value: int, op: str, two: int = 0) -> Json:
    return {"index": index, "value": value, "valueTwo": two, "op": f"SCMP_CMP_{op}"}


PROFILES: dict[str, Json] = {
    "allow-but": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": X86,
        "syscalls": [
            rule(["mkdirat", "chmod", "nosuchcall"], "ERRNO", errnoRet=18),
            rule(["swapon", "kexec_load"], "ERRNO"),
            rule(["socket"], "ERRNO", errnoRet=97, args=[compared(0, 16, "EQ")]),
            rule(["ptrace"], "KILL_PROCESS"),
            rule(["acct"], "TRAP"),
        ],
    },
    "refuse-but": {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": X86,
        "syscalls": [rule(NEEDED, "ALLOW"), rule(["mount"], "ERRNO", errnoRet=13)],
    },
    "refuse-but-natively": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(NEEDED, "ALLOW")]},
    "log-the-rest": {
        "defaultAction": "SCMP_ACT_LOG",
        "architectures": X86,
        "syscalls": [rule(["mknod", "mknodat"], "ERRNO"), rule(NEEDED, "ALLOW")],
    },
    "conditions": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": X86,
        "syscalls": [
            rule(["personality"], "ERRNO", errnoRet=1, args=[compared(0, 0xFFFFFFFF, "NE")]),
            rule(["clone"], "ERRNO", args=[compared(0, 0x7E020000, "MASKED_EQ", 0x10000000)]),
            rule(["socket"], "ERRNO", args=[compared(0, 2, "EQ"), compared(1, 3, "EQ")]),
            rule(["setpriority"], "ERRNO", args=[compared(0, 1, "GE")]),
        ],
    },
    "as-docker-writes-it": {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": X86[1:]}],
        "syscalls": [
            rule(NEEDED, "ALLOW"),
            rule(["ptrace"], "ALLOW", includes={"minKernel": "4.8"}),
            rule(["bpf"], "ALLOW", includes={"caps": ["CAP_BPF"]}),
            rule(["chown"], "ALLOW", excludes={"caps": ["CAP_SYS_ADMIN"]}),
            rule(["chroot"], "ALLOW", includes={"arches": ["s390"]}),
        ],
    },
}
