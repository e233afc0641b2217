/* Loaded into a daemon of the tests before libc: moves its wall clock, and has calls on files of the database fail. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* The file that the tests write to while the daemon runs. */
struct control {
    volatile long long wall_offset; /* seconds */
    volatile int write_error, read_error; /* errno, or 0 */
};

static struct control nothing, *control = &nothing;

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("OSTLER_TEST_CONTROL");
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        control = mapped;
    close(file);
}

static int fails(int error, int file)
{
    char link[64], path[4096];
    if (!error)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    if (!strstr(path, "/ostler.db"))
        return 0;
    errno = error;
    return 1;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += control->wall_offset;
    return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec found;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into)
        *into = now.tv_sec;
    return now.tv_sec;
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    if (control->write_error == EROFS && (flags & O_ACCMODE) != O_RDONLY && strstr(path, "/ostler.db")) {
        errno = EROFS;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t pread64(int file, void *into, size_t size, off64_t at)
{
    return fails(control->read_error, file) ? -1 : syscall(SYS_pread64, file, into, size, at);
}

ssize_t pwrite64(int file, const void *from, size_t size, off64_t at)
{
    return fails(control->write_error, file) ? -1 : syscall(SYS_pwrite64, file, from, size, at);
}

int ftruncate64(int file, off64_t size)
{
    return fails(control->write_error, file) ? -1 : (int)syscall(SYS_ftruncate, file, size);
}

int fsync(int file)
{
    return fails(control->write_error, file) ? -1 : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file)
{
    return fails(control->write_error, file) ? -1 : (int)syscall(SYS_fdatasync, file);
}
