/* fsync and fdatasync of a slower disk: each waits FSYNC_MICROSECONDS before it does what it does.
 * benchmarks/disk.py compiles this and loads it into what is measured (LD_PRELOAD). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int after_the_wait(const char *name, int fd)
{
    const char *given = getenv("FSYNC_MICROSECONDS");
    long wait = given ? atol(given) : 0;
    struct timespec time = {wait / 1000000, wait % 1000000 * 1000};
    nanosleep(&time, NULL);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return after_the_wait("fsync", fd); }

int fdatasync(int fd) { return after_the_wait("fdatasync", fd); }
