/*
 * Asks every system call once, each in a child of its own, with arguments that mean nothing (-1): what matters is who answers,
 * the call itself (EFAULT, EBADF, EINVAL …) or a filter before it (EPERM, ENOSYS, a signal).
 *
 * A timer interrupts the calls that would wait. Then the arguments that profiles look at, and the calls of other ABIs. ptrace
 * does not wait, and has no timer: a child that is traced stops at every signal, and nobody here would let it go on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

void say(const char *key, const char *format, ...);

enum { LAST_CALL = 480, X32 = 0x40000000, INTERRUPT_US = 5000 };

/* By hand: after vfork the child must not touch the stack that it shares with its parent. */
static long raw(long number, long a, long b, long c, long d, long e, long f)
{
	register long fourth __asm__("r10") = d, fifth __asm__("r8") = e, sixth __asm__("r9") = f;
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth) : "rcx", "r11", "memory");
	return result;
}

static void interrupted(int number)
{
	(void)number;
}

static void ask(const char *key, long number, long a, long b, long c, long d, long e, long f)
{
	int answer[2];
	int status = 0;
	long result = 1;
	if (pipe(answer) < 0)
		return;
	pid_t child = fork();
	if (child < 0) {
		say(key, "fork: %s", strerrorname_np(errno));
		close(answer[0]);
		close(answer[1]);
		return;
	}
	if (child == 0) {
		struct sigaction action = { .sa_handler = interrupted };
		struct itimerval timer = { { 0, INTERRUPT_US }, { 0, INTERRUPT_US } };
		raw(SYS_setsid, 0, 0, 0, 0, 0, 0);
		sigaction(SIGALRM, &action, NULL);
		if (number != SYS_ptrace)
			setitimer(ITIMER_REAL, &timer, NULL);
		long got = raw(number, a, b, c, d, e, f);
		raw(SYS_write, answer[1], (long)&got, sizeof got, 0, 0, 0);
		raw(SYS_exit_group, 0, 0, 0, 0, 0, 0);
	}
	close(answer[1]);
	int told = read(answer[0], &result, sizeof result) == sizeof result;
	close(answer[0]);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (!told && WIFSIGNALED(status))
		say(key, "SIG%s", sigabbrev_np(WTERMSIG(status)));
	else if (!told)
		say(key, "exit");
	else if (result < 0 && result > -4096)
		say(key, "%s", strerrorname_np((int)-result));
	else
		say(key, "ok");
}

static long call_32_bit(long number)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0) : "memory");
	return result;
}

static void ask_32_bit(void)
{
	int status = 0;
	pid_t child = fork();
	if (child == 0)
		_exit(call_32_bit(20 /* getpid */) > 0 ? 0 : 1);
	waitpid(child, &status, 0);
	say("call 32-bit getpid", "%s", WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : WEXITSTATUS(status) ? "refused" : "ok");
}

/* Not asked: sync waits for the host's disks; vfork, fork and rt_sigreturn do not come back in an order that could be compared. */
static int is_left_out(long number)
{
	return number == SYS_sync || number == SYS_vfork || number == SYS_fork || number == SYS_rt_sigreturn;
}

void sweep(void)
{
	char key[60];
	for (long number = 0; number < LAST_CALL; number++) {
		snprintf(key, sizeof key, "call %03ld", number);
		if (number == SYS_msgget) /* all bits set would make a queue, the first time */
			ask(key, number, -1, 0, 0, 0, 0, 0);
		else if (!is_left_out(number))
			ask(key, number, -1, -1, -1, -1, -1, -1);
	}
	ask("call x32 getpid", X32 | SYS_getpid, 0, 0, 0, 0, 0, 0);
	ask_32_bit();
	for (int family = 0; family < 46; family++) {
		snprintf(key, sizeof key, "socket family %02d", family);
		ask(key, SYS_socket, family, SOCK_DGRAM, 0, 0, 0, 0);
	}
	ask("socket raw", SYS_socket, AF_INET, SOCK_RAW, 1, 0, 0, 0);
	ask("socket ping", SYS_socket, AF_INET, SOCK_DGRAM, 1, 0, 0, 0);
	static const struct { const char *name; long flag; } kinds[] = {
		{ "user", CLONE_NEWUSER }, { "mount", CLONE_NEWNS }, { "net", CLONE_NEWNET }, { "pid", CLONE_NEWPID },
		{ "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS }, { "cgroup", CLONE_NEWCGROUP },
	};
	for (size_t at = 0; at < sizeof kinds / sizeof *kinds; at++) {
		snprintf(key, sizeof key, "unshare %s", kinds[at].name);
		ask(key, SYS_unshare, kinds[at].flag, 0, 0, 0, 0, 0);
	}
	ask("personality linux", SYS_personality, PER_LINUX, 0, 0, 0, 0, 0);
	ask("personality linux32", SYS_personality, PER_LINUX32, 0, 0, 0, 0, 0);
	ask("personality no randomisation", SYS_personality, ADDR_NO_RANDOMIZE, 0, 0, 0, 0, 0);
	ask("chroot", SYS_chroot, (long)"/tmp", 0, 0, 0, 0, 0);
	ask("setuid", SYS_setuid, 4242, 0, 0, 0, 0, 0);
	ask("setgid", SYS_setgid, 4242, 0, 0, 0, 0, 0);
	ask("mount tmpfs", SYS_mount, (long)"none", (long)"/tmp", (long)"tmpfs", 0, 0, 0);
	ask("umount /proc/sys", SYS_umount2, (long)"/proc/sys", 2, 0, 0, 0, 0);
	ask("remount / writable", SYS_mount, (long)"", (long)"/", 0, 32 | 4096, 0, 0);
	ask("sethostname", SYS_sethostname, (long)"", -1, 0, 0, 0, 0);
	ask("ptrace traceme", SYS_ptrace, 0, 0, 0, 0, 0, 0);
}
