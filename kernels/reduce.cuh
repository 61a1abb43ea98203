// Sums and maxima over a warp and over a block: always in the same order, so that two runs give the same bits.
// Blocks are one-dimensional, of a multiple of 32 threads. Every thread gets the result.
#pragma once

#include "number.cuh"

constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int WARP = 32;

__device__ __forceinline__ ACC warp_sum(ACC value) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(FULL_WARP, value, distance);
    return value;
}

__device__ __forceinline__ ACC warp_max(ACC value) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value = maximum(value, __shfl_xor_sync(FULL_WARP, value, distance));
    return value;
}

// `scratch` is shared memory for 32 numbers; it may be used again at once.
__device__ __forceinline__ ACC block_sum(ACC value, ACC *scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_sum(value);
    if (warps == 1) return value;
    __syncthreads();  // the scratch of the call before may still be read
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    return warp_sum(lane < warps ? scratch[lane] : ACC(0));
}

__device__ __forceinline__ ACC block_max(ACC value, ACC *scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_max(value);
    if (warps == 1) return value;
    __syncthreads();  // the scratch of the call before may still be read
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    return warp_max(lane < warps ? scratch[lane] : -infinity());
}
