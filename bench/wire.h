/* What upstream.c and client.c agree on: the clock, and how an event carries its number and its time.
 *
 * The text of every event holds  ~NNNNNNN@TTTTTTTTTTTTTTTTT~  : its number from 0 and when it was sent (CLOCK_MONOTONIC, ns), both as decimal
 * digits; the last event of an answer closes with ! instead of the second ~. A proxy may re-encode the JSON around it: none of these
 * characters is ever escaped. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { NUMBER_DIGITS = 8, TIME_DIGITS = 18, MOST_FDS = 65536, TURN = 512 };

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void put_digits(char *at, uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--, value /= 10) at[i] = (char)('0' + value % 10);
}

static inline void must(int good, const char *what) {
    if (good) return;
    perror(what);
    exit(2);
}

static inline void raise_fd_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < MOST_FDS ? limit.rlim_max : MOST_FDS;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static inline void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* The number behind NAME= in a text, or the default. */
static inline int64_t value_of(const char *text, const char *name, int64_t otherwise) {
    const char *at = strstr(text, name);
    return at ? strtoll(at + strlen(name), NULL, 10) : otherwise;
}

/* Read whole lines from a non-blocking stdin; the driver speaks one word a line. Returns 0 when it has gone. */
static inline int commands(void (*obey)(const char *word)) {
    static char line[256];
    static size_t used;
    ssize_t got = read(0, line + used, sizeof line - 1 - used);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return 0;
    used += (size_t)got;
    line[used] = 0;
    for (char *end; (end = strchr(line, '\n'));) {
        *end = 0;
        obey(line);
        used -= (size_t)(end + 1 - line);
        memmove(line, end + 1, used + 1);
    }
    return 1;
}

#endif
