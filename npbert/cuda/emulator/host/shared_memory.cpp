#include "shared_memory.h"

#include "race_detector.h"

#include <cstdint>
#include <cstdlib>
#include <sys/mman.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

struct SharedArray {
    unsigned char *memory;
    std::size_t bytes;
};

constexpr unsigned char POISON = 0xff;
constexpr std::size_t ALIGNMENT = 16;
constexpr std::size_t ARENA_BYTES = std::size_t(1) << 26;

SharedArray static_arrays[MAX_SHARED_ARRAYS];
SharedArray dynamic_array;
std::size_t static_bytes;

// Stores that no library is called for: that would be taken for an access of the thread that runs.
void poison(SharedArray &array) {
    volatile unsigned char *bytes = array.memory;
    volatile std::uint64_t *words = reinterpret_cast<volatile std::uint64_t *>(array.memory);
    constexpr std::size_t WORD = sizeof(std::uint64_t);
    constexpr std::uint64_t POISONED_WORD = 0x0101010101010101ull * POISON;
    for (std::size_t i = 0; i < array.bytes / WORD; ++i) words[i] = POISONED_WORD;
    for (std::size_t i = array.bytes / WORD * WORD; i < array.bytes; ++i) bytes[i] = POISON;
}

// New memory from the system itself: a race detector takes the library's mmap and malloc for a write to all of
// it by the calling thread.
unsigned char *pages(std::size_t bytes) {
#if defined(__linux__)
    long memory = syscall(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
    return memory == -1 ? nullptr : reinterpret_cast<unsigned char *>(memory);
#else
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<unsigned char *>(memory);
#endif
}

// For a race detector each block has its own memory, never used twice: else two blocks would seem to race.
unsigned char *from_arena(std::size_t bytes) {
    static unsigned char *arena = nullptr;
    static std::size_t left = 0;
    constexpr std::size_t LINE = 64;
    bytes = (bytes + LINE - 1) / LINE * LINE;
    if (bytes > left) {
        left = bytes > ARENA_BYTES ? bytes : ARENA_BYTES;
        arena = pages(left);
        if (arena == nullptr) {
            left = 0;
            return nullptr;
        }
    }
    unsigned char *found = arena;
    arena += bytes;
    left -= bytes;
    return found;
}

unsigned char *allocate(std::size_t bytes) {
    if (is_race_detector()) return from_arena(bytes);
    void *memory = nullptr;
    return posix_memalign(&memory, ALIGNMENT, bytes) == 0 ? static_cast<unsigned char *>(memory) : nullptr;
}

void *memory_of(SharedArray &array, std::size_t bytes) {
    if (array.memory == nullptr) {
        array.memory = allocate(bytes);
        array.bytes = array.memory == nullptr ? 0 : bytes;
        poison(array);
    }
    return array.memory;
}

void begin_block(SharedArray &array) {
    if (array.memory == nullptr) return;
    if (is_race_detector())
        array = {nullptr, 0};  // other memory on first use
    else
        poison(array);
}

void release(SharedArray &array) {
    if (!is_race_detector()) std::free(array.memory);
    array = {nullptr, 0};
}

}  // namespace

void *static_shared_memory(int id, std::size_t bytes) {
    if (id >= MAX_SHARED_ARRAYS) return nullptr;
    SharedArray &array = static_arrays[id];
    if (array.memory == nullptr) static_bytes += bytes;
    return static_bytes <= MAX_STATIC_SHARED_BYTES ? memory_of(array, bytes) : nullptr;
}

void *dynamic_shared_memory(std::size_t bytes) { return memory_of(dynamic_array, bytes); }

void poison_shared_memory() {
    for (SharedArray &array : static_arrays) begin_block(array);
    begin_block(dynamic_array);
    if (is_race_detector()) static_bytes = 0;
}

void release_shared_memory() {
    for (SharedArray &array : static_arrays) release(array);
    release(dynamic_array);
    static_bytes = 0;
}
