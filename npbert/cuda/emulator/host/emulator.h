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
#include <type_traits>
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

// Shared memory. translation.py rewrites `__shared__ float tile[16][17];` as
//     struct emulator_shared_0 { typedef float type[16][17]; };
//     auto &tile = emulator_shared_array<emulator_shared_0>();
// and the extern form as a pointer. The type is local to its function: each instance of a template has its own
// array, as on the device.
template <class Array>
inline const int emulator_shared_id = emulator_new_shared_id();
template <class Array>
inline typename Array::type &emulator_shared_array() {
    typedef typename Array::type Type;
    return *static_cast<Type *>(emulator_shared(emulator_shared_id<Array>, sizeof(Type)));
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
#define printf(...) emulator_print(__VA_ARGS__)
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

struct EmulatorPlace {
    const char *file;
    int line;
};
#define EMULATOR_SHUFFLE(KIND, what, mask, value, ...)                                                       \
    emulator_shuffle(mask, what, __FILE__, __LINE__, value,                                                   \
                     emulator_shuffle_source({__FILE__, __LINE__}, emulator_shuffle_source_##KIND, __VA_ARGS__))
inline unsigned emulator_shuffle_source(EmulatorPlace place, unsigned (*rule)(unsigned, int, int), int which,
                                        int width = 32) {
    if (width < 1 || width > 32 || (width & (width - 1)) != 0)
        emulator_stop(place.file, place.line, "a shuffle's width must be 1, 2, 4, 8, 16 or 32");
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
inline unsigned emulator_mask(unsigned mask = 0xffffffffu) { return mask; }
#define __syncwarp(...)                                                                             \
    emulator_warp_exchange(emulator_mask(__VA_ARGS__), "__syncwarp", __FILE__, __LINE__, nullptr, \
                           emulator_complete_nothing)

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
// The address alone says of which type a value is: atomicAdd(&sum, 1) adds to a float, too.
template <class T>
struct EmulatorSame {
    typedef T type;
};
#define EMULATOR_ATOMIC(NAME, RESULT)                                                      \
    template <class T>                                                                     \
    inline T atomic##NAME(T *address, typename EmulatorSame<T>::type value) {              \
        return emulator_atomic(address, [=]([[maybe_unused]] T old) { return T(RESULT); }); \
    }
EMULATOR_ATOMIC(Add, old + value)
EMULATOR_ATOMIC(Sub, old - value)
EMULATOR_ATOMIC(Max, old < value ? value : old)
EMULATOR_ATOMIC(Min, value < old ? value : old)
EMULATOR_ATOMIC(And, old & value)
EMULATOR_ATOMIC(Or, old | value)
EMULATOR_ATOMIC(Xor, old ^ value)
EMULATOR_ATOMIC(Inc, old >= value ? 0 : old + 1)
EMULATOR_ATOMIC(Dec, old == 0 || old > value ? value : old - 1)
EMULATOR_ATOMIC(Exch, value)
#undef EMULATOR_ATOMIC
template <class T>
inline T atomicCAS(T *address, typename EmulatorSame<T>::type compare, typename EmulatorSame<T>::type value) {
    return emulator_atomic(address, [=](T old) { return old == compare ? value : old; });
}

// Arithmetic ---------------------------------------------------------------------------------------------

// The overloads that CUDA has, so that a call which is ambiguous there is so here.
template <class T>
inline T emulator_lower(T a, T b) { return b < a ? b : a; }
template <class T>
inline T emulator_higher(T a, T b) { return a < b ? b : a; }
#define EMULATOR_EXTREMES(A, B, RESULT)                                        \
    inline RESULT min(A a, B b) { return emulator_lower<RESULT>(a, b); }   \
    inline RESULT max(A a, B b) { return emulator_higher<RESULT>(a, b); }
#define EMULATOR_INTEGER_EXTREMES(SIGNED, UNSIGNED)  \
    EMULATOR_EXTREMES(SIGNED, SIGNED, SIGNED)        \
    EMULATOR_EXTREMES(UNSIGNED, UNSIGNED, UNSIGNED)  \
    EMULATOR_EXTREMES(SIGNED, UNSIGNED, UNSIGNED)    \
    EMULATOR_EXTREMES(UNSIGNED, SIGNED, UNSIGNED)
EMULATOR_INTEGER_EXTREMES(int, unsigned)
EMULATOR_INTEGER_EXTREMES(long, unsigned long)
EMULATOR_INTEGER_EXTREMES(long long, unsigned long long)
#undef EMULATOR_INTEGER_EXTREMES
#undef EMULATOR_EXTREMES
// Of a number and NaN the number.
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
inline double min(float a, double b) { return std::fmin(double(a), b); }
inline double max(float a, double b) { return std::fmax(double(a), b); }
inline double min(double a, float b) { return std::fmin(a, double(b)); }
inline double max(double a, float b) { return std::fmax(a, double(b)); }
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
template <class Bits, class T>
inline T emulator_perturbed(T result, T argument) {
    static_assert(sizeof(Bits) == sizeof(T), "the bits of a number");
    if (!emulator_perturb || argument == 0 || !std::isfinite(argument) || !std::isnormal(result)) return result;
    Bits bits;
    std::memcpy(&bits, &argument, sizeof bits);
    int ulps = int(emulator_hash(bits) % 5) - 2;
    std::memcpy(&bits, &result, sizeof bits);
    bits += Bits(ulps);
    T moved;
    std::memcpy(&moved, &bits, sizeof moved);
    return std::isfinite(moved) ? moved : result;
}
inline float emulator_inexact(float result, float argument) {
    return emulator_perturbed<std::uint32_t>(result, argument);
}
inline double emulator_inexact(double result, double argument) {
    return emulator_perturbed<std::uint64_t>(result, argument);
}

#define EMULATOR_MATH(NAME, FLOAT, DOUBLE)                                                  \
    inline float emulator_##NAME(float x) { return emulator_inexact(float(FLOAT), x); }     \
    inline double emulator_##NAME(double x) { return emulator_inexact(DOUBLE, x); }         \
    template <class Integer, class = std::enable_if_t<std::is_integral_v<Integer>>>         \
    inline double emulator_##NAME(Integer x) { return emulator_##NAME(double(x)); }
#define EMULATOR_STANDARD_MATH(NAME) EMULATOR_MATH(NAME, std::NAME(x), std::NAME(x))
EMULATOR_STANDARD_MATH(exp)
EMULATOR_STANDARD_MATH(exp2)
EMULATOR_STANDARD_MATH(expm1)
EMULATOR_STANDARD_MATH(log)
EMULATOR_STANDARD_MATH(log2)
EMULATOR_STANDARD_MATH(log10)
EMULATOR_STANDARD_MATH(log1p)
EMULATOR_STANDARD_MATH(sinh)
EMULATOR_STANDARD_MATH(cosh)
EMULATOR_STANDARD_MATH(tanh)
EMULATOR_STANDARD_MATH(erf)
EMULATOR_STANDARD_MATH(erfc)
EMULATOR_STANDARD_MATH(sin)
EMULATOR_STANDARD_MATH(cos)
EMULATOR_STANDARD_MATH(tan)
EMULATOR_STANDARD_MATH(atan)
EMULATOR_STANDARD_MATH(cbrt)
EMULATOR_MATH(rsqrt, 1 / std::sqrt(double(x)), 1 / std::sqrt(x))
EMULATOR_MATH(normcdf, 0.5 * std::erfc(-double(x) * M_SQRT1_2), 0.5 * std::erfc(-x * M_SQRT1_2))
#undef EMULATOR_STANDARD_MATH
#undef EMULATOR_MATH
inline float emulator_pow(float x, float y) { return emulator_inexact(std::pow(x, y), x); }
inline double emulator_pow(double x, double y) { return emulator_inexact(std::pow(x, y), x); }
template <class X, class Y>
inline double emulator_pow(X x, Y y) { return emulator_pow(double(x), double(y)); }

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
#define log10(x) emulator_log10(x)
#define log10f(x) emulator_log10(float(x))
#define log1p(x) emulator_log1p(x)
#define log1pf(x) emulator_log1p(float(x))
#define sinh(x) emulator_sinh(x)
#define sinhf(x) emulator_sinh(float(x))
#define cosh(x) emulator_cosh(x)
#define coshf(x) emulator_cosh(float(x))
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
#define tan(x) emulator_tan(x)
#define tanf(x) emulator_tan(float(x))
#define atan(x) emulator_atan(x)
#define atanf(x) emulator_atan(float(x))
#define cbrt(x) emulator_cbrt(x)
#define cbrtf(x) emulator_cbrt(float(x))
#define rsqrt(x) emulator_rsqrt(x)
#define rsqrtf(x) emulator_rsqrt(float(x))
#define normcdf(x) emulator_normcdf(x)
#define normcdff(x) emulator_normcdf(float(x))
#define pow(x, y) emulator_pow(x, y)
#define powf(x, y) emulator_pow(float(x), float(y))
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

// What is left to do where a thread leaves the kernel; tensor_core.h has something.
static void (*emulator_leave)() = nullptr;

template <class... Parameters, std::size_t... I>
inline void emulator_call(void (*kernel)(Parameters...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Parameters *>(arguments[I])...);
    if (emulator_leave != nullptr) emulator_leave();
}
template <class... Parameters>
inline void emulator_call(void (*kernel)(Parameters...), void **arguments) {
    emulator_call(kernel, arguments, std::index_sequence_for<Parameters...>{});
}
#define EMULATOR_ENTRY(NAME)                                                                                 \
    extern "C" void emulator_entry_##NAME(void **arguments) { emulator_call(&emulator_kernel_##NAME, arguments); } \
    static EmulatorEntry emulator_record_##NAME(#NAME, emulator_entry_##NAME);
