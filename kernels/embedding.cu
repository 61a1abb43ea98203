// Embedding: word + position + token type, gathered from three tables and summed; and the way back, where each
// row of a table gets the sum of the gradients of all places that it was read at.
//
//     forward    y[r]  = word[input_ids[r]] + token_type[token_type_ids[r]] + position[position_ids[r]]
//     backward   dE[v] = sum of dy[r] over all r with ids[r] = v                  for each of the three tables
//
// Python reference: npbert/ops/embedding.py. Launcher: npbert/cuda/embedding.py.
//
// argument                shape              dtype      layout, meaning
// ----------------------  -----------------  ---------  ------------------------------------------------------
// word_vectors            (V, D)             REAL       row-major, as all are; (R, D) where input_ids is null
// position_embeddings     (P, D)             REAL       null: no position table
// token_type_embeddings   (S, D)             REAL
// input_ids               (R,)               long long  R = B * T tokens; null: row r is word_vectors[r]
// position_ids            (R,)               long long
// token_type_ids          (R,)               long long
// y, dy                   (R, D)             REAL
// ids                     (R,)               long long  those of one table
// order                   (R,)               long long  the places r, sorted by ids[r]; equal ids by place
// starts                  (rows + 1,)        long long  row v was read at order[starts[v]] to order[starts[v+1] - 1]
// partial                 (chunks, D)        ACC        chunks = ceil(R / chunk)
// dtable                  (rows, D)          REAL       every row is written
// padding_idx             scalar             int        the row that gets no gradient; -1: none
//
// Launch: block (32, W), W warps; a warp works on a row. Grid: x has ceil(R / W) blocks for embedding_forward,
// ceil(chunks / W) for embedding_chunk_sums, ceil(rows / W) for embedding_table_gradient, which needs the former's
// result; y any number, among which the columns are dealt out. No shared memory.
//
// Deterministic without atomics: the places of an id are added in their order. The ids of a batch are unevenly
// spread: of two token types one has nearly all tokens. So the sorted places are cut into chunks of fixed
// length. Where an id goes on into another chunk, a warp sums that chunk's part of it (embedding_chunk_sums), and the
// row's own warp adds those partial sums, in order, to what it read itself (embedding_table_gradient). With a
// length near sqrt(R) no warp has more than about sqrt(R) rows to add. dy is read once a table.
//
// An id outside its table reads nothing: the row of y is NaN, and the gradient is nobody's. Checking ids on the
// host would mean to wait for the device; npbert.inputs checks those that a user passes.
//
// Saved for the way back: the ids. Variants: none.
#include "columns.cuh"

__device__ __forceinline__ int warp_row() {
    return blockIdx.x * blockDim.y + threadIdx.y;
}

// Threads of a warp take neighbouring columns; what a loop over columns starts with and steps by.
template <int N>
__device__ __forceinline__ int first_column() {
    return N * (blockIdx.y * blockDim.x + threadIdx.x);
}
template <int N>
__device__ __forceinline__ int column_step() {
    return N * gridDim.y * blockDim.x;
}

// Row `id` of a table, or null.
__device__ __forceinline__ const REAL *table_row(const REAL *table, long long id, int rows, int width) {
    return id >= 0 && id < rows ? table + id * width : nullptr;
}

template <int N>
__device__ __forceinline__ void sum_of_rows(const REAL *word, const REAL *token_type, const REAL *position,
                                            REAL *y, int width) {
    for (int d = first_column<N>(); d < width; d += column_step<N>()) {
        Columns<N> sum = load_columns<N>(word + d);
        add_columns(sum, load_columns<N>(token_type + d));
        if (position != nullptr) add_columns(sum, load_columns<N>(position + d));
        store_columns(y + d, sum);
    }
}

__device__ __forceinline__ void fill_with_nan(REAL *y, int width) {
    for (int d = first_column<1>(); d < width; d += column_step<1>()) y[d] = narrow(nanf(""));
}

