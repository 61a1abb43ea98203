// Numbers as they are stored and as they are computed with: what every kernel begins with.
//
//     REAL   what arrays hold:      double, float or __half
//     ACC    what sums are made in: double, or float for both float and __half
//
// Both are macros, given by the launcher. Widen what is read, narrow what is written.
#pragma once

#ifdef REAL_IS_HALF
#include <cuda_fp16.h>
__device__ __forceinline__ ACC widen(__half x) { return __half2float(x); }
__device__ __forceinline__ __half narrow(ACC x) { return __float2half_rn(x); }
#else
__device__ __forceinline__ ACC widen(REAL x) { return x; }
__device__ __forceinline__ REAL narrow(ACC x) { return x; }
#endif

// The functions of CUDA's library by one name for both precisions.
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ float complementary_error(float x) { return erfcf(x); }
__device__ __forceinline__ double complementary_error(double x) { return erfc(x); }
__device__ __forceinline__ float fused_multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused_multiply_add(double a, double b, double c) { return fma(a, b, c); }
__device__ __forceinline__ float maximum(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double maximum(double a, double b) { return fmax(a, b); }
__device__ __forceinline__ ACC infinity() { return __int_as_float(0x7f800000); }

// 16 bytes, the most that one instruction moves, as numbers.
constexpr int PACK = 16 / sizeof(REAL);
union Pack {
    uint4 bits;
    REAL values[PACK];
};

__device__ __forceinline__ bool is_pack_aligned(const void *address) {
    return reinterpret_cast<unsigned long long>(address) % 16 == 0;
}
__device__ __forceinline__ Pack load_pack(const REAL *address) {
    Pack pack;
    pack.bits = *reinterpret_cast<const uint4 *>(address);
    return pack;
}
__device__ __forceinline__ void store_pack(REAL *address, const Pack &pack) {
    *reinterpret_cast<uint4 *>(address) = pack.bits;
}
