/*
 * Writes down all that a process can see of itself and its surroundings, a "key TAB value" line each, then waits for SIGTERM.
 *
 * It is the first process of a container, run once by us and once by runc from the same bundle: whatever differs in these
 * lines is a difference between the two runtimes. Static, so that it needs nothing of the image. sweep.c asks the system calls.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#include <termios.h>
#include <unistd.h>

void sweep(void);

extern char **environ;
enum { LONGEST = 2000 };

static void text(const char *value)
{
	for (; *value; value++)
		if (*value == '\n' || *value == '\t' || *value == '\\')
			printf("\\x%02x", *value);
		else
			putchar(*value);
	putchar('\n');
}

void say(const char *key, const char *format, ...)
{
	char value[LONGEST];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(value, sizeof value, format, arguments);
	va_end(arguments);
	printf("%s\t", key);
	text(value);
}

static const char *outcome(long result)
{
	return result < 0 ? strerrorname_np(errno) : "ok";
}

/* A file's content as one line; what it cannot be read for instead. */
static void say_file(const char *key, const char *path)
{
	char value[LONGEST] = "";
	int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	ssize_t size = file < 0 ? -1 : read(file, value, sizeof value - 1);
	if (size < 0)
		say(key, "%s", strerrorname_np(errno));
	else {
		for (ssize_t at = 0; at < size; at++)
			if (!value[at])
				value[at] = ' ';
		say(key, "%s", value);
	}
	if (file >= 0)
		close(file);
}

/* A file of many lines: a key each, the words before `separator`, or a number where there is none. */
static void say_lines(const char *prefix, const char *path, const char *separator)
{
	char line[LONGEST], key[300];
	FILE *file = fopen(path, "re");
	if (!file) {
		say(prefix, "%s", strerrorname_np(errno));
		return;
	}
	for (int number = 0; fgets(line, sizeof line, file); number++) {
		line[strcspn(line, "\n")] = 0;
		char *rest = separator ? strstr(line, separator) : NULL;
		if (rest)
			snprintf(key, sizeof key, "%s %.*s", prefix, (int)(rest - line), line);
		else
			snprintf(key, sizeof key, "%s %03d", prefix, number);
		say(key, "%s", rest ? rest + strlen(separator) : line);
	}
	fclose(file);
}

static void say_entry(const char *prefix, const char *path)
{
	struct stat found;
	char key[600], link[300] = "";
	snprintf(key, sizeof key, "%s %s", prefix, path);
	if (lstat(path, &found) < 0) {
		say(key, "%s", strerrorname_np(errno));
		return;
	}
	if (S_ISLNK(found.st_mode) && readlink(path, link, sizeof link - 1) < 0)
		strcpy(link, "?");
	say(key, "%06o %d:%d %d,%d %s", found.st_mode, found.st_uid, found.st_gid, major(found.st_rdev), minor(found.st_rdev), link);
}

static int by_name(const struct dirent **left, const struct dirent **right)
{
	return strcmp((*left)->d_name, (*right)->d_name);
}

static void walk(const char *directory, int depth, void (*visit)(const char *path, int is_directory))
{
	struct dirent **names;
	int count = scandir(directory, &names, NULL, by_name);
	for (int at = 0; at < count; free(names[at++])) {
		char path[500];
		struct stat found;
		const char *name = names[at]->d_name;
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		snprintf(path, sizeof path, "%s/%s", directory, name);
		if (lstat(path, &found) < 0)
			continue;
		visit(path, S_ISDIR(found.st_mode));
		if (S_ISDIR(found.st_mode) && depth > 1)
			walk(path, depth - 1, visit);
	}
	if (count >= 0)
		free(names);
}

