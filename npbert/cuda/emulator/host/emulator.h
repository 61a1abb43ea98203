// CUDA's keywords and built-in functions for a C++ compiler: a kernel's text is compiled below this header.
//
// What is here is what kernels use; what is missing fails to compile. Semantics are those of the CUDA C++
// programming guide; undefined results are made as visible as can be (NaN, an error).
#pragma once

#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>

#include "scheduler.h"

#define NPBERT_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __restrict__ __restrict
#define __constant__ static const

#define threadIdx (emulator_thread->thread_index)
#define blockIdx (emulator_thread->block_index)
#define blockDim emulator_block_dim
#define gridDim emulator_grid_dim
static constexpr int warpSize = 32;

// Shared memory. The emulator's Python side rewrites `__shared__ float tile[16][17];` as
// `auto &tile = emulator_shared_array<float[16][17]>(id);`, and the extern form as a pointer.
template <class T>
inline T &emulator_shared_array(int id) {
    return *static_cast<T *>(emulator_shared(id, sizeof(T)));
}

// Vectors ------------------------------------------------------------------------------------------------


#define EMULATOR_VECTOR(NAME, T, BYTES)                                      \
    struct alignas(2 * BYTES) NAME##2 { T x, y; };                           \
    struct NAME##3 { T x, y, z; };                                           \
    struct alignas(4 * BYTES > 16 ? 16 : 4 * BYTES) NAME##4 { T x, y, z, w; }; \
    inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }               \
    inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }       \
    inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATOR_VECTOR(char, signed char, 1)
EMULATOR_VECTOR(uchar, unsigned char, 1)
EMULATOR_VECTOR(short, short, 2)
EMULATOR_VECTOR(ushort, unsigned short, 2)
EMULATOR_VECTOR(int, int, 4)
EMULATOR_VECTOR(uint, unsigned, 4)
EMULATOR_VECTOR(float, float, 4)
EMULATOR_VECTOR(longlong, long long, 8)
EMULATOR_VECTOR(ulonglong, unsigned long long, 8)
EMULATOR_VECTOR(double, double, 8)
#undef EMULATOR_VECTOR
struct dim3 { unsigned x = 1, y = 1, z = 1; };

// Barriers and warp functions ----------------------------------------------------------------------------

#define __syncthreads() ((void)emulator_barrier(__FILE__, __LINE__, 0))
#define __syncthreads_and(vote) (emulator_barrier(__FILE__, __LINE__, (vote) != 0) & 1)
#define __syncthreads_or(vote) (emulator_barrier(__FILE__, __LINE__, (vote) != 0) >> 1 & 1)
#define __syncthreads_count(vote) (emulator_barrier(__FILE__, __LINE__, (vote) != 0) >> 2)
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)
#define __trap() emulator_stop(__FILE__, __LINE__, "__trap()")
#undef assert
#define assert(condition) ((condition) ? (void)0 : emulator_stop(__FILE__, __LINE__, "assert(" #condition ")"))

inline unsigned emulator_shuffle_source_idx(unsigned lane, int source, int width) {
    return (lane & ~unsigned(width - 1)) + (unsigned(source) & unsigned(width - 1));
}
inline unsigned emulator_shuffle_source_xor(unsigned lane, int bits, int width) {
    unsigned source = lane ^ unsigned(bits);
    return source / unsigned(width) > lane / unsigned(width) ? lane : source;
}
inline unsigned emulator_shuffle_source_down(unsigned lane, int delta, int width) {
    unsigned source = lane + unsigned(delta);
    return source / unsigned(width) != lane / unsigned(width) ? lane : source;
}
inline unsigned emulator_shuffle_source_up(unsigned lane, int delta, int width) {
    return lane % unsigned(width) < unsigned(delta) ? lane : lane - unsigned(delta);
}

template <class T>
inline T emulator_shuffle(unsigned mask, const char *what, const char *file, int line, T value, unsigned source) {
    static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes");
    ShuffleLane lane = {};
    std::memcpy(lane.in, &value, sizeof value);
    lane.source = source;
    emulator_warp_exchange(mask, what, file, line, &lane, emulator_complete_shuffle);
    std::memcpy(&value, lane.out, sizeof value);
    return value;
}

