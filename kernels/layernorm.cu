// Layer normalisation of rows, with or without a residual that is added to them first.
//
//     forward     s = x + residual                                 (s = x where there is no residual)
//                 mean = sum(s) / D,  inv_std = 1 / sqrt(sum((s - mean)^2) / D + eps)
//                 x_hat = (s - mean) inv_std,  y = x_hat weight + bias
//     backward    dx_hat = dy weight
//                 dx = (dx_hat - sum(dx_hat) / D - x_hat sum(dx_hat x_hat) / D) inv_std
//                 dweight = sum over rows of dy x_hat,  dbias = sum over rows of dy
//
// dx is the gradient of s, and so that of x and of residual alike.
//
// Python reference: npbert/ops/layernorm.py. Launcher: npbert/cuda/layernorm.py.
//
// argument                            shape         dtype  layout, meaning
// ----------------------------------  ------------  -----  ------------------------------------------------
// x, residual, dy, y, dx              (R, D)        REAL   row-major, as all are; residual may be null
// weight, bias, dweight, dbias        (D,)          REAL
// mean, inv_std                       (R,)          ACC    of the rows of s
// dweight_partials, dbias_partials    (chunks, D)   ACC    chunks = ceil(R / chunk_rows)
// eps                                 scalar        ACC
//
// Launch: layernorm_forward needs R blocks, layernorm_backward one a chunk; either of any multiple of 32
// threads up to 512. layernorm_parameter_gradients comes after it: ceil(D / 32) blocks of 256 threads. No
// dynamic shared memory.
//
// Saved for the way back: x and residual, which are there anyway, and two numbers a row. To save x_hat would
// mean to write R D more numbers on the way forward; without a residual that is one array more moved than
// here, with one it is as many, and either way as much memory more; and as __half, x_hat would be rounded.
//
// A thread holds its first columns of a row in registers, so that the variance is taken from the centred row
// without another read. Only of rows wider than the block's first columns (in packs of 16 bytes: D over 2,048
// in float32) the rest is read again, most likely from the L1 cache. So most loops over columns run once,
// and none is unrolled.
//
// The gradients of weight and bias are summed in two stages, always in the same order and without atomics: a
// block sums over its chunk of rows while it is at it, so that dy and x are read once, and
// layernorm_parameter_gradients sums over the chunks.
//
// Variants: none.
#include "columns.cuh"
#include "reduce.cuh"

constexpr int MAX_THREADS = 512;
constexpr int SLICES = 8;  // warps of layernorm_parameter_gradients

// Threads take neighbouring columns; what a loop over columns starts with and steps by.
template <int N>
__device__ __forceinline__ int first_column() {
    return N * threadIdx.x;
}
template <int N>
__device__ __forceinline__ int column_step() {
    return N * blockDim.x;
}

// One row of s = x + residual.
struct SummedRow {
    const REAL *x;
    const REAL *residual;

    template <int N>
    __device__ __forceinline__ Columns<N> columns(int column) const {
        Columns<N> sum = load_columns<N>(x + column);
        if (residual != nullptr) add_columns(sum, load_columns<N>(residual + column));
        return sum;
    }
};

__device__ __forceinline__ SummedRow summed_row(const REAL *x, const REAL *residual, long long start) {
    return {x + start, residual == nullptr ? nullptr : residual + start};
}

// Forward ----------------------------------------------------------------------------------------------

struct RowStatistics {
    ACC mean, inv_std;
};

