// The shared memory of the block that runs.
#pragma once

#include <cstddef>

constexpr int MAX_SHARED_ARRAYS = 64;
constexpr std::size_t MAX_STATIC_SHARED_BYTES = 48 * 1024;  // more does not compile for a device

// Memory of exactly `bytes`, aligned to 16; null if there is no memory, or more than is allowed.
void *static_shared_memory(int id, std::size_t bytes);
void *dynamic_shared_memory(std::size_t bytes);

// Set all bits of all that was asked for: a float or double read before it is written is NaN.
void poison_shared_memory();

void release_shared_memory();
