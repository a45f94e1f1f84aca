/*
 * table - the runs and the parked descriptors: all that PID 1 knows.
 *
 * Owns: the run table, the slots shared with keepers (one memfd), the parked descriptors. All memory is mapped once, at boot, and not
 * inherited by forks (keepers would keep private old copies of pages that PID 1 goes on writing).
 * Calls: nothing of vigil.
 * On failure: table_make tells boot; afterwards a full table is an answer (NULL, ENOSPC), never an end.
 */
#include "table.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct run *runs;
static struct parked *parked;
static char *slots;
static uint32_t runs_size, runs_end, parked_top;

static void *map(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    (void)madvise(memory, size, MADV_DONTFORK);
    return memory;
}

bool table_make(uint32_t wanted) {
    runs_size = wanted > TABLE_RUNS ? TABLE_RUNS : wanted;
    runs_end = parked_top = 0;
    runs = map(TABLE_RUNS * sizeof *runs);
    parked = map(TABLE_PARKED * sizeof *parked);
    if (!runs || !parked) return false;
    int fd = memfd_create("vigil-slots", MFD_CLOEXEC);
    if (fd < 0) return false;
    bool done = ftruncate(fd, TABLE_RUNS * SLOT_SIZE) == 0;
    if (done) {
        slots = mmap(NULL, TABLE_RUNS * SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        done = slots != MAP_FAILED;
    }
    (void)close(fd);      /* the mapping stays; keepers inherit it */
    return done;
}

struct run *table_take(void) {
    uint32_t i = 0;
    while (i < runs_end && (runs[i].state != 0 || runs[i].keeper != 0)) i++;
    if (i == runs_end) {
        if (runs_end == runs_size) return NULL;
        runs_end++;
    }
    struct run *run = &runs[i];
    uint32_t generation = run->generation + 1;
    memset(run, 0, sizeof *run);
    run->generation = generation ? generation : 1;
    run->deadline = run->timer = run->look = VG_FOREVER;
    struct slot *slot = table_shared(run);
    memset(slot, 0, sizeof *slot);
    slot->version = SLOT_VERSION;
    slot->generation = run->generation;
    return run;
}

struct run *table_find(struct vg_run id) {
    if (id.slot >= runs_end) return NULL;
    struct run *run = &runs[id.slot];
    return run->state != 0 && run->generation == id.generation ? run : NULL;
}

struct run *table_with(uint64_t token) {
    for (uint32_t i = 0; i < runs_end; i++)
        if (runs[i].state != 0 && runs[i].token == token) return &runs[i];
    return NULL;
}

struct run *table_at(uint32_t slot) { return &runs[slot]; }
uint32_t table_end(void) { return runs_end; }
uint32_t table_runs(void) { return runs_size; }
uint32_t table_slot(const struct run *run) { return (uint32_t)(run - runs); }
struct vg_run table_id(const struct run *run) { return (struct vg_run){table_slot(run), run->generation}; }
struct slot *table_shared(const struct run *run) { return (struct slot *)(void *)(slots + (size_t)table_slot(run) * SLOT_SIZE); }

/* The entry is free for a new run once its keeper is reaped too (a run that was left over has one for longer). */
void table_free(struct run *run) {
    run->state = 0;
    run->owed = 0;
    run->deadline = run->timer = run->look = VG_FOREVER;
}

static uint32_t parked_index(const char *name) {
    for (uint32_t i = 0; i < parked_top; i++)
        if (parked[i].fd >= 0 && strcmp(parked[i].name, name) == 0) return i;
    return TABLE_NONE;
}

int parked_put(const char *name, int fd) {
    size_t length = strlen(name);
    if (length == 0 || length > VG_PARK_MAX) return EINVAL;
    uint32_t i = parked_index(name);
    if (i != TABLE_NONE) {
        (void)close(parked[i].fd);
        parked[i].fd = fd;
        return 0;
    }
    for (i = 0; i < parked_top && parked[i].fd >= 0; i++) {}
    if (i == parked_top) {
        if (parked_top == TABLE_PARKED) return ENOSPC;
        parked_top++;
    }
    parked[i].fd = fd;
    memcpy(parked[i].name, name, length + 1);
    return 0;
}

int parked_drop(const char *name) {
    uint32_t i = parked_index(name);
    if (i == TABLE_NONE) return ENOENT;
    (void)close(parked[i].fd);
    parked[i].fd = -1;
    return 0;
}

int parked_fd(const char *name) {
    uint32_t i = parked_index(name);
    return i == TABLE_NONE ? -1 : parked[i].fd;
}

struct parked *parked_at(uint32_t index) { return &parked[index]; }
uint32_t parked_end(void) { return parked_top; }
