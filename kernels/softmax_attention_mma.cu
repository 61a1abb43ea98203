// Scaled dot-product attention on tensor cores, forward and backward, without a (T, T) matrix in memory.
//
//     context = dropout(softmax(q k^T / sqrt(H))) v
//
// Python reference: npbert/ops/softmax_attention.py. Launched by npbert/cuda/softmax_attention_mma.py. The
// mathematics, and what is saved, are those of softmax_attention.cu, whose header derives them. This is the
// variant for float16 and devices of compute capability 8.0 or later. It takes no bias.
//
// Halves are multiplied and floats summed, by mma.sync m16n8k16 (tensor_core.cuh). Probabilities and dscores
// are rounded to halves for the second product, as in FlashAttention; sums and exponentials are floats.
//
// What a warp keeps. A *strip* is 16 rows: queries, or keys in the backward by keys. A warp keeps its strips
// in registers, as operands of the first product, with the sums that belong to them; nobody else adds to
// those. The columns come by in tiles, through shared memory: the next one is on its way (cp.async) while one
// is worked on. Scores never leave the registers: the elements that a lane holds of two accumulators are just
// those that it must hold of the first operand of the next product.
//
// Shared memory. A row of a tile is HEAD_WIDTH halves and 16 bytes that nobody uses: so it has an odd number
// of 16-byte chunks, and eight rows, which ldmatrix reads at once, begin in eight different groups of banks.
//
// T. Dao, "FlashAttention-2: faster attention with better parallelism and work partitioning", 2023.
//
// Arguments. Rows are (tokens, N, H), all texts one after the other (see sequences.cuh); H is HEAD_WIDTH.
//
//     name              shape                           what
//     q, dq             (query_rows, N, H)  half        queries
//     k, v, dk, dv      (key rows, N, H)    half        keys, values
//     context, dcontext (query_rows, N, H)  half
//     query_starts      (B + 1,)            int         null: padded texts of max_queries rows
//     key_starts        (B + 1,)            int         null: padded texts of max_keys rows
//     key_mask          (key rows,)         bytes       0: nobody looks at this key; may be null
//     keep_mask         (B, N, max_queries, max_keys) bytes, 0: dropped; may be null
//     seed, layer, site, threshold                      dropout drawn here (philox.cuh); threshold 0: none
//     survivor_scale    float                           1 / (1 - rate)
//     scale             float                           1 / sqrt(H)
//     lse, dots         (N, query_rows)     float       log-sum-exp (+inf: no key to look at), D
//
// Row arrays begin at a multiple of 16 bytes.
//
// Launch: blocks of 128 threads. The forward takes one along x for each tile of FORWARD_ROWS rows of
// max_queries, head and text; the backward by queries likewise with BACKWARD_ROWS. That one writes the dots
// that the backward by keys reads, which takes one for each tile of BACKWARD_ROWS rows of max_keys; and two
// along y where heads are wider than 64. Shared memory: static, at most 37 KB.
//
// Compiled with -D: REAL=__half, ACC=float, REAL_IS_HALF (number.cuh), HEAD_WIDTH (a multiple of 16, at most
// 128).
//
// A key that is masked, or that would lie behind the end of its text in a tile that is not full, scores -inf:
// its probability is 0. It is not even read, so that nothing in its place can do harm.
#include "number.cuh"
#include "philox.cuh"
#include "sequences.cuh"
#include "tensor_core.cuh"

constexpr int LANES = 32;
constexpr int WARPS = 4;
constexpr int THREADS = WARPS * LANES;
constexpr unsigned int ALL_LANES = 0xffffffffu;

constexpr int STRIP = 16;               // rows of an accumulator
constexpr int PIECE = 16;               // columns of two accumulators, and the depth of a product
constexpr int STEPS = HEAD_WIDTH / 16;  // mma that a product over the head's width takes
constexpr int CHUNKS = HEAD_WIDTH / 8;  // of a row: a chunk is 8 halves, 16 bytes

// A strip of a wide head takes twice the registers: there is room for half of what else lies there.
constexpr bool IS_WIDE = HEAD_WIDTH > 64;
constexpr int COLUMNS = IS_WIDE ? 32 : 64;       // of a tile
constexpr int FORWARD_STRIPS = IS_WIDE ? 1 : 2;  // of a warp
constexpr int FORWARD_PART = 32;                 // columns of a tile whose scores are held at once
constexpr int BACKWARD_STRIPS = 1;
constexpr int BACKWARD_PART = PIECE;
constexpr int FORWARD_ROWS = WARPS * FORWARD_STRIPS * STRIP;
constexpr int BACKWARD_ROWS = WARPS * BACKWARD_STRIPS * STRIP;

// Blocks that a multiprocessor shall have registers for.
constexpr int FORWARD_BLOCKS = 2;
constexpr int QUERIES_BLOCKS = IS_WIDE ? 2 : 3;
constexpr int KEYS_BLOCKS = 2;

typedef uint4 Chunk;
typedef Chunk TileRow[CHUNKS + 1];