/* Not every device: a privileged container has the host's, and a watchdog that is opened once reboots the machine. */
static int is_harmless(const char *name)
{
	static const char *harmless[] = { "null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "kmsg" };
	for (size_t at = 0; at < sizeof harmless / sizeof *harmless; at++)
		if (!strcmp(name, harmless[at]))
			return 1;
	return 0;
}

static void see_device(const char *path, int is_directory)
{
	char key[600];
	say_entry("dev", path);
	if (is_directory || !is_harmless(strrchr(path, '/') + 1))
		return;
	snprintf(key, sizeof key, "dev-open %s", path);
	int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	say(key, "%s", outcome(file));
	if (file >= 0)
		close(file);
}

static void see_sysctl(const char *path, int is_directory)
{
	char key[600];
	if (is_directory)
		return;
	snprintf(key, sizeof key, "sysctl %s", path + strlen("/proc/sys/"));
	say_file(key, path);
}

static void see_cgroup(const char *path, int is_directory)
{
	char key[600];
	say_entry("cgroup-file", path);
	if (is_directory)
		return;
	snprintf(key, sizeof key, "cgroup-value %s", path + strlen("/sys/fs/cgroup/"));
	say_file(key, path);
}

static void see_entry(const char *path, int is_directory)
{
	(void)is_directory;
	if (!isdigit((unsigned char)strrchr(path, '/')[1]))
		say_entry("entry", path);
}

static void see_write(const char *path)
{
	char key[300];
	snprintf(key, sizeof key, "write %s", path);
	int file = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	say(key, "%s", outcome(file));
	if (file >= 0)
		close(file);
}

/* What can be made in a directory, and whether it is there at all. */
static void see_place(const char *directory)
{
	char key[600], path[400];
	say_entry("place", directory);
	snprintf(path, sizeof path, "%s/.probe", directory);
	snprintf(key, sizeof key, "make-file %s", directory);
	int file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
	say(key, "%s", outcome(file));
	if (file >= 0) {
		say_entry("made", path);
		close(file);
		unlink(path);
	}
	snprintf(key, sizeof key, "make-device %s", directory);
	say(key, "%s", outcome(mknod(path, S_IFCHR | 0666, makedev(1, 11))));
	snprintf(key, sizeof key, "open-device %s", directory);
	file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	say(key, "%s", outcome(file));
	if (file >= 0)
		close(file);
	unlink(path);
}

/* Which devices may be made and opened: what v1 lists in devices.list only the outcome tells where a programme decides (v2). */
static void see_devices_by_number(void)
{
	static const struct { mode_t kind; unsigned major, minor; } devices[] = {
		{ S_IFCHR, 1, 1 }, { S_IFCHR, 1, 3 }, { S_IFCHR, 1, 5 }, { S_IFCHR, 1, 7 }, { S_IFCHR, 1, 8 }, { S_IFCHR, 1, 9 },
		{ S_IFCHR, 1, 11 }, { S_IFCHR, 4, 0 }, { S_IFCHR, 4, 64 }, { S_IFCHR, 5, 0 }, { S_IFCHR, 5, 1 }, { S_IFCHR, 5, 2 },
		{ S_IFCHR, 10, 200 }, { S_IFCHR, 10, 229 }, { S_IFCHR, 10, 232 }, { S_IFCHR, 10, 237 }, { S_IFCHR, 136, 0 },
		{ S_IFBLK, 7, 0 }, { S_IFBLK, 8, 0 }, { S_IFBLK, 254, 0 },
	};
	for (size_t at = 0; at < sizeof devices / sizeof *devices; at++) {
		char key[60], name[40];
		snprintf(name, sizeof name, "%c %u:%u", devices[at].kind == S_IFBLK ? 'b' : 'c', devices[at].major, devices[at].minor);
		snprintf(key, sizeof key, "device-make %s", name);
		say(key, "%s", outcome(mknod("/dev/.probe", devices[at].kind | 0600, makedev(devices[at].major, devices[at].minor))));
		snprintf(key, sizeof key, "device-open %s", name);
		int file = open("/dev/.probe", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		say(key, "%s", outcome(file));
		if (file >= 0)
			close(file);
		unlink("/dev/.probe");
	}
}

static void see_descriptors(void)
{
	for (int fd = 0; fd < 64; fd++) {
		char key[40], path[40], link[300] = "";
		struct stat found;
		if (fstat(fd, &found) < 0)
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		if (readlink(path, link, sizeof link - 1) < 0)
			strcpy(link, "?");
		snprintf(key, sizeof key, "fd %d", fd);
		say(key, "%s %06o %d:%d", link, found.st_mode, found.st_uid, found.st_gid);
		snprintf(key, sizeof key, "fd-flags %d", fd);
		say(key, "%o %d tty=%d", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD), isatty(fd));
		snprintf(key, sizeof key, "fd-again %d", fd);
		int again = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		say(key, "%s", outcome(again));
		if (again >= 0)
			close(again);
	}
}

static void see_signals(void)
{
	sigset_t mask;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	for (int number = 1; number <= 64; number++) {
		/* The kernel's own call: libc hides 32 and 33. */
		struct { void (*handler)(int); unsigned long flags; void *restorer; unsigned long mask; } action = { 0 };
		char key[40];
		syscall(SYS_rt_sigaction, number, NULL, &action, 8);
		snprintf(key, sizeof key, "signal %02d", number);
		say(key, "%s flags=%lx%s", action.handler == SIG_IGN ? "ignored" : action.handler ? "caught" : "default",
		    action.flags, sigismember(&mask, number) == 1 ? " blocked" : "");
	}
}

static void see_session(void)
{
	char key[40];
	int terminal = open("/dev/tty", O_RDWR | O_CLOEXEC);
	say("session", "leader=%d group-leader=%d tty=%s foreground=%d", getsid(0) == getpid(), getpgrp() == getpid(),
	    outcome(terminal), terminal >= 0 && tcgetpgrp(terminal) == getpgrp());
	struct termios settings;
	if (terminal >= 0 && !tcgetattr(terminal, &settings))
		say("termios", "%x %x %x %x", settings.c_iflag, settings.c_oflag, settings.c_cflag, settings.c_lflag);
	say("pid", "first=%d parent=%d", getpid() == 1, getppid() != 0);
	for (int kind = 0; kind < RLIM_NLIMITS; kind++) {
		struct rlimit limit;
		getrlimit(kind, &limit);
		snprintf(key, sizeof key, "rlimit %02d", kind);
		say(key, "%lld %lld", (long long)limit.rlim_cur, (long long)limit.rlim_max);
	}
	mode_t mask = umask(0);
	umask(mask);
	say("umask", "%04o", mask);
}

static void see_rights(void)
{
	char description[300] = "", key[40];
	static const struct { const char *name; int option; } asked[] = {
		{ "dumpable", PR_GET_DUMPABLE }, { "securebits", PR_GET_SECUREBITS }, { "no_new_privs", PR_GET_NO_NEW_PRIVS },
		{ "keepcaps", PR_GET_KEEPCAPS }, { "timerslack", PR_GET_TIMERSLACK }, { "thp_disable", PR_GET_THP_DISABLE },
		{ "mce_kill", PR_MCE_KILL_GET }, { "seccomp", PR_GET_SECCOMP },
	};
	for (size_t at = 0; at < sizeof asked / sizeof *asked; at++) {
		snprintf(key, sizeof key, "prctl %s", asked[at].name);
		int answer = prctl(asked[at].option, 0, 0, 0, 0);
		say(key, "%d %s", answer, answer < 0 ? strerrorname_np(errno) : "");
	}
	int signal = -1, subreaper = -1;
	prctl(PR_GET_PDEATHSIG, &signal);
	prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
	say("prctl pdeathsig", "%d", signal);
	say("prctl subreaper", "%d", subreaper);
	say("prctl speculation", "%d %d", prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 0), prctl(PR_GET_SPECULATION_CTRL, 1, 0, 0, 0));
	long ring = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
	if (ring >= 0)
		syscall(SYS_keyctl, KEYCTL_DESCRIBE, ring, description, sizeof description - 1);
	say("session-keyring", "%s %s", outcome(ring), description);
	long user = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_SESSION_KEYRING, 0);
	say("own-session-keyring", "%d", ring >= 0 && ring != user);
}