inline unsigned emulator_ballot(unsigned mask, const char *what, const char *file, int line, bool vote) {
    ShuffleLane lane = {};
    lane.is_set = vote;
    emulator_warp_exchange(mask, what, file, line, &lane, emulator_complete_ballot);
    return lane.ballot;
}

#define EMULATOR_SHUFFLE(KIND, what, mask, value, ...)                                                       \
    emulator_shuffle(mask, what, __FILE__, __LINE__, value,                                                   \
                     emulator_shuffle_source(emulator_shuffle_source_##KIND, __VA_ARGS__))
inline unsigned emulator_shuffle_source(unsigned (*rule)(unsigned, int, int), int which, int width = 32) {
    return rule(emulator_thread->lane, which, width);
}
#define __shfl_sync(mask, value, ...) EMULATOR_SHUFFLE(idx, "__shfl_sync", mask, value, __VA_ARGS__)
#define __shfl_xor_sync(mask, value, ...) EMULATOR_SHUFFLE(xor, "__shfl_xor_sync", mask, value, __VA_ARGS__)
#define __shfl_down_sync(mask, value, ...) EMULATOR_SHUFFLE(down, "__shfl_down_sync", mask, value, __VA_ARGS__)
#define __shfl_up_sync(mask, value, ...) EMULATOR_SHUFFLE(up, "__shfl_up_sync", mask, value, __VA_ARGS__)
#define __ballot_sync(mask, vote) emulator_ballot(mask, "__ballot_sync", __FILE__, __LINE__, (vote) != 0)
#define __any_sync(mask, vote) (emulator_ballot(mask, "__any_sync", __FILE__, __LINE__, (vote) != 0) != 0)
#define __all_sync(mask, vote) \
    (emulator_ballot(mask, "__all_sync", __FILE__, __LINE__, (vote) != 0) == unsigned(mask))
inline void emulator_syncwarp(const char *file, int line, unsigned mask = 0xffffffffu) {
    emulator_warp_exchange(mask, "__syncwarp", file, line, nullptr, emulator_complete_nothing);
}
#define __syncwarp(...) emulator_syncwarp(__FILE__, __LINE__, ##__VA_ARGS__)

// Atomics ------------------------------------------------------------------------------------------------
// Atomic for the race detector, without ordering anything else, as on the device.

template <class T, class Update>
inline T emulator_atomic(T *address, Update update) {
    T expected, desired;
    __atomic_load(address, &expected, __ATOMIC_RELAXED);
    do {
        desired = update(expected);
    } while (!__atomic_compare_exchange(address, &expected, &desired, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return expected;
}
template <class T>
inline T atomicAdd(T *address, T value) {
    return emulator_atomic(address, [=](T old) { return T(old + value); });
}
template <class T>
inline T atomicSub(T *address, T value) {
    return emulator_atomic(address, [=](T old) { return T(old - value); });
}
template <class T>
inline T atomicMax(T *address, T value) {
    return emulator_atomic(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
inline T atomicMin(T *address, T value) {
    return emulator_atomic(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
inline T atomicExch(T *address, T value) {
    return emulator_atomic(address, [=](T) { return value; });
}
template <class T>
inline T atomicCAS(T *address, T compare, T value) {
    return emulator_atomic(address, [=](T old) { return old == compare ? value : old; });
}

// Arithmetic ---------------------------------------------------------------------------------------------

template <class T>
inline T min(T a, T b) { return b < a ? b : a; }
template <class T>
inline T max(T a, T b) { return a < b ? b : a; }
template <class T>
inline T __ldg(const T *address) { return *address; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((std::uint64_t(a) * b) >> 32); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(unsigned(bits)); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __float_as_uint(float value) { unsigned bits; std::memcpy(&bits, &value, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float value; std::memcpy(&value, &bits, 4); return value; }
inline int __float_as_int(float value) { return int(__float_as_uint(value)); }
inline float __int_as_float(int bits) { return __uint_as_float(unsigned(bits)); }

// Mathematical functions are not correctly rounded on the device: up to 2 ULP off. With `perturb` they are so
// here too, in a direction that depends on the argument alone; where the exact result is simple, it stays.
inline std::uint64_t emulator_hash(std::uint64_t bits) {
    bits = (bits ^ bits >> 33) * 0xff51afd7ed558ccdull;
    bits = (bits ^ bits >> 33) * 0xc4ceb9fe1a85ec53ull;
    return bits ^ bits >> 33;
}
inline float emulator_perturbed(float result, float argument) {
    if (!emulator_perturb || argument == 0 || !std::isfinite(argument) || !std::isnormal(result)) return result;
    int ulps = int(emulator_hash(__float_as_uint(argument)) % 5) - 2;
    return __uint_as_float(__float_as_uint(result) + unsigned(ulps));
}
inline double emulator_perturbed(double result, double argument) {
    if (!emulator_perturb || argument == 0 || !std::isfinite(argument) || !std::isnormal(result)) return result;
    std::uint64_t bits;
    std::memcpy(&bits, &argument, 8);
    int ulps = int(emulator_hash(bits) % 5) - 2;
    std::memcpy(&bits, &result, 8);
    bits += std::uint64_t(std::int64_t(ulps));
    std::memcpy(&result, &bits, 8);
    return result;
}

#define EMULATOR_MATH(NAME)                                                                                  \
    inline float emulator_##NAME(float x) { return emulator_perturbed(std::NAME(x), x); }                    \
    inline double emulator_##NAME(double x) { return emulator_perturbed(std::NAME(x), x); }                  \
    inline double emulator_##NAME(int x) { return emulator_##NAME(double(x)); }
EMULATOR_MATH(exp)
EMULATOR_MATH(exp2)
EMULATOR_MATH(expm1)
EMULATOR_MATH(log)
EMULATOR_MATH(log2)
EMULATOR_MATH(log1p)
EMULATOR_MATH(tanh)
EMULATOR_MATH(erf)
EMULATOR_MATH(erfc)
EMULATOR_MATH(sin)
EMULATOR_MATH(cos)
#undef EMULATOR_MATH
inline float emulator_rsqrt(float x) { return emulator_perturbed(float(1 / std::sqrt(double(x))), x); }
inline double emulator_rsqrt(double x) { return emulator_perturbed(1 / std::sqrt(x), x); }
inline float emulator_normcdf(float x) { return emulator_perturbed(float(0.5 * std::erfc(-double(x) * M_SQRT1_2)), x); }
inline double emulator_normcdf(double x) { return emulator_perturbed(0.5 * std::erfc(-x * M_SQRT1_2), x); }

// The plain names take either type, those that end in f take float.
#define exp(x) emulator_exp(x)
#define expf(x) emulator_exp(float(x))
#define exp2(x) emulator_exp2(x)
#define exp2f(x) emulator_exp2(float(x))
#define expm1(x) emulator_expm1(x)
#define expm1f(x) emulator_expm1(float(x))
#define log(x) emulator_log(x)
#define logf(x) emulator_log(float(x))
#define log2(x) emulator_log2(x)
#define log2f(x) emulator_log2(float(x))
#define log1p(x) emulator_log1p(x)
#define log1pf(x) emulator_log1p(float(x))
#define tanh(x) emulator_tanh(x)
#define tanhf(x) emulator_tanh(float(x))
#define erf(x) emulator_erf(x)
#define erff(x) emulator_erf(float(x))
#define erfc(x) emulator_erfc(x)
#define erfcf(x) emulator_erfc(float(x))
#define sin(x) emulator_sin(x)
#define sinf(x) emulator_sin(float(x))
#define cos(x) emulator_cos(x)
#define cosf(x) emulator_cos(float(x))
#define rsqrt(x) emulator_rsqrt(x)
#define rsqrtf(x) emulator_rsqrt(float(x))
#define normcdf(x) emulator_normcdf(x)
#define normcdff(x) emulator_normcdf(float(x))
// Correctly rounded on the device, and here.
using std::abs;
using std::ceil;
using std::copysign;
using std::fabs;
using std::floor;
using std::fma;
using std::fmax;
using std::fmin;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::sqrt;

// Calling a kernel with arguments that are known at run time only ----------------------------------------

template <class... Parameters, std::size_t... I>
inline void emulator_call(void (*kernel)(Parameters...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Parameters *>(arguments[I])...);
}
template <class... Parameters>
inline void emulator_call(void (*kernel)(Parameters...), void **arguments) {
    emulator_call(kernel, arguments, std::index_sequence_for<Parameters...>{});
}
#define EMULATOR_ENTRY(NAME) \
    extern "C" void emulator_entry_##NAME(void **arguments) { emulator_call(&NAME, arguments); }