// Shared memory has two stages, each with a tile of either operand. A block's own rows, on their way into the
// registers, lie where the second stage will be or, where that is too small for them, in both.
constexpr int STAGE_ROWS = 2 * COLUMNS;
constexpr int SHARED_ROWS = 2 * STAGE_ROWS;

constexpr float LOG2_E = 1.44269504f;  // exp(x) = exp2(x log2(e))

__device__ __forceinline__ int lane() { return threadIdx.x % LANES; }
// The same for all lanes; from the shuffle the compiler knows that, too.
__device__ __forceinline__ int warp() { return __shfl_sync(ALL_LANES, threadIdx.x / LANES, 0); }

// Of an accumulator of 16 x 8, a lane holds elements 0 to 3: those of rows lane_row() and lane_row() + 8, in
// columns lane_column() and lane_column() + 1 (tensor_core.cuh). The four lanes of a *quad* share rows.
__device__ __forceinline__ int lane_row() { return lane() / 4; }
__device__ __forceinline__ int lane_column() { return lane() % 4 * 2; }
__device__ __forceinline__ int row_of(int element) { return lane_row() + element / 2 * 8; }
__device__ __forceinline__ int column_of(int element) { return lane_column() + element % 2; }

__device__ __forceinline__ float quad_sum(float value) {
    value += __shfl_xor_sync(ALL_LANES, value, 1);
    return value + __shfl_xor_sync(ALL_LANES, value, 2);
}
__device__ __forceinline__ float quad_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 1));
    return fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 2));
}

__device__ __forceinline__ unsigned int to_halves(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<unsigned int *>(&pair);
}
__device__ __forceinline__ float2 to_floats(unsigned int halves) {
    return __half22float2(*reinterpret_cast<__half2 *>(&halves));
}

template <int N>
__device__ __forceinline__ void fill(float (&values)[N], float value) {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = value;
}
template <class Inner, int N>
__device__ __forceinline__ void fill(Inner (&values)[N], float value) {
#pragma unroll
    for (int i = 0; i < N; ++i) fill(values[i], value);
}

// --- between global and shared memory --------------------------------------------------------------------

// The rows of one text and head.
template <class Half>
struct Rows {
    Half *first;
    int stride;
    int count;
    const unsigned char *mask;  // 0: a key that nobody looks at; null: there are none
};

template <class Half>
__device__ __forceinline__ Rows<Half> rows_of(
    Half *array, Text text, int head, int heads, const unsigned char *mask = nullptr) {
    Half *first = array + ((long long)text.first * heads + head) * HEAD_WIDTH;
    return {first, heads * HEAD_WIDTH, text.count, mask};
}

template <class Half>
__device__ __forceinline__ bool is_open(Rows<Half> rows, int row) {
    return row < rows.count && (rows.mask == nullptr || rows.mask[row]);
}

template <class Half>
__device__ __forceinline__ Half *chunk_of(Rows<Half> rows, int row, int chunk) {
    return rows.first + (long long)row * rows.stride + 8 * chunk;
}

// Where threads take one chunk after the other: the row that comes `place`-th. Eight lanes are served at
// once; where they reach into several rows, these are not neighbours, which would share banks.
__device__ __forceinline__ int row_at(int place) {
    constexpr int TOGETHER = CHUNKS < 8 ? 8 / CHUNKS : 1;  // rows that eight lanes reach into
    return place / 8 * 8 + place % TOGETHER * CHUNKS + place % 8 / TOGETHER;
}

// Begin to copy COUNT rows, with all threads of the block. Rows that are not there, or masked, become zeros.
template <int COUNT>
__device__ __forceinline__ void begin_rows(TileRow *tile, Rows<const __half> rows, int first) {
#pragma unroll
    for (int done = 0; done < COUNT * CHUNKS; done += THREADS) {
        int i = done + threadIdx.x, row = row_at(i / CHUNKS), chunk = i % CHUNKS;
        if (COUNT * CHUNKS % THREADS != 0 && row >= COUNT) break;
        copy_async_16(&tile[row][chunk], chunk_of(rows, first + row, chunk), is_open(rows, first + row));
    }
}

// Begin to copy a tile of either operand.
__device__ __forceinline__ void begin_stage(
    TileRow *stage, Rows<const __half> one, Rows<const __half> other, int first) {
    begin_rows<COLUMNS>(stage, one, first);
    begin_rows<COLUMNS>(stage + COLUMNS, other, first);
}

// Begin to copy the log-sum-exp and D of a tile's columns.
__device__ __forceinline__ void begin_statistics(
    float *stage, const float *lse, const float *dots, int first, int count) {
    static_assert(2 * COLUMNS <= THREADS, "a thread copies one number");
    if (threadIdx.x >= 2 * COLUMNS) return;
    int query = first + threadIdx.x % COLUMNS;
    copy_async_4(&stage[threadIdx.x], (threadIdx.x < COLUMNS ? lse : dots) + query, query < count);
}

