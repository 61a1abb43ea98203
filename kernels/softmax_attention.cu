// Scaled dot-product attention without a (T, T) matrix in memory, forward and backward.
//
//     context = dropout(softmax((q k^T + bias) / sqrt(H))) v
//
// Python reference: npbert/ops/softmax_attention.py. Launched by npbert/cuda/softmax_attention.py.
//
// Forward. A block keeps a tile of queries and walks over the keys in tiles. For each query it carries the
// largest score m so far, the sum l of exp(score - m), and the sum of exp(score - m) v; where a tile brings a
// larger m, both sums are scaled down to it ("online softmax"). At the end, context = sum / l.
//
// Saved: lse = m + log(l) of each row. From it the backward has each probability at once, without knowing its
// neighbours:
//
//     p = exp(score - lse)
//
// Backward, with D_i = sum_h dcontext_ih context_ih, which is sum_j dp_ij p_ij:
//
//     dp = dropout(dcontext v^T)      dscore = p (dp - D) / sqrt(H)
//     dq = dscore k                   by rows: a block keeps queries and walks over the keys
//     dk = dscore^T q                 by columns: a block keeps keys and walks over the queries
//     dv = dropout(p)^T dcontext      by columns
//
// Scores are computed twice in the backward; in return every sum has one owner, so there are no atomics, and
// two runs give the same bits.
//
// Arguments. Rows are (tokens, N, H), all texts one after the other (see sequences.cuh); H is HEAD_WIDTH.
//
//     name              shape                           what
//     q, dq             (query_rows, N, H)  REAL        queries
//     k, v, dk, dv      (key rows, N, H)    REAL        keys, values
//     context, dcontext (query_rows, N, H)  REAL
//     query_starts      (B + 1,)            int         null: padded texts of max_queries rows
//     key_starts        (B + 1,)            int         null: padded texts of max_keys rows
//     bias, dbias       (B, N, max_queries, max_keys) REAL, may be null; pairs outside a text stay untouched
//     key_mask          (key rows,)         bytes       0: nobody looks at this key; may be null
//     keep_mask         (B, N, max_queries, max_keys) bytes, 0: dropped; may be null
//     seed, layer, site, threshold                      dropout drawn here (philox.cuh); threshold 0: none
//     survivor_scale    ACC                             1 / (1 - rate)
//     scale             ACC                             1 / sqrt(H)
//     lse, dots         (N, query_rows)     ACC         log-sum-exp (+inf: no key to look at), D
//
// Row arrays begin at a multiple of 16 bytes.
//
// Launch: blocks of 64 threads along x. The forward and the backward by queries take one block for each tile
// of FORWARD_ROWS (BACKWARD_ROWS) rows of max_queries, head and text; the backward by keys likewise for
// max_keys; the dots take one for each 8 rows of (query_rows * N). No dynamic shared memory; static: about
// 40 KB, which the tile sizes are chosen for.
//
// Compiled with -D: REAL, ACC (number.cuh), HEAD_WIDTH (a multiple of 8), and the tile sizes FORWARD_ROWS,
// FORWARD_COLUMNS, BACKWARD_ROWS, BACKWARD_COLUMNS (multiples of 8). One block a multiprocessor is declared as
// enough: else ptxas aims at an occupancy that shared memory rules out, and spills registers for it.
//
// A key that is masked, or that would lie behind the end of its text in a tile that is not full, scores -inf:
// its probability is 0. It is not even read, so that nothing in its place can do harm.
#include "number.cuh"
#include "philox.cuh"
#include "sequences.cuh"

// The threads of a block are 8 groups of 8 lanes. A thread owns the rows group, group + 8, ... of a matrix,
// and of these the columns lane, lane + 8, ...; so the lanes of a group share rows, and are in one warp.
constexpr int LANES = 8;
constexpr int GROUPS = 8;
constexpr int THREADS = LANES * GROUPS;
constexpr unsigned int WHOLE_WARP = 0xffffffff;

