/* The physical limit of starting a container: the kernel work alone.
 *
 * Does for one bundle what an OCI runtime must ask of the kernel for runc's
 * default spec (pid/net/ipc/uts/mnt[/cgroup] namespaces, the seven default
 * mounts, the default devices, pivot_root, masked and read-only paths, caps,
 * no_new_privs, one cgroup per hierarchy) as straight-line syscalls: no JSON,
 * no state, no errors explained. What a runtime takes more than this is its own.
 *
 * usage: floor [-m BYTES] ROOTFS ID COMMAND [ARG...]      exit status: the command's
 *
 * -m: a limit of memory, which stands before the process is there (v2) or goes on (v1).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* The hierarchies of cgroup v1 that this host has; find_v1 fills nv1. */
static const char *v1[] = {"cpu","cpuacct","cpuset","memory","devices","freezer","blkio","pids","systemd"};
static unsigned nv1;

static void find_v1(void) {
	for (unsigned i = 0; i < sizeof v1 / sizeof *v1; i++) {
		char p[64];
		snprintf(p, sizeof p, "/sys/fs/cgroup/%s", v1[i]);
		if (access(p, F_OK) == 0) v1[nv1++] = v1[i];
	}
}

static void put(const char *path, const char *s) {
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, s, strlen(s)) < 0) err(1, "%s", path);
	close(fd);
}
static void m(const char *src, const char *dst, const char *type, unsigned long fl, const char *data) {
	if (mount(src, dst, type, fl, data)) err(1, "mount %s", dst);
}
static void mask(const char *p) {
	struct stat st;
	if (stat(p, &st)) return;
	if (S_ISDIR(st.st_mode)) m("tmpfs", p, "tmpfs", MS_RDONLY, "");
	else m("/dev/null", p, NULL, MS_BIND, NULL);
}
static void ro(const char *p) {
	if (mount(p, p, NULL, MS_BIND | MS_REC, NULL)) { if (errno == ENOENT) return; err(1, "%s", p); }
	m(NULL, p, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static int child(const char *root, int unified, const char *id, char **argv) {
	char p[4096];
	m(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL);
	m(root, root, NULL, MS_BIND | MS_REC, NULL);
	if (chdir(root)) err(1, "chdir");
	m("proc", "proc", "proc", 0, NULL);
	m("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	mkdir("dev/pts", 0755); mkdir("dev/shm", 0755); mkdir("dev/mqueue", 0755);
	m("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	m("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k");
	m("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	m("sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL);
	if (unified) {
		m("cgroup", "sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME | MS_RDONLY, NULL);
	} else {
		m("tmpfs", "sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=755");
		for (unsigned i = 0; i < nv1; i++) {
			char src[4096];
			snprintf(p, sizeof p, "sys/fs/cgroup/%s", v1[i]);
			snprintf(src, sizeof src, "/sys/fs/cgroup/%s/%s", v1[i], id);
			mkdir(p, 0755);
			m(src, p, NULL, MS_BIND | MS_REC, NULL);
			m(NULL, p, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
		}
		m(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	}
	static const struct { const char *n; int ma, mi; } dev[] = {
		{"dev/null",1,3},{"dev/zero",1,5},{"dev/full",1,7},{"dev/random",1,8},{"dev/urandom",1,9},{"dev/tty",5,0}};
	umask(0);
	for (unsigned i = 0; i < 6; i++)
		if (mknod(dev[i].n, S_IFCHR | 0666, makedev(dev[i].ma, dev[i].mi))) err(1, "%s", dev[i].n);
	umask(022);
	if (symlink("/proc/self/fd","dev/fd") || symlink("/proc/self/fd/0","dev/stdin") || symlink("/proc/self/fd/1","dev/stdout") ||
	    symlink("/proc/self/fd/2","dev/stderr") || symlink("pts/ptmx","dev/ptmx")) err(1, "symlink");
	if (syscall(SYS_pivot_root, ".", ".")) err(1, "pivot_root");
	if (umount2(".", MNT_DETACH) || chdir("/")) err(1, "umount old root");
	m(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
	sethostname("floor", 5);
	ro("/proc/bus"); ro("/proc/fs"); ro("/proc/irq"); ro("/proc/sys"); ro("/proc/sysrq-trigger");
	mask("/proc/acpi"); mask("/proc/asound"); mask("/proc/kcore"); mask("/proc/keys"); mask("/proc/latency_stats");
	mask("/proc/timer_list"); mask("/proc/timer_stats"); mask("/proc/sched_debug"); mask("/sys/firmware"); mask("/proc/scsi");
	for (int c = 0; c < 41; c++) if (c != 5 && c != 10 && c != 29) prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	uint32_t caps = 1u << 5 | 1u << 10 | 1u << 29;
	struct __user_cap_data_struct d[2] = {{caps, caps, 0}, {0, 0, 0}};
	if (syscall(SYS_capset, &h, d)) err(1, "capset");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL};
	execve(argv[0], argv, env);
	err(1, "%s", argv[0]);
}

int main(int argc, char **argv) {
	const char *limit = NULL;
	if (argc > 2 && !strcmp(argv[1], "-m")) {
		limit = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc < 4) errx(2, "usage: floor [-m BYTES] ROOTFS ID COMMAND [ARG...]");
	struct statfs sf;
	int unified = !statfs("/sys/fs/cgroup", &sf) && sf.f_type == 0x63677270, cg = -1, go[2];
	char p[4096], n[32];
	if (!unified) find_v1();
	struct clone_args a = {.flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID, .exit_signal = SIGCHLD};
	if (unified) {
		snprintf(p, sizeof p, "/sys/fs/cgroup/%s", argv[2]);
		if (mkdir(p, 0755)) err(1, "%s", p);
		if (limit) {
			char q[4200];
			put("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
			snprintf(q, sizeof q, "%s/memory.max", p);
			put(q, limit);
		}
		cg = open(p, O_PATH | O_CLOEXEC);
		a.flags |= CLONE_INTO_CGROUP | CLONE_NEWCGROUP;
		a.cgroup = cg;
	} else for (unsigned i = 0; i < nv1; i++) {
		snprintf(p, sizeof p, "/sys/fs/cgroup/%s/%s", v1[i], argv[2]);
		if (mkdir(p, 0755)) err(1, "%s", p);
		if (limit && !strcmp(v1[i], "memory")) {
			char q[4200];
			snprintf(q, sizeof q, "%s/memory.limit_in_bytes", p);
			put(q, limit);
		}
		if (!strcmp(v1[i], "cpuset")) { /* an empty cpuset takes no process */
			char b[64]; int fd;
			const char *f[] = {"cpuset.cpus", "cpuset.mems"};
			for (int k = 0; k < 2; k++) {
				char q[4200]; ssize_t r;
				snprintf(q, sizeof q, "/sys/fs/cgroup/cpuset/%s", f[k]);
				fd = open(q, O_RDONLY | O_CLOEXEC); r = read(fd, b, sizeof b - 1); close(fd); b[r > 0 ? r : 0] = 0;
				snprintf(q, sizeof q, "%s/%s", p, f[k]); put(q, b);
			}
		}
	}
	if (pipe2(go, O_CLOEXEC)) err(1, "pipe");
	pid_t pid = syscall(SYS_clone3, &a, sizeof a);
	if (pid < 0) err(1, "clone3");
	if (pid == 0) {
		char c; close(go[1]);
		if (!unified && read(go[0], &c, 1) != 1) _exit(1);
		_exit(child(argv[1], unified, argv[2], argv + 3));
	}
	if (!unified) {
		snprintf(n, sizeof n, "%d", pid);
		for (unsigned i = 0; i < nv1; i++) { snprintf(p, sizeof p, "/sys/fs/cgroup/%s/%s/cgroup.procs", v1[i], argv[2]); put(p, n); }
		if (write(go[1], "x", 1) != 1) err(1, "go");
	}
	int st;
	if (waitpid(pid, &st, 0) < 0) err(1, "wait");
	if (unified) { snprintf(p, sizeof p, "/sys/fs/cgroup/%s", argv[2]); rmdir(p); }
	else for (unsigned i = 0; i < nv1; i++) { snprintf(p, sizeof p, "/sys/fs/cgroup/%s/%s", v1[i], argv[2]); rmdir(p); }
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}