// Write a warp's sums, times a factor for each row, by way of as many rows of shared memory, all its own.
template <int STRIPS>
__device__ __forceinline__ void store_sums(
    Rows<__half> rows, int first, const float (&sums)[STRIPS][CHUNKS][4], const float (&factors)[STRIPS][2],
    TileRow *scratch) {
#pragma unroll
    for (int s = 0; s < STRIPS; ++s)
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                unsigned int *pairs = reinterpret_cast<unsigned int *>(&scratch[STRIP * s + row_of(e)][c]);
                float factor = factors[s][e / 2];
                pairs[lane_column() / 2] = to_halves(sums[s][c][e] * factor, sums[s][c][e + 1] * factor);
            }
    __syncwarp(ALL_LANES);  // the rows are complete
#pragma unroll
    for (int done = 0; done < STRIPS * STRIP * CHUNKS; done += LANES) {
        int i = done + lane(), row = row_at(i / CHUNKS), chunk = i % CHUNKS;
        if (first + row < rows.count)
            *reinterpret_cast<Chunk *>(chunk_of(rows, first + row, chunk)) = scratch[row][chunk];
    }
}

// --- products --------------------------------------------------------------------------------------------

// A warp's strips as first operands, one for each step along the head's width.
template <int STRIPS>
__device__ __forceinline__ void load_strips(unsigned int (&strips)[STRIPS][STEPS][4], const TileRow *rows) {
#pragma unroll
    for (int s = 0; s < STRIPS; ++s)
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
            load_matrix_x4(strips[s][step], &rows[STRIP * s + lane() % 16][2 * step + lane() / 16]);
}

// products = strips tile^T, with the first 8 ACCUMULATORS rows of the tile.
template <int STRIPS, int ACCUMULATORS>
__device__ __forceinline__ void multiply(
    float (&products)[STRIPS][ACCUMULATORS][4], const unsigned int (&strips)[STRIPS][STEPS][4],
    const TileRow *tile) {
    fill(products, 0);
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
#pragma unroll
        for (int c = 0; c < ACCUMULATORS; c += 2) {
            unsigned int columns[4];
            load_matrix_x4(columns, &tile[8 * c + lane() / 16 * 8 + lane() % 8][2 * step + lane() / 8 % 2]);
#pragma unroll
            for (int s = 0; s < STRIPS; ++s) {
                mma_m16n8k16(products[s][c], strips[s][step], columns);
                mma_m16n8k16(products[s][c + 1], strips[s][step], columns + 2);
            }
        }
}

// Two accumulators side by side, rounded: the first operand of a product.
__device__ __forceinline__ void to_operand(
    unsigned int (&operand)[4], const float (&left)[4], const float (&right)[4]) {
    operand[0] = to_halves(left[0], left[1]);
    operand[1] = to_halves(left[2], left[3]);
    operand[2] = to_halves(right[0], right[1]);
    operand[3] = to_halves(right[2], right[3]);
}

// sums += weights tile, with the first 8 ACCUMULATORS rows of the tile.
template <int STRIPS, int ACCUMULATORS>
__device__ __forceinline__ void add_weighted(
    float (&sums)[STRIPS][CHUNKS][4], const float (&weights)[STRIPS][ACCUMULATORS][4], const TileRow *tile) {
#pragma unroll
    for (int c = 0; c < ACCUMULATORS; c += 2) {
        unsigned int operands[STRIPS][4];
#pragma unroll
        for (int s = 0; s < STRIPS; ++s) to_operand(operands[s], weights[s][c], weights[s][c + 1]);
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            unsigned int values[4];
            load_matrix_x4_transposed(values, &tile[8 * c + lane() % 16][2 * step + lane() / 16]);
#pragma unroll
            for (int s = 0; s < STRIPS; ++s) {
                mma_m16n8k16(sums[s][2 * step], operands[s], values);
                mma_m16n8k16(sums[s][2 * step + 1], operands[s], values + 2);
            }
        }
    }
}

// --- masks -----------------------------------------------------------------------------------------------

// One past the last open key: what lies behind need not even be read.
__device__ __forceinline__ int count_used_keys(int keys, const unsigned char *key_mask) {
    if (key_mask == nullptr) return keys;
    int used = 0;
    for (int key = lane(); key < keys; key += LANES)
        if (key_mask[key]) used = key + 1;
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        used = max(used, __shfl_xor_sync(ALL_LANES, used, distance));
    return used;
}

// Which of the next 32 keys are open: bit c is that of key first_key + c.
__device__ __forceinline__ unsigned int open_columns(Rows<const __half> keys, int first_key) {
    return __ballot_sync(ALL_LANES, is_open(keys, first_key + lane()));
}

__device__ __forceinline__ bool is_open_column(unsigned int open, int accumulator, int element) {
    return open >> lane_column() >> (8 * accumulator + element % 2) & 1;
}

// --- dropout ---------------------------------------------------------------------------------------------