constexpr int CHUNK = 16 / sizeof(ACC);    // numbers that one access of shared memory moves
constexpr int PITCH = HEAD_WIDTH + CHUNK;  // of a row in shared memory: eight rows begin in eight other banks

// Of the H columns of a row of context, dq, dk or dv, each lane owns H / 8, in spans as wide as divides that.
constexpr int LANE_WIDTH = HEAD_WIDTH / LANES;
constexpr int SPAN = LANE_WIDTH % CHUNK == 0 ? CHUNK : LANE_WIDTH % 2 == 0 ? 2 : 1;

__device__ __forceinline__ int lane() { return threadIdx.x % LANES; }
__device__ __forceinline__ int group() { return threadIdx.x / LANES; }

// The `which`-th of this thread's rows of a tile, columns of a tile, columns of a row of width H.
__device__ __forceinline__ int row_of(int which) { return group() + which * GROUPS; }
__device__ __forceinline__ int column_of(int which) { return lane() + which * LANES; }
__device__ __forceinline__ int feature_of(int which) {
    return (which / SPAN * LANES + lane()) * SPAN + which % SPAN;
}

// --- between global memory and tiles ---------------------------------------------------------------------

// The rows of one head of one text.
struct Head {
    Text text;
    int head, heads;
};

__device__ __forceinline__ long long element_of(Head x, int row, int feature) {
    return ((long long)(x.text.first + row) * x.heads + x.head) * HEAD_WIDTH + feature;
}

__device__ __forceinline__ bool is_open(Text keys, const unsigned char *key_mask, int key) {
    return key < keys.count && (key_mask == nullptr || key_mask[keys.first + key]);
}

// Rows that are not there, and those of masked keys, become zeros.
template <int ROWS>
__device__ __forceinline__ void load_rows(
    ACC (*tile)[PITCH], const REAL *x, Head from, int first, const unsigned char *key_mask) {
    constexpr int PACKS = HEAD_WIDTH / PACK;  // in a row
#pragma unroll 4
    for (int i = threadIdx.x; i < ROWS * PACKS; i += THREADS) {
        int row = i / PACKS, feature = i % PACKS * PACK;
        Pack pack = {};
        if (is_open(from.text, key_mask, first + row))
            pack = load_pack(x + element_of(from, first + row, feature));
#pragma unroll
        for (int e = 0; e < PACK; ++e) tile[row][feature + e] = widen(pack.values[e]);
    }
}

template <int ROWS>
__device__ __forceinline__ void store_rows(REAL *x, Head to, int first, const ACC (*tile)[PITCH]) {
    constexpr int PACKS = HEAD_WIDTH / PACK;
#pragma unroll 4
    for (int i = threadIdx.x; i < ROWS * PACKS; i += THREADS) {
        int row = i / PACKS, feature = i % PACKS * PACK;
        if (first + row >= to.text.count) break;
        Pack pack;
#pragma unroll
        for (int e = 0; e < PACK; ++e) pack.values[e] = narrow(tile[row][feature + e]);
        store_pack(x + element_of(to, first + row, feature), pack);
    }
}

// --- dropout ---------------------------------------------------------------------------------------------

struct Dropout {
    const unsigned char *keep_mask;  // null: draw
    unsigned long long seed;
    unsigned int layer, site, threshold;
};

__device__ __forceinline__ bool drops(Dropout dropout) {
    return dropout.keep_mask != nullptr || dropout.threshold != 0;
}