static void see_scheduling(void)
{
	struct sched_param parameter = { 0 };
	cpu_set_t cpus;
	CPU_ZERO(&cpus);
	sched_getaffinity(0, sizeof cpus, &cpus);
	sched_getparam(0, &parameter);
	say("scheduling", "policy=%d priority=%d nice=%d io=%ld cpus=%d", sched_getscheduler(0), parameter.sched_priority,
	    getpriority(PRIO_PROCESS, 0), syscall(SYS_ioprio_get, 1, 0), CPU_COUNT(&cpus));
}

static void see_names(void)
{
	struct utsname names;
	char path[300];
	uname(&names);
	say("hostname", "%s", names.nodename);
	say("domainname", "%s", names.domainname);
	say("cwd", "%s", getcwd(path, sizeof path) ? path : strerrorname_np(errno));
	for (int at = 0; environ[at]; at++) {
		char key[40];
		snprintf(key, sizeof key, "env %02d", at);
		say(key, "%s", environ[at]);
	}
}

static void see_proc(void)
{
	static const char *files[] = { "cgroup", "oom_score_adj", "uid_map", "gid_map", "setgroups", "loginuid", "sessionid",
				       "timerslack_ns", "personality", "coredump_filter", "cmdline", "comm", "attr/current", "attr/exec",
				       "attr/fscreate", "attr/keycreate", "attr/sockcreate", "attr/prev", "timens_offsets", "projid_map" };
	char key[60], path[60];
	for (size_t at = 0; at < sizeof files / sizeof *files; at++) {
		snprintf(key, sizeof key, "self %s", files[at]);
		snprintf(path, sizeof path, "/proc/self/%s", files[at]);
		say_file(key, path);
	}
	say_lines("status", "/proc/self/status", ":\t");
	say_lines("limit", "/proc/self/limits", "  ");
	say_lines("mountinfo", "/proc/self/mountinfo", NULL);
}