template <int N>
__device__ __forceinline__ RowStatistics normalise_row(SummedRow row, const REAL *weight, const REAL *bias,
                                                       REAL *y, ACC eps, int width, ACC *scratch) {
    const int first = first_column<N>(), step = column_step<N>();
    Columns<N> held = zero_columns<N>();
    if (first < width) held = row.columns<N>(first);

    ACC sum = 0;
#pragma unroll 1
    for (int column = first; column < width; column += step) {
        Columns<N> s = column == first ? held : row.columns<N>(column);
#pragma unroll
        for (int i = 0; i < N; ++i) sum += s.values[i];
    }
    const ACC mean = block_sum(sum, scratch) / width;

    ACC squares = 0;
#pragma unroll 1
    for (int column = first; column < width; column += step) {
        Columns<N> s = column == first ? held : row.columns<N>(column);
#pragma unroll
        for (int i = 0; i < N; ++i) squares += (s.values[i] - mean) * (s.values[i] - mean);
    }
    const ACC variance = block_sum(squares, scratch) / width;
    const ACC inv_std = 1 / square_root(variance + eps);

#pragma unroll 1
    for (int column = first; column < width; column += step) {
        Columns<N> s = column == first ? held : row.columns<N>(column);
        Columns<N> scale = load_columns<N>(weight + column), shift = load_columns<N>(bias + column);
        Columns<N> result;
#pragma unroll
        for (int i = 0; i < N; ++i)
            result.values[i] = (s.values[i] - mean) * inv_std * scale.values[i] + shift.values[i];
        store_columns(y + column, result);
    }
    return {mean, inv_std};
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS)
layernorm_forward(const REAL *x, const REAL *residual, const REAL *weight, const REAL *bias, REAL *y,
                  ACC *mean, ACC *inv_std, ACC eps, int width) {
    __shared__ ACC scratch[WARP];
    const long long start = (long long)blockIdx.x * width;
    const SummedRow row = summed_row(x, residual, start);
    const bool packs = has_packs(width, x, residual, y) && has_packs(width, weight, bias);
    RowStatistics found = packs ? normalise_row<PACK>(row, weight, bias, y + start, eps, width, scratch)
                                : normalise_row<1>(row, weight, bias, y + start, eps, width, scratch);
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = found.mean;
        inv_std[blockIdx.x] = found.inv_std;
    }
}

// Backward ---------------------------------------------------------------------------------------------

// One row, as the backward pass sees it.
struct GradientRow {
    const REAL *dy;
    const REAL *weight;
    SummedRow s;
    RowStatistics statistics;
};

template <int N>
struct Terms {
    Columns<N> dy, dx_hat, x_hat;
};

template <int N>
__device__ __forceinline__ Terms<N> load_terms(const GradientRow &row, int column) {
    Terms<N> terms;
    terms.dy = load_columns<N>(row.dy + column);
    Columns<N> s = row.s.columns<N>(column), scale = load_columns<N>(row.weight + column);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        terms.dx_hat.values[i] = terms.dy.values[i] * scale.values[i];
        terms.x_hat.values[i] = (s.values[i] - row.statistics.mean) * row.statistics.inv_std;
    }
    return terms;
}

template <int N>
struct ParameterSums {
    Columns<N> dweight, dbias;

    __device__ __forceinline__ void add(const Terms<N> &terms) {
#pragma unroll
        for (int i = 0; i < N; ++i) dweight.values[i] += terms.dy.values[i] * terms.x_hat.values[i];
        add_columns(dbias, terms.dy);
    }
};

// The chunk's row of the partial sums; only the thread that owns a column touches it.
struct PartialRow {
    ACC *dweight;
    ACC *dbias;

    template <int N>
    __device__ __forceinline__ ParameterSums<N> load(int column) const {
        return {load_sums<N>(dweight + column), load_sums<N>(dbias + column)};
    }
    template <int N>
    __device__ __forceinline__ void store(int column, const ParameterSums<N> &sums) const {
        store_sums(dweight + column, sums.dweight);
        store_sums(dbias + column, sums.dbias);
    }
};

// dx of one row. The row's share of the parameters' gradients goes to `sums` for the columns that this thread
// holds, to `partial` for those of a wide row.
template <int N>
__device__ __forceinline__ void row_gradient(const GradientRow &row, REAL *dx, ParameterSums<N> &sums,
                                             PartialRow partial, int width, ACC *scratch) {
    const int first = first_column<N>(), step = column_step<N>();
    Terms<N> held = {zero_columns<N>(), zero_columns<N>(), zero_columns<N>()};
    if (first < width) held = load_terms<N>(row, first);
    sums.add(held);

    ACC sum = 0, sum_with_x_hat = 0;
#pragma unroll 1
    for (int column = first; column < width; column += step) {
        Terms<N> terms = column == first ? held : load_terms<N>(row, column);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            sum += terms.dx_hat.values[i];
            sum_with_x_hat += terms.dx_hat.values[i] * terms.x_hat.values[i];
        }
        if (column != first) {
            ParameterSums<N> wide = partial.load<N>(column);
            wide.add(terms);
            partial.store(column, wide);
        }
    }
    const ACC through_mean = block_sum(sum, scratch) / width;
    const ACC through_variance = block_sum(sum_with_x_hat, scratch) / width;