// Which pairs of a tile survive: read, or drawn, four neighbours at a time.
template <int QUERIES, int KEYS>
__device__ __forceinline__ void fill_kept(
    unsigned char (*kept)[KEYS], Dropout dropout, Pairs pairs, Text queries, Text keys, int first_query,
    int first_key) {
    if (dropout.keep_mask != nullptr) {
        for (int i = threadIdx.x; i < QUERIES * KEYS; i += THREADS) {
            int query = first_query + i / KEYS, key = first_key + i % KEYS;
            bool is_pair = query < queries.count && key < keys.count;
            kept[i / KEYS][i % KEYS] = is_pair ? dropout.keep_mask[pair_index(pairs, query, key)] : 0;
        }
        return;
    }
    // A row of the tile may begin in the middle of four words, and then takes part of one more draw.
    constexpr int DRAWS = KEYS / 4 + 1;
    for (int i = threadIdx.x; i < QUERIES * DRAWS; i += THREADS) {
        int row = i / DRAWS;
        unsigned long long index = pair_index(pairs, first_query + row, first_key);
        unsigned long long block = index / 4 + i % DRAWS;
        PhiloxWords words = dropout_words(block, dropout.seed, dropout.layer, dropout.site);
        int column = (int)(block * 4 - index);  // of the first word; negative where the row begins later
#pragma unroll
        for (int w = 0; w < 4; ++w)
            if (0 <= column + w && column + w < KEYS)
                kept[row][column + w] = word_of(words, w) >= dropout.threshold;
    }
}

// --- matrix products of tiles ----------------------------------------------------------------------------

// products = rows columns^T: each thread's part of the dot products of two tiles' rows.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void multiply(
    ACC (&products)[ROWS][COLUMNS], const ACC (*rows)[PITCH], const ACC (*columns)[PITCH]) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) products[r][c] = 0;
#pragma unroll 2
    for (int h = 0; h < HEAD_WIDTH; h += CHUNK) {
        ACC row[ROWS][CHUNK], column[COLUMNS][CHUNK];
#pragma unroll
        for (int e = 0; e < CHUNK; ++e) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r) row[r][e] = rows[row_of(r)][h + e];
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) column[c][e] = columns[column_of(c)][h + e];
        }
#pragma unroll
        for (int e = 0; e < CHUNK; ++e)
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c) products[r][c] += row[r][e] * column[c][e];
    }
}

// sums += weights rows: each thread's part of the weighted sums of a tile's rows.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void add_weighted(
    ACC (&sums)[ROWS][LANE_WIDTH], const ACC (*weights)[COLUMNS + CHUNK], const ACC (*rows)[PITCH]) {
#pragma unroll 2
    for (int c = 0; c < COLUMNS; c += CHUNK) {
        ACC weight[ROWS][CHUNK];
#pragma unroll
        for (int e = 0; e < CHUNK; ++e)
#pragma unroll
            for (int r = 0; r < ROWS; ++r) weight[r][e] = weights[row_of(r)][c + e];
#pragma unroll
        for (int e = 0; e < CHUNK; ++e)
#pragma unroll
            for (int f = 0; f < LANE_WIDTH; ++f) {
                ACC value = rows[c + e][feature_of(f)];
#pragma unroll
                for (int r = 0; r < ROWS; ++r) sums[r][f] += weight[r][e] * value;
            }
    }
}

template <int ROWS>
__device__ __forceinline__ void set_to_zero(ACC (&sums)[ROWS][LANE_WIDTH]) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int f = 0; f < LANE_WIDTH; ++f) sums[r][f] = 0;
}

// Each thread's sums into a tile, from where they are stored in vectors.
template <int ROWS>
__device__ __forceinline__ void put_sums(ACC (*tile)[PITCH], const ACC (&sums)[ROWS][LANE_WIDTH]) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int f = 0; f < LANE_WIDTH; ++f) tile[row_of(r)][feature_of(f)] = sums[r][f];
}

// --- softmax ---------------------------------------------------------------------------------------------

__device__ __forceinline__ ACC sum_of_lanes(ACC x) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(WHOLE_WARP, x, distance);
    return x;
}

__device__ __forceinline__ ACC maximum_of_lanes(ACC x) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        x = maximum(x, __shfl_xor_sync(WHOLE_WARP, x, distance));
    return x;
}

// What a dot product goes through to become a score.
struct Scoring {
    const REAL *bias;
    ACC scale;
    Pairs pairs;
    int queries;  // of this text
};

