/* Stands between a process and libc's file calls (LD_PRELOAD), for paths below ORLOP_FILES_ROOT.
 *
 * Recording: every call that changes something is appended, with its bytes, to the file ORLOP_FILES_LOG, in the order
 * in which the calls took effect; `files_mark` adds a line of the caller's own between them.
 * Faults: `files_arm` makes the n-th call from now fail, once or from then on.
 *
 * One lock is held over each call and its entry, so that the order of entries is the order of effects; an fsync
 * therefore covers exactly the entries before it. LevelDB (in plyvel's wheel) and the interpreter both come through
 * here. Reads of mapped memory and the stdio of LevelDB's information log do not; neither matters.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE, SYNC, RENAME, UNLINK, MKDIR, TRUNCATE, ALLOCATE, CLOSE, MARK, READ, CHANGE };

#define MOST_FDS 4096
#define LOG_FD 4000

struct entry {
    uint8_t kind;
    uint8_t flag; /* of OPEN: 1 create, 2 truncate */
    int32_t fd;
    int64_t offset; /* of WRITE; the size of TRUNCATE and ALLOCATE */
    uint32_t first, second; /* lengths of what follows: path or bytes, second path */
} __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[4096];
static size_t root_len;
static int log_fd = -1;
static uint8_t ours[MOST_FDS];

static long countdown = -1; /* calls that still succeed; -1: no fault is armed */
static int fault_errno, fault_forever, fault_kinds;
static long seen, fired;

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("ORLOP_FILES_ROOT"), *log = getenv("ORLOP_FILES_LOG");
    if (!folder) return;
    strncpy(root, folder, sizeof root - 1);
    root_len = strlen(root);
    if (log) {
        int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        log_fd = syscall(SYS_dup3, fd, LOG_FD, O_CLOEXEC);
        syscall(SYS_close, fd);
    }
}

static int below(const char *path) {
    return root_len && path && !strncmp(path, root, root_len) && (path[root_len] == '/' || !path[root_len]);
}

static int is_ours(int fd) { return fd >= 0 && fd < MOST_FDS && ours[fd]; }

static void put(int kind, int flag, int fd, int64_t offset, const void *first, size_t n, const char *second) {
    if (log_fd < 0) return;
    struct entry head = {kind, flag, fd, offset, n, second ? strlen(second) : 0};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)first, n}, {(void *)second, head.second}};
    if (syscall(SYS_writev, log_fd, parts, 3) != (long)(sizeof head + n + head.second)) abort();
}

/* Whether this call has to fail; errno is set then. Called with the lock held. */
static int fails(int kind) {
    if (!(fault_kinds & (1 << kind))) return 0;
    seen++;
    if (countdown < 0 || countdown-- > 0) return 0;
    countdown = fault_forever ? 0 : -1;
    fired++;
    errno = fault_errno;
    return 1;
}

void files_arm(long after, int error, int forever, int kinds) {
    pthread_mutex_lock(&lock);
    countdown = after; fault_errno = error; fault_forever = forever; fault_kinds = kinds; seen = fired = 0;
    pthread_mutex_unlock(&lock);
}

/* How many calls failed since `files_arm`; from now on none does. */
long files_disarm(void) {
    pthread_mutex_lock(&lock);
    countdown = -1; fault_kinds = 0;
    long n = fired;
    pthread_mutex_unlock(&lock);
    return n;
}

void files_mark(const char *text) {
    pthread_mutex_lock(&lock);
    put(MARK, 0, -1, 0, text, strlen(text), NULL);
    pthread_mutex_unlock(&lock);
}

#define REAL(name) (__typeof__(&name))dlsym(RTLD_NEXT, #name)
/* `call` gives -1 and errno on failure; `entry` writes it down. Closing over both keeps each wrapper to one line. */
#define GUARDED(mine, kind, call, entry)                     \
    if (!(mine)) return call;                                \
    pthread_mutex_lock(&lock);                               \
    __typeof__(call) result = -1;                            \
    if (!fails(kind)) { result = call; if (result >= 0) { int kept = errno; entry; errno = kept; } } \
    pthread_mutex_unlock(&lock);                             \
    return result;

