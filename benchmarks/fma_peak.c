/* Measures the peak of float32 multiply-adds of this core, and prints it as 10^9 floating-point operations per second.

   cc -O3 -march=native fma_peak.c -o fma_peak && ./fma_peak [core [seconds]]

   Twelve independent chains of vector multiply-adds hide their latency (4 cycles on two units would need eight); the
   vectors are as wide as the processor's registers. Both constants come from volatile memory, so that the compiler
   cannot compute anything in advance. With a core's number the process stays on that core, if the system allows it. */

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#ifdef __linux__
#include <sched.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define CHAINS 12
#define ROUNDS 100000L

typedef float vector __attribute__((vector_size(4 * WIDTH)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static vector fill(float value) {
    vector v;
    for (int i = 0; i < WIDTH; i++) v[i] = value;
    return v;
}

/* Seconds that ROUNDS multiply-adds of every chain take. */
static double time_rounds(float factor, float addend, float *sink) {
    const vector a = fill(factor), b = fill(addend);
    vector x0 = fill(0), x1 = fill(1), x2 = fill(2), x3 = fill(3), x4 = fill(4), x5 = fill(5);
    vector x6 = fill(6), x7 = fill(7), x8 = fill(8), x9 = fill(9), x10 = fill(10), x11 = fill(11);
    const double start = now();
    for (long i = 0; i < ROUNDS; i++) {
        x0 = x0 * a + b, x1 = x1 * a + b, x2 = x2 * a + b, x3 = x3 * a + b;
        x4 = x4 * a + b, x5 = x5 * a + b, x6 = x6 * a + b, x7 = x7 * a + b;
        x8 = x8 * a + b, x9 = x9 * a + b, x10 = x10 * a + b, x11 = x11 * a + b;
    }
    const double seconds = now() - start;
    const vector sum = x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9 + x10 + x11;
    for (int i = 0; i < WIDTH; i++) *sink += sum[i];
    return seconds;
}

int main(int count, char **words) {
    volatile float factor = 0.999f, addend = 0.001f;
    const double limit = count > 2 ? atof(words[2]) : 0.25;
    float sink = 0;
    double best = 1e30;
#ifdef __linux__
    if (count > 1) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(atoi(words[1]), &set);
        sched_setaffinity(0, sizeof set, &set);
    }
#endif
    for (const double start = now(); now() - start < limit;) {
        const double seconds = time_rounds(factor, addend, &sink);
        if (seconds < best) best = seconds;
    }
    printf("%.1f\n", 2.0 * WIDTH * CHAINS * ROUNDS / best * 1e-9);
    return sink == 12345.0f; /* the sum must be computed */
}
