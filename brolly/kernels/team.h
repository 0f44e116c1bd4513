// A team of threads that work on one function together: it spins for a moment between calls, then sleeps.

#pragma once
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

enum { MAX_THREADS = 256 };

typedef void (*Work)(void *argument, int index, int n);

static struct {
    pthread_mutex_t busy, door;
    pthread_cond_t bell;
    pthread_t threads[MAX_THREADS];
    pid_t owner;
    int n;  // with the caller
    _Atomic uint64_t round;
    atomic_int done, arrived, phase, stop;
    Work work;
    void *argument;
} team = {.busy = PTHREAD_MUTEX_INITIALIZER, .door = PTHREAD_MUTEX_INITIALIZER, .bell = PTHREAD_COND_INITIALIZER};

INLINE void rest(int turn) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
    if (turn > 2000) sched_yield();  // more threads than free cores: let the others arrive
}

// Work that is handed out: where the next `size` items begin.
INLINE int64_t take(atomic_int *next, int64_t size) { return (int64_t)atomic_fetch_add(next, 1) * size; }

static void meet(int n) {
    int phase = atomic_load(&team.phase);
    if (atomic_fetch_add(&team.arrived, 1) + 1 == n) {
        atomic_store(&team.arrived, 0);
        atomic_fetch_add(&team.phase, 1);
    } else {
        for (int turn = 0; atomic_load(&team.phase) == phase; turn++) rest(turn);
    }
}

static void *member(void *index) {
    uint64_t seen = 0;
    for (;;) {
        for (int turn = 0; turn < 5000 && atomic_load(&team.round) == seen; turn++) rest(0);
        if (atomic_load(&team.round) == seen) {
            pthread_mutex_lock(&team.door);
            while (atomic_load(&team.round) == seen) pthread_cond_wait(&team.bell, &team.door);
            pthread_mutex_unlock(&team.door);
        }
        seen++;
        if (atomic_load(&team.stop)) return NULL;
        team.work(team.argument, (int)(intptr_t)index, team.n);
        atomic_fetch_add(&team.done, 1);
    }
}

static void ring(void) {
    atomic_store(&team.done, 0);
    pthread_mutex_lock(&team.door);
    atomic_fetch_add(&team.round, 1);
    pthread_cond_broadcast(&team.bell);
    pthread_mutex_unlock(&team.door);
}

// A fork leaves the threads behind and may leave a lock held: begin anew.
static void enlist(int n) {
    if (team.owner == getpid() && team.n == n) return;
    if (team.owner == getpid() && team.n > 1) {
        atomic_store(&team.stop, 1);
        ring();
        for (int i = 1; i < team.n; i++) pthread_join(team.threads[i], NULL);
    }
    pthread_mutex_init(&team.door, NULL);
    pthread_cond_init(&team.bell, NULL);
    atomic_store(&team.round, 0);
    atomic_store(&team.stop, 0);
    atomic_store(&team.arrived, 0);
    team.owner = getpid();
    team.n = 1;
    for (int i = 1; i < n; i++, team.n++)
        if (pthread_create(&team.threads[i], NULL, member, (void *)(intptr_t)i)) break;
}

static void after_fork(void) { pthread_mutex_init(&team.busy, NULL); }

__attribute__((constructor)) static void prepare(void) { pthread_atfork(NULL, NULL, after_fork); }

static void together(Work work, void *argument, int n) {
    pthread_mutex_lock(&team.busy);
    enlist(n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n);
    team.work = work;
    team.argument = argument;
    if (team.n > 1) ring();
    work(argument, 0, team.n);
    for (int turn = 0; team.n > 1 && atomic_load(&team.done) < team.n - 1; turn++) rest(turn);
    pthread_mutex_unlock(&team.busy);
}