static int opened(const char *path, int flags, int mode) {
    int result = -1;
    pthread_mutex_lock(&lock);
    if (!fails(OPEN)) {
        result = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
        if (result >= MOST_FDS) abort();
        if (result >= 0) {
            ours[result] = 1;
            int flag = (flags & O_CREAT ? 1 : 0) | (flags & O_TRUNC ? 2 : 0);
            put(OPEN, flag, result, 0, path, strlen(path), NULL);
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

#define OPENS(name)                                                      \
    int name(const char *path, int flags, ...) {                         \
        va_list rest; va_start(rest, flags);                             \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest);                                                    \
        if (below(path)) return opened(path, flags, mode);               \
        return syscall(SYS_openat, AT_FDCWD, path, flags, mode);         \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                   \
    int name(int dir, const char *path, int flags, ...) {                \
        va_list rest; va_start(rest, flags);                             \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest);                                                    \
        if (below(path)) return opened(path, flags, mode);               \
        return syscall(SYS_openat, dir, path, flags, mode);              \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

int close(int fd) {
    if (!is_ours(fd)) return syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    ours[fd] = 0;
    put(CLOSE, 0, fd, 0, NULL, 0, NULL);
    int result = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int fd, const void *data, size_t n) {
    GUARDED(is_ours(fd), WRITE, syscall(SYS_write, fd, data, n),
            put(WRITE, 0, fd, syscall(SYS_lseek, fd, 0, SEEK_CUR) - result, data, result, NULL))
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    GUARDED(is_ours(fd), WRITE, syscall(SYS_pwrite64, fd, data, n, at), put(WRITE, 0, fd, at, data, result, NULL))
}

ssize_t read(int fd, void *data, size_t n) {
    GUARDED(is_ours(fd), READ, syscall(SYS_read, fd, data, n), (void)0)
}

ssize_t pread64(int fd, void *data, size_t n, off64_t at) {
    GUARDED(is_ours(fd), READ, syscall(SYS_pread64, fd, data, n, at), (void)0)
}

ssize_t pread(int fd, void *data, size_t n, off_t at) { return pread64(fd, data, n, at); }

int fsync(int fd) {
    GUARDED(is_ours(fd), SYNC, syscall(SYS_fsync, fd), put(SYNC, 0, fd, 0, NULL, 0, NULL))
}

int fdatasync(int fd) {
    GUARDED(is_ours(fd), SYNC, syscall(SYS_fdatasync, fd), put(SYNC, 0, fd, 0, NULL, 0, NULL))
}

int ftruncate64(int fd, off64_t size) {
    GUARDED(is_ours(fd), TRUNCATE, syscall(SYS_ftruncate, fd, size), put(TRUNCATE, 0, fd, size, NULL, 0, NULL))
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int posix_fallocate64(int fd, off64_t at, off64_t size) {
    int error = 0;
    pthread_mutex_lock(&lock);
    if (is_ours(fd) && fails(ALLOCATE)) error = errno;
    else if (syscall(SYS_fallocate, fd, 0, at, size)) error = errno;
    else if (is_ours(fd)) put(ALLOCATE, 0, fd, at + size, NULL, 0, NULL);
    pthread_mutex_unlock(&lock);
    return error;
}

int posix_fallocate(int fd, off_t at, off_t size) { return posix_fallocate64(fd, at, size); }

int rename(const char *from, const char *to) {
    GUARDED(below(from), RENAME, syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0),
            put(RENAME, 0, -1, 0, from, strlen(from), to))
}

int unlink(const char *path) {
    GUARDED(below(path), UNLINK, syscall(SYS_unlinkat, AT_FDCWD, path, 0),
            put(UNLINK, 0, -1, 0, path, strlen(path), NULL))
}

int mkdir(const char *path, mode_t mode) {
    GUARDED(below(path), MKDIR, syscall(SYS_mkdirat, AT_FDCWD, path, mode),
            put(MKDIR, 0, -1, 0, path, strlen(path), NULL))
}

int chmod(const char *path, mode_t mode) {
    GUARDED(below(path), CHANGE, syscall(SYS_fchmodat, AT_FDCWD, path, mode), (void)0)
}

int utimensat(int dir, const char *path, const struct timespec times[2], int flags) {
    GUARDED(below(path), CHANGE, syscall(SYS_utimensat, dir, path, times, flags), (void)0)
}