__device__ __forceinline__ ACC score(Scoring scoring, ACC product, int query, int key, bool is_open) {
    if (!is_open) return -infinity();
    if (scoring.bias != nullptr && query < scoring.queries)
        product += widen(scoring.bias[pair_index(scoring.pairs, query, key)]);
    return product * scoring.scale;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) softmax_attention_forward(
    const REAL *q, const REAL *k, const REAL *v, const int *query_starts, const int *key_starts, int heads,
    int max_queries, int max_keys, int query_rows, ACC scale, const REAL *bias, const unsigned char *key_mask,
    const unsigned char *keep_mask, unsigned long long seed, unsigned int layer, unsigned int site,
    unsigned int threshold, ACC survivor_scale, REAL *context, ACC *lse) {
    constexpr int ROWS = FORWARD_ROWS / GROUPS, COLUMNS = FORWARD_COLUMNS / LANES;
    __shared__ __align__(16) ACC query_tile[FORWARD_ROWS][PITCH];
    __shared__ __align__(16) ACC key_tile[FORWARD_COLUMNS][PITCH];
    __shared__ __align__(16) ACC value_tile[FORWARD_COLUMNS][PITCH];
    __shared__ __align__(16) ACC weights[FORWARD_ROWS][FORWARD_COLUMNS + CHUNK];
    __shared__ unsigned char kept[FORWARD_ROWS][FORWARD_COLUMNS];
    __shared__ unsigned char open[FORWARD_COLUMNS];

    Place place = place_of_block(blockIdx.x, heads, max_queries, FORWARD_ROWS);
    Head queries = {text_rows(query_starts, place.text, max_queries), place.head, heads};
    Head keys = {text_rows(key_starts, place.text, max_keys), place.head, heads};
    if (place.first >= queries.text.count) return;
    Pairs pairs = pairs_of(place, heads, max_queries, max_keys);
    Scoring scoring = {bias, scale, pairs, queries.text.count};
    Dropout dropout = {keep_mask, seed, layer, site, threshold};

    ACC sums[ROWS][LANE_WIDTH];  // of exp(score - maximum) v, of the survivors
    ACC maxima[ROWS];            // of the scores so far
    ACC totals[ROWS];            // of exp(score - maximum), of this lane's columns
    set_to_zero(sums);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        maxima[r] = -infinity();
        totals[r] = 0;
    }
    load_rows<FORWARD_ROWS>(query_tile, q, queries, place.first, nullptr);
    for (int first_key = 0; first_key < keys.text.count; first_key += FORWARD_COLUMNS) {
        __syncthreads();  // every thread has read the tiles of the last round
        load_rows<FORWARD_COLUMNS>(key_tile, k, keys, first_key, key_mask);
        load_rows<FORWARD_COLUMNS>(value_tile, v, keys, first_key, key_mask);
        if (threadIdx.x < FORWARD_COLUMNS)
            open[threadIdx.x] = is_open(keys.text, key_mask, first_key + threadIdx.x);
        if (drops(dropout))
            fill_kept<FORWARD_ROWS, FORWARD_COLUMNS>(
                kept, dropout, pairs, queries.text, keys.text, place.first, first_key);
        __syncthreads();  // the tiles are complete

        ACC scores[ROWS][COLUMNS];
        multiply(scores, query_tile, key_tile);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            ACC largest = maxima[r];
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                scores[r][c] = score(scoring, scores[r][c], place.first + row_of(r), first_key + column_of(c),
                                     open[column_of(c)]);
                largest = maximum(largest, scores[r][c]);
            }
            largest = maximum_of_lanes(largest);
            // While all scores are -inf there is nothing to scale, and -inf - -inf would be NaN.
            ACC reference = largest == -infinity() ? 0 : largest;
            ACC rescale = exponential(maxima[r] - reference);
            maxima[r] = largest;
            totals[r] *= rescale;