static void see_places(void)
{
	static const char *writable[] = { "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward",
					  "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/kcore",
					  "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/1/oom_score_adj", "/sys/kernel/mm/ksm/run",
					  "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/release_agent",
					  "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/memory.max",
					  "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cgroup.subtree_control", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/passwd" };
	static const char *read[] = { "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/etc/hosts", "/etc/hostname" };
	static const char *places[] = { "/", "/tmp", "/etc", "/dev", "/dev/shm", "/dev/mqueue", "/proc/acpi", "/proc/scsi", "/sys/firmware",
					"/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/v", "/v/below", "/srv/file", "/work/dir", "/root", "/home" };
	char key[60];
	for (size_t at = 0; at < sizeof writable / sizeof *writable; at++)
		see_write(writable[at]);
	for (size_t at = 0; at < sizeof read / sizeof *read; at++) {
		snprintf(key, sizeof key, "read %s", read[at]);
		say_file(key, read[at]);
	}
	for (size_t at = 0; at < sizeof places / sizeof *places; at++)
		see_place(places[at]);
	see_devices_by_number();
	walk("/dev", 3, see_device);
	walk("/proc", 1, see_entry);
	walk("/sys", 2, see_entry);
	walk("", 1, see_entry);
	walk("/v", 2, see_entry);
	walk("/proc/sys", 8, see_sysctl);
	walk("/sys/fs/cgroup", 2, see_cgroup);
}

static void leave(int number)
{
	(void)number;
	_exit(0);
}

int main(void)
{
	static char buffer[1 << 16];
	setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
	see_descriptors();
	see_signals();
	see_session();
	see_rights();
	see_scheduling();
	see_names();
	see_proc();
	see_places();
	fflush(stdout);
	sweep();
	signal(SIGTERM, leave);
	say("END", "%d", 1);
	fflush(stdout);
	for (;;) /* not pause(), which some profiles refuse: it would come back at once, for ever */
		poll(NULL, 0, -1);
}