struct Dropout {
    const unsigned char *keep_mask;  // null: draw
    unsigned long long seed;
    unsigned int layer, site, threshold;
    Pairs pairs;
    int queries, keys;  // how many there are
};

__device__ __forceinline__ bool drops(const Dropout &dropout) {
    return dropout.keep_mask != nullptr || dropout.threshold != 0;
}

__device__ __forceinline__ bool survives(const Dropout &dropout, int query, int key) {
    unsigned long long index = pair_index(dropout.pairs, query, key);
    if (dropout.keep_mask != nullptr)
        return query < dropout.queries && key < dropout.keys && dropout.keep_mask[index];
    return keep(index, computed_here(dropout.seed), dropout.layer, dropout.site, dropout.threshold);
}

// Whether rows of pairs begin at multiples of four, so that keys 4 i to 4 i + 3 of a query share a draw.
__device__ __forceinline__ bool draws_by_four(const Dropout &dropout) {
    return dropout.keep_mask == nullptr && dropout.pairs.max_keys % 4 == 0;
}

// Bit i: whether key first_key + i survives; first_key is a multiple of four.
__device__ __forceinline__ unsigned int draw_four(const Dropout &dropout, int query, int first_key) {
    unsigned long long index = pair_index(dropout.pairs, query, first_key);
    PhiloxWords words = dropout_words(index / 4, computed_here(dropout.seed), dropout.layer, dropout.site);
    return (unsigned int)(words.first >= dropout.threshold) |
           (unsigned int)(words.second >= dropout.threshold) << 1 |
           (unsigned int)(words.third >= dropout.threshold) << 2 |
           (unsigned int)(words.fourth >= dropout.threshold) << 3;
}

// Which elements of an accumulator survive, with queries as its rows and keys as columns: bit e is element e.
__device__ __forceinline__ unsigned int survivors_by_queries(
    const Dropout &dropout, int first_query, int first_key) {
    if (draws_by_four(dropout)) {
        // Two neighbouring lanes hold four keys of the same two queries: either draws for one query.
        int is_odd = lane() % 2;
        unsigned int mine =
            draw_four(dropout, first_query + row_of(2 * is_odd), first_key + lane_column() / 4 * 4);
        unsigned int other = __shfl_xor_sync(ALL_LANES, mine, 1);
        unsigned int upper = is_odd ? other : mine, lower = is_odd ? mine : other;
        return (upper >> 2 * is_odd & 3) | (lower >> 2 * is_odd & 3) << 2;
    }
    unsigned int bits = 0;
#pragma unroll 1
    for (int e = 0; e < 4; ++e)
        bits |= (unsigned int)survives(dropout, first_query + row_of(e), first_key + column_of(e)) << e;
    return bits;
}

// The same where rows are keys, and columns queries.
__device__ __forceinline__ unsigned int survivors_by_keys(
    const Dropout &dropout, int first_query, int first_key) {
    if (draws_by_four(dropout)) {
        // Four lanes whose rows are neighbours hold four keys of each element: each draws for one element.
        int place = lane_row() % 4;
        unsigned int mine =
            draw_four(dropout, first_query + column_of(place), first_key + row_of(place) / 4 * 4);
        unsigned int bits = 0;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            int drawer = lane() + 4 * (e - place);
            bits |= (__shfl_sync(ALL_LANES, mine, drawer) >> place & 1) << e;
        }
        return bits;
    }
    unsigned int bits = 0;
#pragma unroll 1
    for (int e = 0; e < 4; ++e)
        bits |= (unsigned int)survives(dropout, first_query + column_of(e), first_key + row_of(e)) << e;
    return bits;
}

// The same of ACCUMULATORS side by side, for each strip: bit 4 c + e is element e of accumulator c.
template <int ACCUMULATORS, int STRIPS>
__device__ __forceinline__ void find_survivors_by_queries(
    unsigned int (&survivors)[STRIPS], const Dropout &dropout, int first_query, int first_key) {
#pragma unroll
    for (int s = 0; s < STRIPS; ++s) {
        survivors[s] = drops(dropout) ? 0 : 0xffffffffu;
        if (!drops(dropout)) continue;
#pragma unroll 1
        for (int c = 0; c < ACCUMULATORS; ++c)
            survivors[s] |= survivors_by_queries(dropout, first_query + STRIP * s, first_key + 8 * c)
                            << 4 * c;
    }
}

template <int ACCUMULATORS, int STRIPS>
__device__ __forceinline__ void find_survivors_by_keys(
    unsigned int (&survivors)[STRIPS], const Dropout &dropout, int first_query, int first_key) {
#pragma unroll
    for (int s = 0; s < STRIPS; ++s) {
        survivors[s] = drops(dropout) ? 0 : 0xffffffffu;
        if (!drops(dropout)) continue;
#pragma unroll 1
        for (int c = 0; c < ACCUMULATORS; ++c)
            survivors[s] |= survivors_by_keys(dropout, first_query + 8 * c, first_key + STRIP * s)
                            << 4 * c;
    }
}

