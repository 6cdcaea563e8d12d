/* Durations and their percentiles: counted in buckets of a 32nd of their power of two, so within 3 %; the longest is kept as it was. */
#ifndef BENCH_TIMES_H
#define BENCH_TIMES_H

#include <stdint.h>

enum { BUCKETS = 64 * 32 };

typedef struct {
    uint32_t counts[BUCKETS];
    int64_t total, most;
} Times;

static inline void add_time(Times *times, int64_t ns) {
    if (ns < 0) ns = 0;
    int power = ns < 32 ? 0 : 59 - __builtin_clzll((uint64_t)ns);
    int bucket = power * 32 + (int)(power ? (ns >> (power - 1)) - 32 : ns);
    times->counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    times->total++;
    if (ns > times->most) times->most = ns;
}

static inline double percentile(const Times *times, double share) { /* in milliseconds */
    int64_t rank = (int64_t)(share * (double)times->total + 0.999999), seen = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++)
        if ((seen += times->counts[bucket]) >= rank && times->counts[bucket]) {
            int power = bucket / 32;
            double ns = power ? (bucket % 32 + 32.5) * (double)(1LL << (power - 1)) : bucket;
            return (ns > (double)times->most ? (double)times->most : ns) / 1e6;
        }
    return 0;
}

#endif