#pragma unroll
            for (int f = 0; f < LANE_WIDTH; ++f) sums[r][f] *= rescale;
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                ACC weight = exponential(scores[r][c] - reference);
                bool survives = !drops(dropout) || kept[row_of(r)][column_of(c)];
                totals[r] += weight;  // of the dropped ones too: dropout comes after softmax
                weights[row_of(r)][column_of(c)] = survives ? weight : 0;
            }
        }
        __syncwarp(WHOLE_WARP);  // the lanes of a group have written the rows that they read
        add_weighted<ROWS, FORWARD_COLUMNS>(sums, weights, value_tile);
    }

#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        ACC total = sum_of_lanes(totals[r]);
        ACC normalise = total == 0 ? 0 : survivor_scale / total;
#pragma unroll
        for (int f = 0; f < LANE_WIDTH; ++f) sums[r][f] *= normalise;
        int query = place.first + row_of(r);
        if (lane() == 0 && query < queries.text.count)
            lse[(long long)place.head * query_rows + queries.text.first + query] =
                total == 0 ? infinity() : maxima[r] + logarithm(total);
    }
    __syncthreads();  // nobody reads or loads queries any more
    put_sums(query_tile, sums);
    __syncthreads();  // rows are complete
    store_rows<FORWARD_ROWS>(context, queries, place.first, query_tile);
}

// dots = D: the sum over h of dcontext * context, a group of lanes for each row of (query_rows * N).
extern "C" __global__ void __launch_bounds__(THREADS, 1) softmax_attention_backward_dots(
    const REAL *dcontext, const REAL *context, int heads, int query_rows, ACC *dots) {
    long long row = (long long)blockIdx.x * GROUPS + group();
    bool is_row = row < (long long)query_rows * heads;
    ACC dot = 0;
    if (is_row) {
        for (int feature = lane() * PACK; feature < HEAD_WIDTH; feature += LANES * PACK) {
            Pack one = load_pack(dcontext + row * HEAD_WIDTH + feature);
            Pack other = load_pack(context + row * HEAD_WIDTH + feature);
#pragma unroll
            for (int e = 0; e < PACK; ++e) dot += widen(one.values[e]) * widen(other.values[e]);
        }
    }
    dot = sum_of_lanes(dot);
    if (is_row && lane() == 0) dots[row % heads * query_rows + row / heads] = dot;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) softmax_attention_backward_queries(
    const REAL *dcontext, const REAL *q, const REAL *k, const REAL *v, const int *query_starts,
    const int *key_starts, int heads, int max_queries, int max_keys, int query_rows, ACC scale,
    const REAL *bias, const unsigned char *key_mask, const unsigned char *keep_mask, unsigned long long seed,
    unsigned int layer, unsigned int site, unsigned int threshold, ACC survivor_scale, const ACC *lse,
    const ACC *dots, REAL *dq,
    REAL *dbias) {
    constexpr int ROWS = BACKWARD_ROWS / GROUPS, COLUMNS = BACKWARD_COLUMNS / LANES;
    __shared__ __align__(16) ACC query_tile[BACKWARD_ROWS][PITCH];
    __shared__ __align__(16) ACC dcontext_tile[BACKWARD_ROWS][PITCH];
    __shared__ __align__(16) ACC key_tile[BACKWARD_COLUMNS][PITCH];
    __shared__ __align__(16) ACC value_tile[BACKWARD_COLUMNS][PITCH];
    __shared__ __align__(16) ACC dscores[BACKWARD_ROWS][BACKWARD_COLUMNS + CHUNK];
    __shared__ unsigned char kept[BACKWARD_ROWS][BACKWARD_COLUMNS];
    __shared__ unsigned char open[BACKWARD_COLUMNS];

    Place place = place_of_block(blockIdx.x, heads, max_queries, BACKWARD_ROWS);
    Head queries = {text_rows(query_starts, place.text, max_queries), place.head, heads};
    Head keys = {text_rows(key_starts, place.text, max_keys), place.head, heads};
    if (place.first >= queries.text.count) return;
    Pairs pairs = pairs_of(place, heads, max_queries, max_keys);
    Scoring scoring = {bias, scale, pairs, queries.text.count};
    Dropout dropout = {keep_mask, seed, layer, site, threshold};

    ACC sums[ROWS][LANE_WIDTH];  // dq
    ACC row_lse[ROWS], row_dots[ROWS];
    set_to_zero(sums);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        int query = place.first + row_of(r);
        bool is_query = query < queries.text.count;
        long long row = (long long)place.head * query_rows + queries.text.first + query;
        row_lse[r] = is_query ? lse[row] : infinity();  // exp(score - inf) = 0: a row that is not there
        row_dots[r] = is_query ? dots[row] : 0;
    }
    load_rows<BACKWARD_ROWS>(query_tile, q, queries, place.first, nullptr);
    load_rows<BACKWARD_ROWS>(dcontext_tile, dcontext, queries, place.first, nullptr);
    for (int first_key = 0; first_key < keys.text.count; first_key += BACKWARD_COLUMNS) {
        __syncthreads();  // every thread has read the tiles of the last round
        load_rows<BACKWARD_COLUMNS>(key_tile, k, keys, first_key, key_mask);
        load_rows<BACKWARD_COLUMNS>(value_tile, v, keys, first_key, key_mask);
        if (threadIdx.x < BACKWARD_COLUMNS)
            open[threadIdx.x] = is_open(keys.text, key_mask, first_key + threadIdx.x);
        if (drops(dropout))
            fill_kept<BACKWARD_ROWS, BACKWARD_COLUMNS>(
                kept, dropout, pairs, queries.text, keys.text, place.first, first_key);
        __syncthreads();  // the tiles are complete

        ACC products[ROWS][COLUMNS], dprobs[ROWS][COLUMNS];
        multiply(products, query_tile, key_tile);
        multiply(dprobs, dcontext_tile, value_tile);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                int query = place.first + row_of(r), key = first_key + column_of(c);
                ACC finished = score(scoring, products[r][c], query, key, open[column_of(c)]);
                ACC prob = exponential(finished - row_lse[r]);
                bool survives = !drops(dropout) || kept[row_of(r)][column_of(c)];
                ACC dprob = survives ? dprobs[r][c] * survivor_scale : 0;
                ACC dscore = prob * (dprob - row_dots[r]) * scale;
                dscores[row_of(r)][column_of(c)] = dscore;
                if (dbias != nullptr && query < queries.text.count && key < keys.text.count)
                    dbias[pair_index(pairs, query, key)] = narrow(dscore);
            }
        __syncwarp(WHOLE_WARP);  // the lanes of a group have written the rows that they read
        add_weighted<ROWS, BACKWARD_COLUMNS>(sums, dscores, key_tile);
    }
    __syncthreads();  // nobody reads or loads queries any more
    put_sums(query_tile, sums);
    __syncthreads();  // rows are complete
    store_rows<BACKWARD_ROWS>(dq, queries, place.first, query_tile);
}

