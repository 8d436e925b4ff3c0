// Makes the tensor code's threads wait politely for each other.
//
// The threads of a step meet at hundreds of barriers, and llama.cpp waits there by spinning for as long as it
// takes. On a machine with other work the thread that is waited for may have lost its processor, and every turn
// of the loop then takes time away from the thread it waits for: two threads on two busy cores were seen to be
// ten times slower than one. A thread that waits longer than meetings of running threads take sleeps instead,
// each time for a small part of what it has waited so far, so that the loss is small where the wait was honest.
//
// The only spinning loops of ggml-cpu.c pause with _mm_pause(), which this header replaces. It is forced into
// the C files of the CPU code by cpu.cmake. On other processors than x86-64 waiting stays as it is.
#ifndef HONSHU_POLITE_WAIT_H
#define HONSHU_POLITE_WAIT_H

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include <immintrin.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>

// Turns of one wait follow each other within some hundred ticks of the time-stamp counter; a longer gap means
// that the thread has worked, or was off its processor, and that a new wait begins.
#define HONSHU_WAIT_GAP_TICKS 4000u
// Meetings of threads that all run take microseconds; this is about 100 of them.
#define HONSHU_WAIT_SPIN_TICKS 250000u
// A sleep takes this part of the wait so far, within the bounds below. One tick is taken for 0.4 ns.
#define HONSHU_WAIT_SLEEP_PART 8u
#define HONSHU_WAIT_SLEEP_MAX_NS 500000u

static _Thread_local uint64_t honshu_wait_began;
static _Thread_local uint64_t honshu_wait_seen;
static _Thread_local int honshu_wait_exact;

static inline void honshu_wait_turn(void) {
    const uint64_t now = __rdtsc();
    if (now - honshu_wait_seen > HONSHU_WAIT_GAP_TICKS) {
        honshu_wait_began = now;
    }
    const uint64_t waited = now - honshu_wait_began;
    if (waited < HONSHU_WAIT_SPIN_TICKS) {
        __builtin_ia32_pause();
        honshu_wait_seen = now;
        return;
    }
    if (!honshu_wait_exact) {
        // The kernel rounds the sleeps of ordinary threads up by 50 us.
        honshu_wait_exact = 1;
        prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
    }
    uint64_t ns = waited * 2u / 5u / HONSHU_WAIT_SLEEP_PART;
    if (ns > HONSHU_WAIT_SLEEP_MAX_NS) {
        ns = HONSHU_WAIT_SLEEP_MAX_NS;
    }
    const struct timespec pause = { 0, (long) ns };
    nanosleep(&pause, 0);
    // The sleep belongs to the wait.
    honshu_wait_seen = __rdtsc();
}

#define _mm_pause() honshu_wait_turn()

#endif

#endif
