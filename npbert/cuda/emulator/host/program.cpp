// A launch as a program of its own: sanitizers must be there from a process's start, and end it on a mistake.
//
//     PROGRAM FILE      reads the launch and its arrays from FILE, writes the arrays back to FILE
//
// FILE: a Header, then Argument records, then the arguments' bytes, each from a multiple of 16 bytes on. Exit
// code: that of emulator_run, with its message on the standard error; or the sanitizer's.

#include "scheduler.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

struct Header {
    std::uint32_t grid[3];
    std::uint32_t block[3];
    std::uint64_t dynamic_shared_bytes;
    std::uint32_t schedule, seed, perturb, flush_denormals, memory_per_block, arguments;
    std::uint32_t unused[2];  // up to a multiple of 16 bytes
};

struct Argument {
    std::uint32_t is_pointer;  // 1: an array; 0: a scalar; 2: a null pointer
    std::uint32_t unused;
    std::uint64_t bytes;
};

extern "C" void EMULATOR_MAIN_ENTRY(void **arguments);

static std::size_t padded(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

// Byte by byte: a library's memcpy would be checked as an access of the main thread.
static void copy(volatile unsigned char *to, const volatile unsigned char *from, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) to[i] = from[i];
}

int main(int count, char **values) {
    int file = count == 2 ? open(values[1], O_RDWR) : -1;
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) {
        std::perror("emulator");
        return 3;
    }
    void *mapped = mmap(nullptr, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) {
        std::perror("emulator");
        return 3;
    }
    unsigned char *content = static_cast<unsigned char *>(mapped);
    const Header *header = reinterpret_cast<Header *>(content);
    const Argument *records = reinterpret_cast<const Argument *>(header + 1);
    unsigned char *bytes = content + sizeof(Header) + header->arguments * sizeof(Argument);

    // Arrays are copied to memory of exactly their size, where the next byte is known to be out of bounds.
    void **arguments = static_cast<void **>(std::calloc(header->arguments + 1, sizeof(void *)));
    void **pointers = static_cast<void **>(std::calloc(header->arguments + 1, sizeof(void *)));
    unsigned char *from = bytes;
    for (unsigned i = 0; i < header->arguments; ++i) {
        if (records[i].is_pointer == 0) {
            arguments[i] = from;
        } else {
            if (records[i].is_pointer == 1) {
                pointers[i] = std::malloc(records[i].bytes);
                copy(static_cast<unsigned char *>(pointers[i]), from, records[i].bytes);
            }
            arguments[i] = &pointers[i];
        }
        from += padded(records[i].bytes);
    }

    char message[1024] = "";
    EmulatorLaunch launch = {};
    launch.entry = EMULATOR_MAIN_ENTRY;
    launch.arguments = arguments;
    std::memcpy(launch.grid, header->grid, sizeof launch.grid);
    std::memcpy(launch.block, header->block, sizeof launch.block);
    launch.dynamic_shared_bytes = header->dynamic_shared_bytes;
    launch.schedule = header->schedule;
    launch.seed = header->seed;
    launch.perturb = header->perturb;
    launch.flush_denormals = header->flush_denormals;
    launch.memory_per_block = header->memory_per_block;
    launch.message = message;
    launch.message_size = sizeof message;
    int code = emulator_run(&launch);
    if (code != EMULATOR_OK) {
        std::fprintf(stderr, "%s\n", message);
        return code;
    }
    from = bytes;
    for (unsigned i = 0; i < header->arguments; ++i) {
        if (records[i].is_pointer == 1) copy(from, static_cast<unsigned char *>(pointers[i]), records[i].bytes);
        from += padded(records[i].bytes);
    }
    return 0;
}