// Rows are keys here, and columns are queries.
extern "C" __global__ void __launch_bounds__(THREADS, 1) softmax_attention_backward_keys(
    const REAL *dcontext, const REAL *q, const REAL *k, const REAL *v, const int *query_starts,
    const int *key_starts, int heads, int max_queries, int max_keys, int query_rows, ACC scale,
    const REAL *bias, const unsigned char *key_mask, const unsigned char *keep_mask, unsigned long long seed,
    unsigned int layer, unsigned int site, unsigned int threshold, ACC survivor_scale, const ACC *lse,
    const ACC *dots, REAL *dk,
    REAL *dv) {
    constexpr int ROWS = BACKWARD_ROWS / GROUPS, COLUMNS = BACKWARD_COLUMNS / LANES;
    __shared__ __align__(16) ACC key_tile[BACKWARD_ROWS][PITCH];
    __shared__ __align__(16) ACC value_tile[BACKWARD_ROWS][PITCH];
    __shared__ __align__(16) ACC query_tile[BACKWARD_COLUMNS][PITCH];
    __shared__ __align__(16) ACC dcontext_tile[BACKWARD_COLUMNS][PITCH];
    __shared__ __align__(16) ACC probs[BACKWARD_ROWS][BACKWARD_COLUMNS + CHUNK];
    __shared__ __align__(16) ACC dscores[BACKWARD_ROWS][BACKWARD_COLUMNS + CHUNK];
    __shared__ ACC column_lse[BACKWARD_COLUMNS];
    __shared__ ACC column_dots[BACKWARD_COLUMNS];
    __shared__ unsigned char kept[BACKWARD_COLUMNS][BACKWARD_ROWS];

    Place place = place_of_block(blockIdx.x, heads, max_keys, BACKWARD_ROWS);
    Head queries = {text_rows(query_starts, place.text, max_queries), place.head, heads};
    Head keys = {text_rows(key_starts, place.text, max_keys), place.head, heads};
    if (place.first >= keys.text.count) return;
    Pairs pairs = pairs_of(place, heads, max_queries, max_keys);
    Scoring scoring = {bias, scale, pairs, queries.text.count};
    Dropout dropout = {keep_mask, seed, layer, site, threshold};

    ACC dkey[ROWS][LANE_WIDTH], dvalue[ROWS][LANE_WIDTH];
    bool open[ROWS];
    set_to_zero(dkey);
    set_to_zero(dvalue);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) open[r] = is_open(keys.text, key_mask, place.first + row_of(r));
    load_rows<BACKWARD_ROWS>(key_tile, k, keys, place.first, key_mask);
    load_rows<BACKWARD_ROWS>(value_tile, v, keys, place.first, key_mask);
    for (int first_query = 0; first_query < queries.text.count; first_query += BACKWARD_COLUMNS) {
        __syncthreads();  // every thread has read the tiles of the last round
        load_rows<BACKWARD_COLUMNS>(query_tile, q, queries, first_query, nullptr);
        load_rows<BACKWARD_COLUMNS>(dcontext_tile, dcontext, queries, first_query, nullptr);
        if (threadIdx.x < BACKWARD_COLUMNS) {
            int query = first_query + threadIdx.x;
            bool is_query = query < queries.text.count;
            long long row = (long long)place.head * query_rows + queries.text.first + query;
            column_lse[threadIdx.x] = is_query ? lse[row] : infinity();  // a query that is not there: p = 0
            column_dots[threadIdx.x] = is_query ? dots[row] : 0;
        }
        if (drops(dropout))
            fill_kept<BACKWARD_COLUMNS, BACKWARD_ROWS>(
                kept, dropout, pairs, queries.text, keys.text, first_query, place.first);
        __syncthreads();  // the tiles are complete

        ACC products[ROWS][COLUMNS], dprobs[ROWS][COLUMNS];
        multiply(products, key_tile, query_tile);
        multiply(dprobs, value_tile, dcontext_tile);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                int query = first_query + column_of(c), key = place.first + row_of(r);
                ACC finished = score(scoring, products[r][c], query, key, open[r]);
                ACC prob = exponential(finished - column_lse[column_of(c)]);
                bool survives = !drops(dropout) || kept[column_of(c)][row_of(r)];
                ACC dprob = survives ? dprobs[r][c] * survivor_scale : 0;
                probs[row_of(r)][column_of(c)] = survives ? prob * survivor_scale : 0;
                dscores[row_of(r)][column_of(c)] = prob * (dprob - column_dots[column_of(c)]) * scale;
            }
        __syncwarp(WHOLE_WARP);  // the lanes of a group have written the rows that they read
        add_weighted<ROWS, BACKWARD_COLUMNS>(dkey, dscores, query_tile);
        add_weighted<ROWS, BACKWARD_COLUMNS>(dvalue, probs, dcontext_tile);
    }
    __syncthreads();  // nobody reads or loads keys and values any more
    put_sums(key_tile, dkey);
    put_sums(value_tile, dvalue);
    __syncthreads();  // rows are complete
    store_rows<BACKWARD_ROWS>(dk, keys, place.first, key_tile);
    store_rows<BACKWARD_ROWS>(dv, keys, place.first, value_tile);
}