extern "C" __global__ void embedding_forward(const REAL *word_vectors, const REAL *position_embeddings,
                                             const REAL *token_type_embeddings, const long long *input_ids,
                                             const long long *position_ids, const long long *token_type_ids,
                                             REAL *y, int tokens, int width, int words, int positions,
                                             int token_types) {
    int r = warp_row();
    if (r >= tokens) return;
    bool has_positions = position_embeddings != nullptr;
    const REAL *word = table_row(word_vectors, input_ids == nullptr ? r : input_ids[r], words, width);
    const REAL *token_type = table_row(token_type_embeddings, token_type_ids[r], token_types, width);
    const REAL *position =
        has_positions ? table_row(position_embeddings, position_ids[r], positions, width) : nullptr;
    REAL *row = y + (long long)r * width;

    if (word == nullptr || token_type == nullptr || (has_positions && position == nullptr))
        fill_with_nan(row, width);
    else if (has_packs(width, word_vectors, position_embeddings, token_type_embeddings, y))
        sum_of_rows<PACK>(word, token_type, position, row, width);
    else
        sum_of_rows<1>(word, token_type, position, row, width);
}

// The sum of the rows of dy at the sorted places first, first + 1, ..., last - 1, from column d on.
template <int N>
__device__ __forceinline__ Columns<N> sum_of_places(const REAL *dy, const long long *order, long long first,
                                                    long long last, int width, int d) {
    Columns<N> sum = zero_columns<N>();
#pragma unroll 4
    for (long long place = first; place < last; ++place)
        add_columns(sum, load_columns<N>(dy + order[place] * width + d));
    return sum;
}

template <int N>
__device__ __forceinline__ void sum_chunk(const REAL *dy, const long long *order, long long first, long long last,
                                          ACC *partial, int width) {
    for (int d = first_column<N>(); d < width; d += column_step<N>())
        store_sums(partial + d, sum_of_places<N>(dy, order, first, last, width, d));
}

// What a chunk has of an id that began in a chunk before it. Where there is none, nothing is written or read.
extern "C" __global__ void embedding_chunk_sums(const REAL *dy, const long long *ids, const long long *order,
                                                const long long *starts, ACC *partial, int tokens, int width,
                                                int rows, int chunk, int padding_idx) {
    long long first = (long long)warp_row() * chunk;
    if (first >= tokens) return;
    long long id = ids[order[first]];
    if (id < 0 || id >= rows || id == padding_idx || starts[id] == first) return;
    long long last = min(starts[id + 1], first + chunk);
    ACC *sums = partial + (long long)warp_row() * width;
    if (has_packs(width, dy, partial))
        sum_chunk<PACK>(dy, order, first, last, sums, width);
    else
        sum_chunk<1>(dy, order, first, last, sums, width);
}

template <int N>
__device__ __forceinline__ void sum_row(const REAL *dy, const long long *order, long long first, long long last,
                                        const ACC *partial, REAL *drow, int width, int chunk) {
    long long next_chunk = first / chunk + 1;
    for (int d = first_column<N>(); d < width; d += column_step<N>()) {
        Columns<N> sum = sum_of_places<N>(dy, order, first, min(last, next_chunk * chunk), width, d);
#pragma unroll 4
        for (long long c = next_chunk; c * chunk < last; ++c)
            add_columns(sum, load_sums<N>(partial + c * width + d));
        store_columns(drow + d, sum);
    }
}

extern "C" __global__ void embedding_table_gradient(const REAL *dy, const long long *order,
                                                    const long long *starts, const ACC *partial, REAL *dtable,
                                                    int width, int rows, int chunk, int padding_idx) {
    int row = warp_row();
    if (row >= rows) return;
    long long first = starts[row];
    long long last = row == padding_idx ? first : starts[row + 1];
    REAL *drow = dtable + (long long)row * width;
    if (has_packs(width, dy, partial, dtable))
        sum_row<PACK>(dy, order, first, last, partial, drow, width, chunk);
    else
        sum_row<1>(dy, order, first, last, partial, drow, width, chunk);
}