__device__ __forceinline__ bool is_survivor(unsigned int survivors, int accumulator, int element) {
    return survivors >> (4 * accumulator + element) & 1;
}

// --- forward ---------------------------------------------------------------------------------------------

// A step of the online softmax, over columns of which one at least is open. Scores become weights
// exp(score - maximum), or 0 where they are dropped. Where the maximum has grown, all sums so far are scaled
// down to it; where there were none yet, from -inf, by 0.
template <int STRIPS, int ACCUMULATORS>
__device__ __forceinline__ void to_weights(
    float (&scores)[STRIPS][ACCUMULATORS][4], float (&maxima)[STRIPS][2], float (&totals)[STRIPS][2],
    float (&sums)[STRIPS][CHUNKS][4], unsigned int open, const unsigned int (&survivors)[STRIPS],
    float log2_scale) {
#pragma unroll
    for (int s = 0; s < STRIPS; ++s)
#pragma unroll
        for (int first = 0; first < 4; first += 2) {  // of the two elements of a row
            float maximum = maxima[s][first / 2];
#pragma unroll
            for (int c = 0; c < ACCUMULATORS; ++c)
#pragma unroll
                for (int e = first; e < first + 2; ++e) {
                    if (!is_open_column(open, c, e)) scores[s][c][e] = -infinity();
                    maximum = fmaxf(maximum, scores[s][c][e]);
                }
            maximum = quad_max(maximum);  // finite: there is an open column
            float reference = maximum * log2_scale;
            float rescale = exp2f(fmaf(maxima[s][first / 2], log2_scale, -reference));
            maxima[s][first / 2] = maximum;
            totals[s][first / 2] *= rescale;
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
                for (int e = first; e < first + 2; ++e) sums[s][c][e] *= rescale;
#pragma unroll
            for (int c = 0; c < ACCUMULATORS; ++c)
#pragma unroll
                for (int e = first; e < first + 2; ++e) {
                    float weight = exp2f(fmaf(scores[s][c][e], log2_scale, -reference));
                    totals[s][first / 2] += weight;  // of the dropped ones too: dropout comes after softmax
                    scores[s][c][e] = is_survivor(survivors[s], c, e) ? weight : 0;
                }
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS) softmax_attention_mma_forward(
    const __half *q, const __half *k, const __half *v, const int *query_starts, const int *key_starts,
    int heads, int max_queries, int max_keys, int query_rows, float scale, const unsigned char *key_mask,
    const unsigned char *keep_mask, unsigned long long seed, unsigned int layer, unsigned int site,
    unsigned int threshold, float survivor_scale, __half *context, float *lse) {
    constexpr int STRIPS = FORWARD_STRIPS, PART = FORWARD_PART;
    static_assert(FORWARD_ROWS <= STAGE_ROWS, "the queries lie in the second stage");
    __shared__ TileRow tiles[SHARED_ROWS];

    Place place = place_of_block(blockIdx.x, heads, max_queries, FORWARD_ROWS);
    Text query_text = text_rows(query_starts, place.text, max_queries);
    Text key_text = text_rows(key_starts, place.text, max_keys);
    if (place.first >= query_text.count) return;
    Dropout dropout = {keep_mask, seed, layer, site, threshold, pairs_of(place, heads, max_queries, max_keys),
                       query_text.count, key_text.count};
    if (key_mask != nullptr) key_mask += key_text.first;
    key_text.count = count_used_keys(key_text.count, key_mask);
    Rows<const __half> queries = rows_of(q, query_text, place.head, heads);
    Rows<const __half> keys = rows_of(k, key_text, place.head, heads, key_mask);
    Rows<const __half> values = rows_of(v, key_text, place.head, heads, key_mask);
    int own_rows = warp() * STRIPS * STRIP;  // the warp's first row of those of the block
    int first_query = place.first + own_rows;

    begin_rows<FORWARD_ROWS>(tiles + STAGE_ROWS, queries, place.first);
    begin_stage(tiles, keys, values, 0);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();  // the queries are there for all
    unsigned int query_strips[STRIPS][STEPS][4];
    load_strips(query_strips, tiles + STAGE_ROWS + own_rows);

    float sums[STRIPS][CHUNKS][4];  // of exp(score - maximum) v, of the survivors
    float maxima[STRIPS][2];        // of the scores so far, before they are scaled
    float totals[STRIPS][2];        // of exp(score - maximum), of this lane's columns
    fill(sums, 0);
    fill(totals, 0);
    fill(maxima, -infinity());

    int stage = 0;
    for (int first_key = 0; first_key < keys.count; first_key += COLUMNS, stage = 1 - stage) {
        copy_async_wait<0>();
        __syncthreads();  // this tile is there for all, and nobody reads the other stage any more
        if (first_key + COLUMNS < keys.count)
            begin_stage(tiles + (1 - stage) * STAGE_ROWS, keys, values, first_key + COLUMNS);
        copy_async_commit();
        if (first_query >= queries.count) continue;  // the warp has no query

        const TileRow *key_tile = tiles + stage * STAGE_ROWS, *value_tile = key_tile + COLUMNS;
#pragma unroll 1
        for (int part = 0; part < COLUMNS; part += PART) {
            unsigned int open = open_columns(keys, first_key + part);
            if (open == 0) continue;  // scores would all be -inf, and -inf - -inf is NaN
            unsigned int survivors[STRIPS];
            find_survivors_by_queries<PART / 8>(survivors, dropout, first_query, first_key + part);
            float scores[STRIPS][PART / 8][4];
            multiply(scores, query_strips, key_tile + part);
            to_weights(scores, maxima, totals, sums, open, survivors, scale * LOG2_E);
            add_weighted(sums, scores, value_tile + part);
        }
    }

    float normalise[STRIPS][2];
#pragma unroll
    for (int s = 0; s < STRIPS; ++s)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            float total = quad_sum(totals[s][e / 2]);
            normalise[s][e / 2] = total == 0 ? 0 : survivor_scale / total;
            int query = first_query + STRIP * s + row_of(e);
            if (lane_column() == 0 && query < queries.count)
                lse[(long long)place.head * query_rows + query_text.first + query] =
                    total == 0 ? infinity() : maxima[s][e / 2] * scale + logf(total);
        }
    __syncthreads();  // nobody reads the tiles any more
    store_sums(rows_of(context, query_text, place.head, heads), first_query, sums, normalise,
               tiles + own_rows);
}