#pragma unroll 1
    for (int column = first; column < width; column += step) {
        Terms<N> terms = column == first ? held : load_terms<N>(row, column);
        Columns<N> result;
#pragma unroll
        for (int i = 0; i < N; ++i)
            result.values[i] = (terms.dx_hat.values[i] - through_mean - terms.x_hat.values[i] * through_variance)
                             * row.statistics.inv_std;
        store_columns(dx + column, result);
    }
}

struct BackwardArrays {
    const REAL *dy, *x, *residual, *weight;
    const ACC *mean, *inv_std;
    REAL *dx;
};

template <int N>
__device__ __forceinline__ void chunk_gradients(const BackwardArrays &arrays, PartialRow partial, int begin,
                                                int end, int width, ACC *scratch) {
    const int first = first_column<N>(), step = column_step<N>();
    ParameterSums<N> sums = {zero_columns<N>(), zero_columns<N>()};
#pragma unroll 1
    for (int column = first; column < width; column += step) partial.store(column, sums);

    for (int r = begin; r < end; ++r) {
        const long long start = (long long)r * width;
        const GradientRow row = {arrays.dy + start, arrays.weight, summed_row(arrays.x, arrays.residual, start),
                                 {arrays.mean[r], arrays.inv_std[r]}};
        row_gradient<N>(row, arrays.dx + start, sums, partial, width, scratch);
    }
    if (first < width) partial.store(first, sums);
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS)
layernorm_backward(const REAL *dy, const REAL *x, const REAL *residual, const REAL *weight, const ACC *mean,
                   const ACC *inv_std, REAL *dx, ACC *dweight_partials, ACC *dbias_partials, int rows,
                   int chunk_rows, int width) {
    __shared__ ACC scratch[WARP];
    const int begin = blockIdx.x * chunk_rows, end = min(begin + chunk_rows, rows);
    const long long chunk = (long long)blockIdx.x * width;
    const PartialRow partial = {dweight_partials + chunk, dbias_partials + chunk};
    const BackwardArrays arrays = {dy, x, residual, weight, mean, inv_std, dx};
    const bool packs = has_packs(width, dy, x, residual, dx)
                    && has_packs(width, weight, dweight_partials, dbias_partials);
    if (packs) {
        chunk_gradients<PACK>(arrays, partial, begin, end, width, scratch);
    } else {
        chunk_gradients<1>(arrays, partial, begin, end, width, scratch);
    }
}

// A warp sums every SLICES-th chunk, a thread one column of them; the first warp adds up the slices.
extern "C" __global__ void __launch_bounds__(SLICES *WARP)
layernorm_parameter_gradients(const ACC *dweight_partials, const ACC *dbias_partials, REAL *dweight,
                              REAL *dbias, int chunks, int width) {
    __shared__ ACC dweight_slices[SLICES][WARP];
    __shared__ ACC dbias_slices[SLICES][WARP];
    const int lane = threadIdx.x % WARP, slice = threadIdx.x / WARP;
    const int column = blockIdx.x * WARP + lane;

    ACC dweight_sum = 0, dbias_sum = 0;
    if (column < width) {
        for (int chunk = slice; chunk < chunks; chunk += SLICES) {
            dweight_sum += dweight_partials[(long long)chunk * width + column];
            dbias_sum += dbias_partials[(long long)chunk * width + column];
        }
    }
    dweight_slices[slice][lane] = dweight_sum;
    dbias_slices[slice][lane] = dbias_sum;
    __syncthreads();

    if (slice == 0 && column < width) {
#pragma unroll
        for (int other = 1; other < SLICES; ++other) {
            dweight_sum += dweight_slices[other][lane];
            dbias_sum += dbias_slices[other][lane];
        }
        dweight[column] = narrow(dweight_sum);
        dbias[column] = narrow(dbias_sum);
    }
}
