// N neighbouring columns of a row, as sums are made of them: N is PACK, moved 16 bytes at a time, where rows are
// aligned to that, and 1 elsewhere.
//
// A row can be read in packs if it starts at a multiple of 16 bytes: the array does, and so does each row if its
// width is a multiple of PACK. The answer is the same for all threads of a launch.
#pragma once

#include "number.cuh"

template <int N>
struct Columns {
    ACC values[N];
};

__device__ __forceinline__ bool has_packs(int width, const void *a, const void *b = nullptr,
                                          const void *c = nullptr, const void *d = nullptr) {
    return width % PACK == 0 && is_pack_aligned(a) && is_pack_aligned(b) && is_pack_aligned(c)
        && is_pack_aligned(d);
}

template <int N>
__device__ __forceinline__ Columns<N> zero_columns() {
    Columns<N> zero;
#pragma unroll
    for (int i = 0; i < N; ++i) zero.values[i] = 0;
    return zero;
}

template <int N>
__device__ __forceinline__ void add_columns(Columns<N> &sum, const Columns<N> &term) {
#pragma unroll
    for (int i = 0; i < N; ++i) sum.values[i] += term.values[i];
}

template <int N>
__device__ __forceinline__ Columns<N> load_columns(const REAL *address) {
    Columns<N> columns;
    if constexpr (N == 1) {
        columns.values[0] = widen(*address);
    } else {
        Pack pack = load_pack(address);
#pragma unroll
        for (int i = 0; i < N; ++i) columns.values[i] = widen(pack.values[i]);
    }
    return columns;
}

template <int N>
__device__ __forceinline__ void store_columns(REAL *address, const Columns<N> &columns) {
    if constexpr (N == 1) {
        *address = narrow(columns.values[0]);
    } else {
        Pack pack;
#pragma unroll
        for (int i = 0; i < N; ++i) pack.values[i] = narrow(columns.values[i]);
        store_pack(address, pack);
    }
}

// Partial sums are kept as ACC: for REAL = __half a pack of columns takes two moves of 16 bytes.
template <int N>
union PartialSums {
    uint4 bits[(N * sizeof(ACC) + 15) / 16];
    ACC values[N];
};

template <int N>
__device__ __forceinline__ Columns<N> load_sums(const ACC *address) {
    Columns<N> columns;
    if constexpr (N == 1) {
        columns.values[0] = *address;
    } else {
        PartialSums<N> sums;
#pragma unroll
        for (int i = 0; i < int(sizeof(sums) / 16); ++i)
            sums.bits[i] = reinterpret_cast<const uint4 *>(address)[i];
#pragma unroll
        for (int i = 0; i < N; ++i) columns.values[i] = sums.values[i];
    }
    return columns;
}

template <int N>
__device__ __forceinline__ void store_sums(ACC *address, const Columns<N> &columns) {
    if constexpr (N == 1) {
        *address = columns.values[0];
    } else {
        PartialSums<N> sums;
#pragma unroll
        for (int i = 0; i < N; ++i) sums.values[i] = columns.values[i];
#pragma unroll
        for (int i = 0; i < int(sizeof(sums) / 16); ++i)
            reinterpret_cast<uint4 *>(address)[i] = sums.bits[i];
    }
}
