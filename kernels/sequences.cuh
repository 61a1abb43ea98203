// Where the rows of a text lie among those of a batch, and which text, head and tile a block works on.
//
// Rows are those of a (tokens, N, H) array, one text after the other. `starts` has B + 1 row numbers: text b
// has the rows starts[b] <= row < starts[b + 1]. Null `starts`: every text has `padded` rows.
#pragma once

struct Text {
    int first;  // its first row
    int count;  // how many it has
};

__device__ __forceinline__ Text text_rows(const int *starts, int text, int padded) {
    if (starts == nullptr) return {text * padded, padded};
    return {starts[text], starts[text + 1] - starts[text]};
}

struct Place {
    int text, head;
    int first;  // of the tile: a row, counted from the text's first one
};

// Blocks are counted along x alone, whose limit is 2^31: tiles of a text first, then heads, then texts.
__device__ __forceinline__ Place place_of_block(int block, int heads, int padded, int tile_rows) {
    int tiles = (padded + tile_rows - 1) / tile_rows;
    return {block / tiles / heads, block / tiles % heads, block % tiles * tile_rows};
}

// Pairs of a query and a key, numbered as the elements of a (B, N, max_queries, max_keys) array.
struct Pairs {
    long long first;  // of this text and head
    int max_keys;
};

__device__ __forceinline__ Pairs pairs_of(Place place, int heads, int max_queries, int max_keys) {
    return {((long long)place.text * heads + place.head) * max_queries * max_keys, max_keys};
}

__device__ __forceinline__ long long pair_index(Pairs pairs, int query, int key) {
    return pairs.first + (long long)query * pairs.max_keys + key;
}
