// A launch as a program of its own: sanitizers must be there from a process's start, and end it on a mistake.
//
//     PROGRAM FILE KERNEL      reads the launch and its arrays from FILE, writes the arrays back to FILE
//
// FILE: a Header, then the Regions, then the Arguments, then the regions' bytes, each from a multiple of 16
// bytes on. A region is memory that one or several arguments lie in: arrays may overlap. Exit code: 0; or 100 and
// the code of emulator_run, with its message on the standard error; or the sanitizer's.

#include "scheduler.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct Header {
    std::uint32_t grid[3];
    std::uint32_t block[3];
    std::uint64_t dynamic_shared_bytes;
    std::uint32_t schedule, seed, perturb, flush_denormals, regions, arguments;
    std::uint32_t unused[2];  // up to a multiple of 16 bytes
};

struct Region {
    std::uint64_t bytes;
    std::uint64_t misalignment;  // its address mod 16
};

enum Kind { SCALAR = 0, ARRAY = 1, NULL_POINTER = 2 };

struct Argument {
    std::uint32_t kind;
    std::uint32_t region;
    std::uint64_t value;  // of an array, where it begins in its region; of a scalar, its bytes
};

extern "C" __attribute__((weak)) void __asan_poison_memory_region(const volatile void *address, std::size_t bytes);

static constexpr std::size_t ALIGNMENT = 16;
static constexpr int FIRST_EXIT_CODE = 100;

static std::size_t padded(std::size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

// Byte by byte: a library's memcpy would be checked as an access of the main thread.
static void copy(volatile unsigned char *to, const volatile unsigned char *from, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) to[i] = from[i];
}

// Memory that ends where the region ends: the next byte is known to be out of bounds.
static unsigned char *allocate(const Region &region) {
    unsigned char *memory = static_cast<unsigned char *>(std::malloc(region.misalignment + region.bytes));
    if (memory == nullptr) return nullptr;
    if (region.misalignment && __asan_poison_memory_region) __asan_poison_memory_region(memory, region.misalignment);
    return memory + region.misalignment;
}

static EmulatorEntry *entry_named(const char *name) {
    EmulatorEntry *entry = emulator_entries;
    while (entry != nullptr && std::strcmp(entry->name, name) != 0) entry = entry->next;
    return entry;
}

static int complain(const char *what) {
    std::fprintf(stderr, "%s\n", what);
    return FIRST_EXIT_CODE + EMULATOR_NO_MEMORY;
}

int main(int count, char **values) {
    int file = count == 3 ? open(values[1], O_RDWR) : -1;
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) return complain("the launch cannot be read");
    void *mapped = mmap(nullptr, std::size_t(status.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) return complain("the launch cannot be read");
    unsigned char *content = static_cast<unsigned char *>(mapped);
    const Header *header = reinterpret_cast<const Header *>(content);
    const Region *regions = reinterpret_cast<const Region *>(header + 1);
    const Argument *records = reinterpret_cast<const Argument *>(regions + header->regions);
    unsigned char *bytes = content + sizeof(Header) + header->regions * sizeof(Region) +
                           header->arguments * sizeof(Argument);

    unsigned char **memory = static_cast<unsigned char **>(std::calloc(header->regions + 1, sizeof *memory));
    unsigned char *from = bytes;
    for (unsigned i = 0; i < header->regions; ++i) {
        memory[i] = allocate(regions[i]);
        if (memory[i] == nullptr) return complain("no memory for the arrays");
        copy(memory[i], from, regions[i].bytes);
        from += padded(regions[i].bytes);
    }
    void **arguments = static_cast<void **>(std::calloc(header->arguments + 1, sizeof *arguments));
    std::uint64_t *held = static_cast<std::uint64_t *>(std::calloc(header->arguments + 1, sizeof *held));
    for (unsigned i = 0; i < header->arguments; ++i) {
        const Argument &argument = records[i];
        held[i] = argument.kind == ARRAY ? reinterpret_cast<std::uint64_t>(memory[argument.region] + argument.value)
                                         : argument.value;
        arguments[i] = &held[i];
    }

    const EmulatorEntry *entry = entry_named(values[2]);
    if (entry == nullptr) return complain("the source has no such kernel, as the preprocessor leaves it");
    char message[1024] = "";
    EmulatorLaunch launch = {};
    launch.entry = entry->call;
    launch.arguments = arguments;
    std::memcpy(launch.grid, header->grid, sizeof launch.grid);
    std::memcpy(launch.block, header->block, sizeof launch.block);
    launch.dynamic_shared_bytes = header->dynamic_shared_bytes;
    launch.schedule = header->schedule;
    launch.seed = header->seed;
    launch.perturb = header->perturb;
    launch.flush_denormals = header->flush_denormals;
    launch.message = message;
    launch.message_size = sizeof message;
    int code = emulator_run(&launch);
    if (code != EMULATOR_OK) {
        std::fprintf(stderr, "%s\n", message);
        return FIRST_EXIT_CODE + code;
    }
    from = bytes;
    for (unsigned i = 0; i < header->regions; ++i) {
        copy(from, memory[i], regions[i].bytes);
        from += padded(regions[i].bytes);
    }
    return 0;
}
