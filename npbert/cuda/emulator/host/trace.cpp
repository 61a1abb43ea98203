// Writes down every access of a kernel to its arrays and to shared memory.
//
// A kernel that is compiled with -fsanitize=thread calls a function before each access, which belongs to a
// race detector that is not linked here. These are functions of the same names that keep a list instead. An
// instruction is known by the address that its call returns to.

#include "scheduler.h"

#include <cstdlib>
#include <cstring>

#include <dlfcn.h>

extern "C" {

struct TraceRange {
    std::uint64_t start, bytes;
};

struct TraceAccess {
    std::uint64_t instruction;
    std::uint64_t offset;  // in its range
    std::uint32_t range;   // SHARED + id: shared memory; else one of those given to trace_begin
    std::uint32_t block;
    std::uint32_t thread;  // in its block
    std::uint16_t bytes;
    std::uint16_t is_write;
};

void *__real_emulator_shared(int id, std::size_t bytes);
void *__real_emulator_dynamic_shared();
void __real_emulator_warp_exchange(unsigned mask, const char *what, const char *file, int line, void *mine,
                                   void (*complete)(void *const lanes[32], unsigned mask));
}

namespace {

constexpr unsigned MAX_RANGES = 64;
constexpr std::uint32_t SHARED = 32;  // the first half of the ranges are arrays, the second shared memory
constexpr std::uint32_t DYNAMIC_SHARED = MAX_RANGES - 1;

TraceRange ranges[MAX_RANGES];
std::uint64_t dynamic_shared_bytes;
TraceAccess *accesses;
std::uint64_t count, capacity;
std::uint64_t matrix_product_calls;  // by single threads
bool is_on;

void note(const void *address, std::size_t bytes, bool is_write, const void *instruction) {
    if (!is_on || emulator_thread == nullptr) return;
    std::uint64_t at = reinterpret_cast<std::uint64_t>(address);
    for (std::uint32_t range = 0; range < MAX_RANGES; ++range) {
        if (at - ranges[range].start >= ranges[range].bytes) continue;
        if (count == capacity) {
            capacity = capacity ? 2 * capacity : 1 << 16;
            accesses = static_cast<TraceAccess *>(std::realloc(accesses, capacity * sizeof(TraceAccess)));
            if (accesses == nullptr) std::abort();
        }
        EmulatorIndex block = emulator_thread->block_index, grid = emulator_grid_dim;
        accesses[count++] = {reinterpret_cast<std::uint64_t>(instruction),
                             at - ranges[range].start,
                             range,
                             block.x + grid.x * (block.y + grid.y * block.z),
                             emulator_thread->rank,
                             static_cast<std::uint16_t>(bytes),
                             is_write};
        return;
    }
}

}  // namespace

extern "C" {

// From here on, accesses to these ranges and to shared memory are written down.
void trace_begin(const TraceRange *arrays, std::uint32_t how_many, std::uint64_t shared_bytes) {
    for (TraceRange &range : ranges) range = {0, 0};
    for (std::uint32_t i = 0; i < how_many && i < SHARED; ++i) ranges[i] = arrays[i];
    dynamic_shared_bytes = shared_bytes;
    count = 0;
    matrix_product_calls = 0;
    is_on = true;
}

const TraceAccess *trace_end(std::uint64_t *how_many) {
    is_on = false;
    *how_many = count;
    return accesses;
}

// How many matrices of 16 x 16 and 16 x 8 the tensor cores multiplied.
std::uint64_t trace_matrix_products() { return matrix_product_calls / 32; }

// Where this library was loaded: instructions are addresses from there on.
std::uint64_t trace_base() {
    Dl_info info;
    return dladdr(reinterpret_cast<void *>(trace_begin), &info) ? reinterpret_cast<std::uint64_t>(info.dli_fbase) : 0;
}

void trace_free() {
    std::free(accesses);
    accesses = nullptr;
    count = capacity = 0;
}

// The linker sends the kernel's calls here (--wrap): where shared memory is.
void *__wrap_emulator_shared(int id, std::size_t bytes) {
    void *memory = __real_emulator_shared(id, bytes);
    ranges[SHARED + static_cast<std::uint32_t>(id)] = {reinterpret_cast<std::uint64_t>(memory), bytes};
    return memory;
}

void *__wrap_emulator_dynamic_shared() {
    void *memory = __real_emulator_dynamic_shared();
    ranges[DYNAMIC_SHARED] = {reinterpret_cast<std::uint64_t>(memory), dynamic_shared_bytes};
    return memory;
}

void __wrap_emulator_warp_exchange(unsigned mask, const char *what, const char *file, int line, void *mine,
                                   void (*complete)(void *const lanes[32], unsigned mask)) {
    matrix_product_calls += std::strcmp(what, "mma.m16n8k16") == 0;
    __real_emulator_warp_exchange(mask, what, file, line, mine, complete);
}

#define TRACE_SIZE(BYTES)                                                                                       \
    void __tsan_read##BYTES(void *at) { note(at, BYTES, false, __builtin_return_address(0)); }                  \
    void __tsan_write##BYTES(void *at) { note(at, BYTES, true, __builtin_return_address(0)); }                  \
    void __tsan_unaligned_read##BYTES(void *at) { note(at, BYTES, false, __builtin_return_address(0)); }        \
    void __tsan_unaligned_write##BYTES(void *at) { note(at, BYTES, true, __builtin_return_address(0)); }        \
    void __tsan_volatile_read##BYTES(void *at) { note(at, BYTES, false, __builtin_return_address(0)); }         \
    void __tsan_volatile_write##BYTES(void *at) { note(at, BYTES, true, __builtin_return_address(0)); }
TRACE_SIZE(1)
TRACE_SIZE(2)
TRACE_SIZE(4)
TRACE_SIZE(8)
TRACE_SIZE(16)
#undef TRACE_SIZE
void __tsan_read_range(void *at, std::size_t bytes) { note(at, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(void *at, std::size_t bytes) { note(at, bytes, true, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
}