// --- backward --------------------------------------------------------------------------------------------

// Load a block's rows of both operands into registers, by way of shared memory, and begin the first stage of
// columns: at the same time, if the rows do not lie in its place.
template <int STRIPS>
__device__ __forceinline__ void load_rows_and_begin(
    unsigned int (&one)[STRIPS][STEPS][4], unsigned int (&other)[STRIPS][STEPS][4], TileRow *tiles,
    Rows<const __half> one_rows, Rows<const __half> other_rows, int first_row,
    Rows<const __half> one_columns, Rows<const __half> other_columns) {
    constexpr int ROWS = WARPS * STRIPS * STRIP;
    static_assert(2 * ROWS <= SHARED_ROWS, "the rows lie in both stages");
    constexpr bool IS_BESIDE = 2 * ROWS <= STAGE_ROWS;
    TileRow *rows = tiles + SHARED_ROWS - 2 * ROWS;
    int own_rows = warp() * STRIPS * STRIP;
    begin_rows<ROWS>(rows, one_rows, first_row);
    begin_rows<ROWS>(rows + ROWS, other_rows, first_row);
    if (IS_BESIDE) begin_stage(tiles, one_columns, other_columns, 0);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();  // the rows are there for all
    load_strips(one, rows + own_rows);
    load_strips(other, rows + ROWS + own_rows);
    if (!IS_BESIDE) {
        __syncthreads();  // everyone has loaded them
        begin_stage(tiles, one_columns, other_columns, 0);
        copy_async_commit();
    }
}

// D of a query, for each lane of a quad: the sum of dcontext * context over the row.
__device__ __forceinline__ float row_dot(Rows<const __half> dcontexts, Rows<const __half> contexts, int row) {
    float dot = 0;
    if (row < contexts.count)
        for (int c = lane() % 4; c < CHUNKS; c += 4) {
            Chunk one = *reinterpret_cast<const Chunk *>(chunk_of(dcontexts, row, c));
            Chunk other = *reinterpret_cast<const Chunk *>(chunk_of(contexts, row, c));
            const unsigned int ones[4] = {one.x, one.y, one.z, one.w};
            const unsigned int others[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float2 a = to_floats(ones[i]), b = to_floats(others[i]);
                dot = fmaf(a.x, b.x, fmaf(a.y, b.y, dot));
            }
        }
    return quad_sum(dot);
}

// exp(product * scale - lse)
__device__ __forceinline__ float probability(float product, float scale, float lse) {
    return exp2f(fmaf(product, scale * LOG2_E, -lse * LOG2_E));
}

