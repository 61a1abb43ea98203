// Softmax cross-entropy of rows of class scores, with the gradient of the scores; ignored rows cost nothing.
//
//     max = max_j x_j,  total = sum_j exp(x_j - max)
//     loss of a row = log(total) + max - x_label                       0 where label = ignore_index
//     loss = weight * sum over rows                                    weight = 1, or 1 / rows that count
//     dx_j = (exp(x_j - max) / total - [j = label]) weight dloss       0 where label = ignore_index
//
// Python reference: npbert/ops/cross_entropy.py. Launcher: npbert/cuda/cross_entropy.py.
//
// argument              shape    dtype      layout, meaning
// --------------------  -------  ---------  ---------------------------------------------------------------
// logits, dlogits       (R, V)   REAL       row-major; V = 30,522 for BERT's vocabulary
// labels                (R,)     long long  in [0, V), or ignore_index
// row_max, row_total    (R,)     ACC        max and total; not written for ignored rows
// losses                (R,)     ACC        of each row
// weight, dloss         (1,)     ACC
// loss                  (1,)     REAL
// ignore_index          scalar   long long
// is_mean               scalar   int        whether weight is 1 / rows that count
//
// Launch: cross_entropy_weight and cross_entropy_loss one block, the others R blocks; any multiple of 32
// threads up to 512. In that order: weight, forward, loss, backward; or weight, in_place, loss. No dynamic
// shared memory.
//
// Saved for the way back: the logits, which are there anyway, and two numbers a row. The probabilities,
// another (R, V) array, are computed again. max and log(total) are not one number, log-sum-exp: for logits
// of 1e4 float32 would round it by 5e-4, and so every probability.
//
// The logits are read once forward (the maximum is that of what was seen so far; what was summed up for a
// smaller one is scaled down), and once backward; those of ignored rows, most rows of masked-language
// modelling, not at all.
//
// A label outside [0, V) reads nothing: loss and the row's gradient are NaN.
//
// Variants: cross_entropy_in_place does it all with dloss = 1, and writes dlogits over the logits.
#include "columns.cuh"
#include "reduce.cuh"

constexpr int MAX_THREADS = 512;

// Rows of any width, wherever they begin --------------------------------------------------------------

// 30,522 numbers of 2 or 4 bytes are no multiple of 16: most rows do not begin at such an address. They have
// single elements up to the first one, packs, and single elements after the last pack.
struct Cut {
    int first_pack;  // column
    int after_packs;
    int width;
};

__device__ __forceinline__ Cut cut_row(const REAL *from, const REAL *to, int width) {
    const int offset = int(reinterpret_cast<unsigned long long>(from) % 16);
    const int other_offset = int(reinterpret_cast<unsigned long long>(to) % 16);
    const int before = (16 - offset) % 16 / int(sizeof(REAL));
    if (offset != other_offset || before > width) return {width, width, width};
    return {before, before + (width - before) / PACK * PACK, width};
}

// Calls visitor.columns<N>(column) for all columns of a row, N = 1 or PACK of them at a time. A thread
// always gets the same ones.
template <class Visitor>
__device__ __forceinline__ void visit_row(const Cut &cut, Visitor &visitor) {
    for (int column = threadIdx.x; column < cut.first_pack; column += blockDim.x)
        visitor.template columns<1>(column);
    for (int column = cut.first_pack + PACK * threadIdx.x; column < cut.after_packs; column += PACK * blockDim.x)
        visitor.template columns<PACK>(column);
    for (int column = cut.after_packs + threadIdx.x; column < cut.width; column += blockDim.x)
        visitor.template columns<1>(column);
}

// Online softmax ---------------------------------------------------------------------------------------

struct RowSoftmax {
    ACC max, total;
};

// Minus infinity, as what to subtract from it, would give NaN.
__device__ __forceinline__ ACC subtrahend(ACC max) {
    return max == -infinity() ? ACC(0) : max;
}

// What a thread has seen of a row.
struct OnlineSoftmax {
    const REAL *logits;
    ACC max, total;

    template <int N>
    __device__ __forceinline__ void columns(int column) {
        Columns<N> x = load_columns<N>(logits + column);
        ACC largest = max;
#pragma unroll
        for (int i = 0; i < N; ++i) largest = maximum(largest, x.values[i]);
        const ACC base = subtrahend(largest);
        total *= exponential(max - base);
#pragma unroll
        for (int i = 0; i < N; ++i) total += exponential(x.values[i] - base);
        max = largest;
    }
};

__device__ __forceinline__ RowSoftmax softmax_of_row(const REAL *logits, const Cut &cut, ACC *scratch) {
    OnlineSoftmax seen = {logits, -infinity(), 0};
    visit_row(cut, seen);
    const ACC max = subtrahend(block_max(seen.max, scratch));
    return {max, block_sum(seen.total * exponential(seen.max - max), scratch)};
}

