// GELU of x + bias, element by element, in both forms that are in use; bias may be left out.
//
//     forward    z = x + bias,  y = z g(z)
//     backward   dx = dy (g(z) + z g'(z)),  dbias = sum over rows of dx
//
//     erf        g(z) = (1 + erf(z / sqrt(2))) / 2                g'(z) = exp(-z^2 / 2) / sqrt(2 pi)
//     tanh       g(z) = (1 + tanh(u)) / 2 = sigmoid(2 u)          g'(z) = (2 u)' g(z) (1 - g(z))
//                2 u = 2 sqrt(2 / pi) (z + 0.044715 z^3)
//
// Python reference: npbert/ops/gelu.py. Launcher: npbert/cuda/gelu.py.
//
// argument     shape          dtype  layout, meaning
// -----------  -------------  -----  -------------------------------------------------
// x, y         (R, F)         REAL   row-major, as all are
// dy, dx       (R, F)         REAL
// bias, dbias  (F,)           REAL   bias may be null
// partial      (chunks, F)    ACC    chunks = ceil(R / chunk_rows); null: no gradient of the bias is wanted
// form         scalar         int    0: erf, 1: tanh
//
// Launch: gelu_forward and gelu_backward: block (32, 8), grid (any number, among which the columns are dealt out,
// chunks); a thread has a pack of 16 bytes of every eighth row of its chunk. gelu_bias_gradient comes after
// gelu_backward: block (32, 8), grid ceil(F / 32). No dynamic shared memory.
//
// Saved for the way back: x and bias, which are there anyway; z and g(z) are computed again. That moves
// 2 R F numbers forward and 3 R F back. To save z would mean R F more forward, to save g(z) R F more forward and
// R F more back; and the kernels wait for memory, not for arithmetic.
//
// The bias's gradient is made in two stages, always in the same order and without atomics: a block sums the rows
// of its chunk, gelu_bias_gradient sums the chunks.
//
// Accuracy: 1 + erf and 1 + tanh, as written above, would lose the digits of the left tail and then its sign.
// The erf form is within 1e-6 of itself in float32. The tanh form's exponent 2 u is rounded, which exp amplifies
// to a relative error of about 2 |u| 2^-23 in the left tail, where y is next to nothing.
//
// No launch bounds: with them the compiler keeps to 64 registers a thread, and float64 on sm_100 and sm_120 spills.
//
// Variants: the two forms.
#include "columns.cuh"
#include "reduce.cuh"

constexpr int ERF = 0;
constexpr int SLICES = 8;  // warps of a block

// Beyond +-FAR both gates are 0 or 1; infinities stay out of the formulas.
constexpr ACC FAR = 40;

// sqrt(1/2) as the sum of a rounded number and of what rounding took away.
constexpr ACC SQRT_HALF = ACC(0.70710678118654752440);
constexpr ACC SQRT_HALF_REST = sizeof(ACC) == 8 ? ACC(-4.8336466567264567e-17) : ACC(1.2101617485882345e-8);
constexpr ACC SQRT_2 = ACC(1.41421356237309504880);
constexpr ACC INV_SQRT_2_PI = ACC(0.39894228040143267794);
constexpr ACC TWO_SQRT_2_OVER_PI = ACC(1.59576912160573071176);
constexpr ACC CUBIC = ACC(0.044715);

struct Gate {
    ACC value, slope;  // g(z) and g'(z)
};

// normal_cdf(z) = erfc(h) / 2 with h = -z / sqrt(2). Rounding h would change erfc(h) by a relative z^2 u, which is
// 1.5e-6 at z = -5: so h is taken as a rounded number and a rest, and erfc(h + rest) = erfc(h) + rest erfc'(h).
__device__ __forceinline__ Gate erf_gate(ACC z) {
    ACC h = -z * SQRT_HALF;
    ACC rest = fused_multiply_add(-z, SQRT_HALF, -h) - z * SQRT_HALF_REST;
    ACC pdf = INV_SQRT_2_PI * exponential(ACC(-0.5) * z * z);
    ACC cdf = ACC(0.5) * complementary_error(h) - SQRT_2 * rest * pdf;
    return {cdf, pdf};
}

// With e = exp(-|2 u|) nothing overflows: sigmoid(2 u) is 1 / (1 + e) or e / (1 + e), and either way
// g (1 - g) = e / (1 + e)^2.
__device__ __forceinline__ Gate tanh_gate(ACC z) {
    ACC two_u = TWO_SQRT_2_OVER_PI * z * (1 + CUBIC * z * z);
    ACC two_u_slope = TWO_SQRT_2_OVER_PI * (1 + 3 * CUBIC * z * z);
    ACC e = exponential(z < 0 ? two_u : -two_u);
    ACC inverse = 1 / (1 + e);
    return {(z < 0 ? e : ACC(1)) * inverse, two_u_slope * e * inverse * inverse};
}

__device__ __forceinline__ Gate gate(ACC z, int form) {
    if (z > FAR) z = FAR;
    if (z < -FAR) z = -FAR;
    return form == ERF ? erf_gate(z) : tanh_gate(z);
}

// The rows begin, begin + step, ... below end: those of a thread in its block's chunk.
struct Rows {
    int begin, end, step;
};

__device__ __forceinline__ Rows rows_of_thread(int rows, int chunk_rows) {
    const int first = blockIdx.y * chunk_rows;
    return {first + int(threadIdx.y), min(first + chunk_rows, rows), int(blockDim.y)};
}

