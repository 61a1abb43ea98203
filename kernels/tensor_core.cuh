// Tensor cores and asynchronous copies: instructions that CUDA C++ has no name for (compute capability 8.0).
//
// A *matrix* here is 8 x 8 halves; a *fragment* is a lane's part of a larger one, as the PTX ISA lays it out,
// two neighbouring halves a register. With row = lane / 4 and pair = 2 (lane mod 4), a lane holds
//
//     A (16 x 16)   a[0]: row, pair..      a[1]: row + 8, pair..
//                   a[2]: row, pair + 8..  a[3]: row + 8, pair + 8..
//     B (16 x 8)    b[0]: rows pair, pair + 1 of column `row`    b[1]: rows pair + 8, pair + 9 of it
//     D (16 x 8)    d[0], d[1]: row, pair..    d[2], d[3]: row + 8, pair..
//
// All lanes of a warp call these functions together; the copies are each thread's own. On the emulator
// (npbert/cuda/emulator/host/tensor_core.h) the functions do as documented, and no more.
//
// NVIDIA, "Parallel Thread Execution ISA", sections mma.m16n8k16, ldmatrix and cp.async.
#pragma once

#ifdef NPBERT_EMULATED
#include <tensor_core.h>
#else
__device__ __forceinline__ unsigned int shared_address(const void *shared) {
    return static_cast<unsigned int>(__cvta_generic_to_shared(shared));
}
#endif

// d += a b: halves are multiplied, floats summed.
__device__ __forceinline__ void mma_m16n8k16(float d[4], const unsigned int a[4], const unsigned int b[2]) {
#ifdef NPBERT_EMULATED
    emulator_mma_m16n8k16(d, a, b, __FILE__, __LINE__);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Load four matrices from shared memory: lane 8 i + r points to row r of matrix i (16 bytes, aligned), and
// every lane receives elements (row, pair) and (row, pair + 1) of matrix i in fragment[i].
__device__ __forceinline__ void load_matrix_x4(unsigned int fragment[4], const void *row) {
#ifdef NPBERT_EMULATED
    emulator_load_matrix_x4(fragment, row, false, __FILE__, __LINE__);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

// The same, but every lane receives elements (pair, row) and (pair + 1, row).
__device__ __forceinline__ void load_matrix_x4_transposed(unsigned int fragment[4], const void *row) {
#ifdef NPBERT_EMULATED
    emulator_load_matrix_x4(fragment, row, true, __FILE__, __LINE__);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

// Begin to copy 16 bytes, both places aligned to that, past the registers and the L1 cache. Where `valid` is
// false zeros are written and `global` is not read. Only what copy_async_wait waited for may be looked at.
__device__ __forceinline__ void copy_async_16(void *shared, const void *global, bool valid) {
#ifdef NPBERT_EMULATED
    emulator_copy_async(shared, global, 16, valid, __FILE__, __LINE__);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
#endif
}

// The same with 4 bytes.
__device__ __forceinline__ void copy_async_4(void *shared, const void *global, bool valid) {
#ifdef NPBERT_EMULATED
    emulator_copy_async(shared, global, 4, valid, __FILE__, __LINE__);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 4 : 0)
                 : "memory");
#endif
}

// What this thread began to copy since the last commit becomes one group.
__device__ __forceinline__ void copy_async_commit() {
#ifdef NPBERT_EMULATED
    emulator_copy_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until all but the youngest PENDING groups of this thread have arrived. For others', add a barrier.
template <int PENDING>
__device__ __forceinline__ void copy_async_wait() {
#ifdef NPBERT_EMULATED
    emulator_copy_async_wait(PENDING);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// The same number, of which the compiler computes nothing ahead: Philox has twenty round keys, which it would
// otherwise keep in registers through a loop that needs those itself.
__device__ __forceinline__ unsigned long long computed_here(unsigned long long seed) {
#ifndef NPBERT_EMULATED
    asm volatile("" : "+l"(seed));
#endif
    return seed;
}