// Losses and gradients ---------------------------------------------------------------------------------

__device__ __forceinline__ bool is_class(long long label, int width) {
    return label >= 0 && label < width;
}

__device__ __forceinline__ ACC row_loss(const REAL *logits, long long label, RowSoftmax softmax, int width) {
    if (!is_class(label, width)) return nanf("");
    return logarithm(softmax.total) + (softmax.max - widen(logits[label]));
}

struct Gradient {
    const REAL *logits;
    REAL *dlogits;
    RowSoftmax softmax;
    long long label;
    ACC scale;

    template <int N>
    __device__ __forceinline__ void columns(int column) {
        Columns<N> x = load_columns<N>(logits + column);
        Columns<N> dx;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const ACC probability = exponential(x.values[i] - softmax.max) / softmax.total;
            dx.values[i] = (probability - ACC(column + i == label)) * scale;
        }
        store_columns(dlogits + column, dx);
    }
};

struct Zeros {
    REAL *dlogits;

    template <int N>
    __device__ __forceinline__ void columns(int column) {
        store_columns(dlogits + column, zero_columns<N>());
    }
};

__device__ __forceinline__ void write_gradient(const REAL *logits, REAL *dlogits, RowSoftmax softmax,
                                               long long label, ACC scale, const Cut &cut) {
    Gradient gradient = {logits, dlogits, softmax, label, is_class(label, cut.width) ? scale : ACC(nanf(""))};
    visit_row(cut, gradient);
}

__device__ __forceinline__ void write_zeros(REAL *dlogits, const Cut &cut) {
    Zeros zeros = {dlogits};
    visit_row(cut, zeros);
}

// Kernels ----------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(MAX_THREADS)
cross_entropy_weight(const long long *labels, ACC *weight, int rows, long long ignore_index, int is_mean) {
    __shared__ ACC scratch[WARP];
    ACC count = 0;
    for (int row = threadIdx.x; row < rows; row += blockDim.x) count += ACC(labels[row] != ignore_index);
    count = block_sum(count, scratch);
    if (threadIdx.x == 0) weight[0] = is_mean ? 1 / maximum(count, ACC(1)) : ACC(1);
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS)
cross_entropy_forward(const REAL *logits, const long long *labels, ACC *losses, ACC *row_max, ACC *row_total,
                      int width, long long ignore_index) {
    __shared__ ACC scratch[WARP];
    const int row = blockIdx.x;
    const long long label = labels[row];
    if (label == ignore_index) {
        if (threadIdx.x == 0) losses[row] = 0;
        return;
    }
    logits += (long long)row * width;
    const RowSoftmax softmax = softmax_of_row(logits, cut_row(logits, logits, width), scratch);
    if (threadIdx.x == 0) {
        losses[row] = row_loss(logits, label, softmax, width);
        row_max[row] = softmax.max;
        row_total[row] = softmax.total;
    }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS)
cross_entropy_loss(const ACC *losses, const ACC *weight, REAL *loss, int rows) {
    __shared__ ACC scratch[WARP];
    ACC sum = 0;
    for (int row = threadIdx.x; row < rows; row += blockDim.x) sum += losses[row];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) loss[0] = narrow(sum * weight[0]);
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS)
cross_entropy_backward(const REAL *logits, const long long *labels, const ACC *row_max, const ACC *row_total,
                       const ACC *weight, const ACC *dloss, REAL *dlogits, int width, long long ignore_index) {
    const int row = blockIdx.x;
    const long long label = labels[row];
    logits += (long long)row * width;
    dlogits += (long long)row * width;
    const Cut cut = cut_row(logits, dlogits, width);
    if (label == ignore_index) {
        write_zeros(dlogits, cut);
    } else {
        write_gradient(logits, dlogits, {row_max[row], row_total[row]}, label, weight[0] * dloss[0], cut);
    }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS)
cross_entropy_in_place(REAL *logits, const long long *labels, const ACC *weight, ACC *losses, int width,
                       long long ignore_index) {
    __shared__ ACC scratch[WARP];
    const int row = blockIdx.x;
    const long long label = labels[row];
    logits += (long long)row * width;
    const Cut cut = cut_row(logits, logits, width);
    if (label == ignore_index) {
        if (threadIdx.x == 0) losses[row] = 0;
        write_zeros(logits, cut);
        return;
    }
    const RowSoftmax softmax = softmax_of_row(logits, cut, scratch);
    if (threadIdx.x == 0) losses[row] = row_loss(logits, label, softmax, width);
    __syncthreads();  // the label's logit is read by the first thread, and overwritten by its own
    write_gradient(logits, logits, softmax, label, weight[0], cut);
}
