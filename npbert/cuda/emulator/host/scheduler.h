// What the emulated CUDA keywords (emulator.h) ask of the scheduler (scheduler.cpp).
//
// Every CUDA thread of a block is a fiber: a stack of its own, switched to and from on one CPU thread. A
// fiber runs until it waits for others (at a barrier, at a warp function) or leaves the kernel.
#pragma once

#include <cstddef>
#include <cstdint>

struct EmulatorIndex {
    unsigned x, y, z;
};

// What a running CUDA thread sees of itself.
struct EmulatorThread {
    EmulatorIndex thread_index;
    EmulatorIndex block_index;
    unsigned rank;  // of the thread in its block
    unsigned lane;  // rank mod 32
};

extern "C" {

extern EmulatorThread *emulator_thread;  // the one that runs now
extern EmulatorIndex emulator_block_dim;
extern EmulatorIndex emulator_grid_dim;
extern int emulator_perturb;  // whether math functions err by up to 2 ULP

// A kernel of the text, by name: the list grows while the program is loaded.
struct EmulatorEntry {
    EmulatorEntry(const char *name, void (*call)(void **));
    const char *name;
    void (*call)(void **);  // with pointers to the kernel's arguments
    EmulatorEntry *next;
};
extern EmulatorEntry *emulator_entries;

// __syncthreads: returns once every thread of the block has called it, on the same line. `vote` is combined
// over the block: the low bit of the result is "all", the next is "any", the rest the count.
int emulator_barrier(const char *file, int line, int vote);

// Warp functions meet here: returns once every lane of `mask` has called it with the same `what` and line.
// `mine` points to this lane's operands, usually on its stack; the last lane to arrive runs `complete` once.
void emulator_warp_exchange(
    unsigned mask, const char *what, const char *file, int line, void *mine,
    void (*complete)(void *const lanes[32], unsigned mask));

// The block's shared memory: the same address for the same `id` in every thread of a block. Each allocation
// has exactly `bytes`, aligned to 16, and is full of NaN (all bits set) when a block starts.
void *emulator_shared(int id, std::size_t bytes);
int emulator_new_shared_id();
void *emulator_dynamic_shared();

// 4,096 bytes of the current thread's own, zero when the block starts.
void *emulator_thread_storage();

// __trap() and failed assertions.
[[noreturn]] void emulator_stop(const char *file, int line, const char *what);

int emulator_print(const char *format, ...);

// What completes a shuffle or a ballot: each lane is a ShuffleLane.
void emulator_complete_shuffle(void *const lanes[32], unsigned mask);
void emulator_complete_ballot(void *const lanes[32], unsigned mask);
void emulator_complete_nothing(void *const lanes[32], unsigned mask);

enum {
    EMULATOR_OK = 0,
    EMULATOR_DIVERGENCE = 1,
    EMULATOR_STOPPED = 2,
    EMULATOR_NO_MEMORY = 3,
    EMULATOR_OUT_OF_BOUNDS = 4,
    EMULATOR_INTERRUPTED = 5,
};

enum { SCHEDULE_ASCENDING = 0, SCHEDULE_DESCENDING = 1, SCHEDULE_RANDOM = 2 };

struct EmulatorLaunch {
    void (*entry)(void **);   // calls the kernel
    void **arguments;         // pointers to the kernel's arguments
    unsigned grid[3];
    unsigned block[3];
    std::uint64_t dynamic_shared_bytes;
    std::uint32_t schedule;
    std::uint32_t seed;       // of the random schedule
    std::uint32_t perturb;
    std::uint32_t flush_denormals;
    std::uint32_t take_signals;  // make an error of a wild pointer, which would end the process
    char *message;            // where an error is described
    std::uint64_t message_size;
};

int emulator_run(const EmulatorLaunch *launch);
}

struct ShuffleLane {
    unsigned char in[16];
    unsigned char out[16];
    unsigned source;   // the lane to read from
    unsigned is_set;   // what the lane votes in a ballot
    unsigned ballot;   // the votes of all lanes
};