extern "C" __global__ void __launch_bounds__(THREADS, QUERIES_BLOCKS) softmax_attention_mma_backward_queries(
    const __half *dcontext, const __half *q, const __half *k, const __half *v, const __half *context,
    const int *query_starts, const int *key_starts, int heads, int max_queries, int max_keys, int query_rows,
    float scale, const unsigned char *key_mask, const unsigned char *keep_mask, unsigned long long seed,
    unsigned int layer, unsigned int site, unsigned int threshold, float survivor_scale, const float *lse,
    __half *dq, float *dots) {
    constexpr int STRIPS = BACKWARD_STRIPS, PART = BACKWARD_PART;
    __shared__ TileRow tiles[SHARED_ROWS];

    Place place = place_of_block(blockIdx.x, heads, max_queries, BACKWARD_ROWS);
    Text query_text = text_rows(query_starts, place.text, max_queries);
    Text key_text = text_rows(key_starts, place.text, max_keys);
    if (place.first >= query_text.count) return;
    Dropout dropout = {keep_mask, seed, layer, site, threshold, pairs_of(place, heads, max_queries, max_keys),
                       query_text.count, key_text.count};
    if (key_mask != nullptr) key_mask += key_text.first;
    key_text.count = count_used_keys(key_text.count, key_mask);
    Rows<const __half> queries = rows_of(q, query_text, place.head, heads);
    Rows<const __half> contexts = rows_of(context, query_text, place.head, heads);
    Rows<const __half> dcontexts = rows_of(dcontext, query_text, place.head, heads);
    Rows<const __half> keys = rows_of(k, key_text, place.head, heads, key_mask);
    Rows<const __half> values = rows_of(v, key_text, place.head, heads, key_mask);
    int own_rows = warp() * STRIPS * STRIP;  // the warp's first row of those of the block
    int first_query = place.first + own_rows;

    float row_lse[STRIPS][2], row_dots[STRIPS][2];
#pragma unroll
    for (int s = 0; s < STRIPS; ++s)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            int query = first_query + STRIP * s + row_of(e);
            long long row = (long long)place.head * query_rows + query_text.first + query;
            // exp(score - inf) = 0: a row that is not there
            row_lse[s][e / 2] = query < queries.count ? lse[row] : infinity();
            row_dots[s][e / 2] = row_dot(dcontexts, contexts, query);
            if (lane_column() == 0 && query < queries.count) dots[row] = row_dots[s][e / 2];
        }
    unsigned int query_strips[STRIPS][STEPS][4], dcontext_strips[STRIPS][STEPS][4];
    load_rows_and_begin(query_strips, dcontext_strips, tiles, queries, dcontexts, place.first, keys, values);
    float sums[STRIPS][CHUNKS][4];  // of dq, before they are scaled
    fill(sums, 0);

    int stage = 0;
    for (int first_key = 0; first_key < keys.count; first_key += COLUMNS, stage = 1 - stage) {
        copy_async_wait<0>();
        __syncthreads();  // this tile is there for all, and nobody reads the other stage any more
        if (first_key + COLUMNS < keys.count)
            begin_stage(tiles + (1 - stage) * STAGE_ROWS, keys, values, first_key + COLUMNS);
        copy_async_commit();
        if (first_query >= queries.count) continue;  // the warp has no query

        const TileRow *key_tile = tiles + stage * STAGE_ROWS, *value_tile = key_tile + COLUMNS;
#pragma unroll 1
        for (int part = 0; part < COLUMNS; part += PART) {
            unsigned int open = open_columns(keys, first_key + part);
            if (open == 0) continue;  // nothing to add
            unsigned int survivors[STRIPS];
            find_survivors_by_queries<PART / 8>(survivors, dropout, first_query, first_key + part);
            float scores[STRIPS][PART / 8][4], dprobs[STRIPS][PART / 8][4];
            multiply(scores, query_strips, key_tile + part);
            multiply(dprobs, dcontext_strips, value_tile + part);
#pragma unroll
            for (int s = 0; s < STRIPS; ++s)
#pragma unroll
                for (int c = 0; c < PART / 8; ++c)
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        float prob = is_open_column(open, c, e)
                                         ? probability(scores[s][c][e], scale, row_lse[s][e / 2])
                                         : 0;
                        float dprob = is_survivor(survivors[s], c, e) ? dprobs[s][c][e] * survivor_scale : 0;
                        scores[s][c][e] = prob * (dprob - row_dots[s][e / 2]);  // dscore from here on
                    }
            add_weighted(sums, scores, key_tile + part);
        }
    }

    float scales[STRIPS][2];
    fill(scales, scale);
    copy_async_wait<0>();  // without a key, the first stage is still under way
    __syncthreads();       // nobody reads the tiles any more
    store_sums(rows_of(dq, query_text, place.head, heads), first_query, sums, scales, tiles + own_rows);
}