// Tiles of columns, a pack of them a thread; where packs are of one column, a block works on several tiles.
template <int N>
__device__ __forceinline__ int first_tile() {
    return N * WARP * blockIdx.x;
}
template <int N>
__device__ __forceinline__ int tile_step() {
    return N * WARP * gridDim.x;
}

template <int N>
__device__ __forceinline__ Columns<N> load_bias(const REAL *bias, int column) {
    return bias == nullptr ? zero_columns<N>() : load_columns<N>(bias + column);
}

// Forward ----------------------------------------------------------------------------------------------

template <int N>
__device__ __forceinline__ void activate(const REAL *x, const REAL *bias, REAL *y, int width, int form,
                                         Rows rows) {
    for (int column = first_tile<N>() + N * threadIdx.x; column < width; column += tile_step<N>()) {
        const Columns<N> shift = load_bias<N>(bias, column);
        for (int r = rows.begin; r < rows.end; r += rows.step) {
            const long long place = (long long)r * width + column;
            Columns<N> z = load_columns<N>(x + place);
            add_columns(z, shift);
            Columns<N> result;
#pragma unroll
            for (int i = 0; i < N; ++i) result.values[i] = z.values[i] * gate(z.values[i], form).value;
            store_columns(y + place, result);
        }
    }
}

extern "C" __global__ void gelu_forward(const REAL *x, const REAL *bias, REAL *y, int rows, int width,
                                        int chunk_rows, int form) {
    const Rows part = rows_of_thread(rows, chunk_rows);
    if (has_packs(width, x, bias, y))
        activate<PACK>(x, bias, y, width, form, part);
    else
        activate<1>(x, bias, y, width, form, part);
}

// Backward ---------------------------------------------------------------------------------------------

// Writes dx in N columns of the thread's rows, and returns its sums over them.
template <int N>
__device__ __forceinline__ Columns<N> differentiate(const REAL *dy, const REAL *x, const REAL *bias, REAL *dx,
                                                    int width, int form, Rows rows, int column) {
    Columns<N> sum = zero_columns<N>();
    const Columns<N> shift = load_bias<N>(bias, column);
    for (int r = rows.begin; r < rows.end; r += rows.step) {
        const long long place = (long long)r * width + column;
        const Columns<N> cotangent = load_columns<N>(dy + place);
        Columns<N> z = load_columns<N>(x + place);
        add_columns(z, shift);
        Columns<N> result;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const Gate g = gate(z.values[i], form);
            result.values[i] = cotangent.values[i] * (g.value + z.values[i] * g.slope);
        }
        store_columns(dx + place, result);
        add_columns(sum, result);
    }
    return sum;
}

// Adds up the sums of the block's warps, each of which had other rows. The first warp gets the result.
template <int N>
__device__ __forceinline__ Columns<N> sum_of_slices(Columns<N> sum, ACC slices[SLICES][PACK][WARP]) {
    const int lane = threadIdx.x, slice = threadIdx.y;
    __syncthreads();  // the slices of the tile before may still be read
#pragma unroll
    for (int i = 0; i < N; ++i) slices[slice][i][lane] = sum.values[i];
    __syncthreads();
    if (slice != 0) return sum;
#pragma unroll
    for (int i = 0; i < N; ++i) {
#pragma unroll
        for (int other = 1; other < SLICES; ++other) sum.values[i] += slices[other][i][lane];
    }
    return sum;
}

template <int N>
__device__ __forceinline__ void chunk_gradients(const REAL *dy, const REAL *x, const REAL *bias, REAL *dx,
                                                ACC *partial, int width, int form, Rows rows,
                                                ACC slices[SLICES][PACK][WARP]) {
    for (int tile = first_tile<N>(); tile < width; tile += tile_step<N>()) {
        const int column = tile + N * threadIdx.x;
        Columns<N> sum = zero_columns<N>();
        if (column < width) sum = differentiate<N>(dy, x, bias, dx, width, form, rows, column);
        if (partial == nullptr) continue;
        sum = sum_of_slices(sum, slices);
        if (threadIdx.y == 0 && column < width)
            store_sums(partial + (long long)blockIdx.y * width + column, sum);
    }
}

extern "C" __global__ void gelu_backward(const REAL *dy, const REAL *x, const REAL *bias, REAL *dx, ACC *partial,
                                         int rows, int width, int chunk_rows, int form) {
    __shared__ ACC slices[SLICES][PACK][WARP];
    const Rows part = rows_of_thread(rows, chunk_rows);
    if (has_packs(width, dy, x, bias, dx) && is_pack_aligned(partial))
        chunk_gradients<PACK>(dy, x, bias, dx, partial, width, form, part, slices);
    else
        chunk_gradients<1>(dy, x, bias, dx, partial, width, form, part, slices);
}

// A warp sums every eighth chunk, a thread one column of them; the first warp adds up the slices.
extern "C" __global__ void gelu_bias_gradient(const ACC *partial, REAL *dbias, int chunks, int width) {
    __shared__ ACC slices[SLICES][WARP];
    const int lane = threadIdx.x, slice = threadIdx.y;
    const int column = blockIdx.x * WARP + lane;

    ACC sum = 0;
    if (column < width)
        for (int chunk = slice; chunk < chunks; chunk += SLICES) sum += partial[(long long)chunk * width + column];
    slices[slice][lane] = sum;
    __syncthreads();

    if (slice == 0 && column < width) {
#pragma unroll
        for (int other = 1; other < SLICES; ++other) sum += slices[other][lane];
        dbias[column] = narrow(sum);
    }
}