// Rows are keys here, and columns are queries. The sums of dk and those of dv do not fit into the registers
// together where heads are wide: blocks with blockIdx.y == 0 make dk then, and those with 1 make dv.
extern "C" __global__ void __launch_bounds__(THREADS, KEYS_BLOCKS) softmax_attention_mma_backward_keys(
    const __half *dcontext, const __half *q, const __half *k, const __half *v, const int *query_starts,
    const int *key_starts, int heads, int max_queries, int max_keys, int query_rows, float scale,
    const unsigned char *key_mask, const unsigned char *keep_mask, unsigned long long seed,
    unsigned int layer, unsigned int site, unsigned int threshold, float survivor_scale, const float *lse,
    const float *dots, __half *dk, __half *dv) {
    constexpr int STRIPS = BACKWARD_STRIPS, PART = BACKWARD_PART;
    constexpr int OUTPUTS = IS_WIDE ? 1 : 2;
    bool makes_dk = !IS_WIDE || blockIdx.y == 0, makes_dv = !IS_WIDE || blockIdx.y == 1;
    __shared__ TileRow tiles[SHARED_ROWS];
    __shared__ float statistics[2][2 * COLUMNS];  // of either stage: the columns' log-sum-exp, then their D

    Place place = place_of_block(blockIdx.x, heads, max_keys, BACKWARD_ROWS);
    Text query_text = text_rows(query_starts, place.text, max_queries);
    Text key_text = text_rows(key_starts, place.text, max_keys);
    if (place.first >= key_text.count) return;
    Dropout dropout = {keep_mask, seed, layer, site, threshold, pairs_of(place, heads, max_queries, max_keys),
                       query_text.count, key_text.count};
    if (key_mask != nullptr) key_mask += key_text.first;
    Rows<const __half> keys = rows_of(k, key_text, place.head, heads, key_mask);
    Rows<const __half> values = rows_of(v, key_text, place.head, heads, key_mask);
    int own_rows = warp() * STRIPS * STRIP;  // the warp's first row of those of the block
    int first_key = place.first + own_rows;
    bool open[STRIPS][2], any_open = false;
#pragma unroll
    for (int s = 0; s < STRIPS; ++s)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            open[s][e / 2] = is_open(keys, first_key + STRIP * s + row_of(e));
            any_open |= open[s][e / 2];
        }
    any_open = __any_sync(ALL_LANES, any_open);
    if (!__syncthreads_or(any_open)) query_text.count = 0;  // nobody looks at these keys: nothing to add
    Rows<const __half> queries = rows_of(q, query_text, place.head, heads);
    Rows<const __half> dcontexts = rows_of(dcontext, query_text, place.head, heads);
    lse += (long long)place.head * query_rows + query_text.first;
    dots += (long long)place.head * query_rows + query_text.first;

    unsigned int key_strips[STRIPS][STEPS][4], value_strips[STRIPS][STEPS][4];
    begin_statistics(statistics[0], lse, dots, 0, queries.count);
    load_rows_and_begin(key_strips, value_strips, tiles, keys, values, place.first, queries, dcontexts);
    float sums[OUTPUTS][STRIPS][CHUNKS][4];  // of dk and dv, or of one of them, before they are scaled
    fill(sums, 0);

    int stage = 0;
    for (int first_query = 0; first_query < queries.count; first_query += COLUMNS, stage = 1 - stage) {
        copy_async_wait<0>();
        __syncthreads();  // this tile is there for all, and nobody reads the other stage any more
        if (first_query + COLUMNS < queries.count) {
            begin_stage(tiles + (1 - stage) * STAGE_ROWS, queries, dcontexts, first_query + COLUMNS);
            begin_statistics(statistics[1 - stage], lse, dots, first_query + COLUMNS, queries.count);
        }
        copy_async_commit();
        if (!any_open) continue;  // nobody looks at the warp's keys

        const TileRow *query_tile = tiles + stage * STAGE_ROWS, *dcontext_tile = query_tile + COLUMNS;
        const float *column_lse = statistics[stage], *column_dots = column_lse + COLUMNS;
#pragma unroll 1
        for (int part = 0; part < COLUMNS; part += PART) {
            unsigned int survivors[STRIPS];
            find_survivors_by_keys<PART / 8>(survivors, dropout, first_query + part, first_key);
            float scores[STRIPS][PART / 8][4], dprobs[STRIPS][PART / 8][4];
            multiply(scores, key_strips, query_tile + part);
            fill(dprobs, 0);
            if (makes_dk) multiply(dprobs, value_strips, dcontext_tile + part);
#pragma unroll
            for (int s = 0; s < STRIPS; ++s)
#pragma unroll
                for (int c = 0; c < PART / 8; ++c)
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        // Where there is no query both are 0, and so is whatever prob is multiplied with.
                        float query_lse = column_lse[part + 8 * c + column_of(e)];
                        float dot = column_dots[part + 8 * c + column_of(e)];
                        float prob = open[s][e / 2] ? probability(scores[s][c][e], scale, query_lse) : 0;
                        bool survives = is_survivor(survivors[s], c, e);
                        float dprob = survives ? dprobs[s][c][e] * survivor_scale : 0;
                        scores[s][c][e] = prob * (dprob - dot);  // dscore from here on
                        dprobs[s][c][e] = survives ? prob : 0;   // probability, after dropout
                    }
            if (makes_dk) add_weighted(sums[0], scores, query_tile + part);
            if (makes_dv) add_weighted(sums[OUTPUTS - 1], dprobs, dcontext_tile + part);
        }
    }

    float scales[STRIPS][2];
    copy_async_wait<0>();  // without a query, the first stage is still under way
    if (makes_dk) {
        fill(scales, scale);
        __syncthreads();  // nobody reads the tiles any more
        store_sums(rows_of(dk, key_text, place.head, heads), first_key, sums[0], scales, tiles + own_rows);
    }
    if (makes_dv) {
        fill(scales, survivor_scale);
        __syncthreads();  // nor the scratch rows
        store_sums(rows_of(dv, key_text, place.head, heads), first_key, sums[OUTPUTS - 1], scales,
                   tiles + own_rows);
    }
}
