// Philox4x32-10 and dropout's decision, bit for bit npbert/ops/philox.py and npbert/ops/dropout.py.
//
// Element `index` of a tensor (in C order) is kept or dropped by one random word and nothing else:
//
//     key     = (seed mod 2^32, seed div 2^32)
//     counter = (block mod 2^32, block div 2^32, layer, site)      block = index div 4
//     word    = philox4x32(counter, key)[index mod 4]
//     keep    = word >= threshold                                  threshold = floor(rate * 2^32)
//
// Four neighbours share one counter, so a kernel that needs them all draws them together (dropout_words).
//
// J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
#pragma once

struct PhiloxWords {
    unsigned int first, second, third, fourth;
};

__device__ __forceinline__ PhiloxWords philox4x32(
    PhiloxWords counter, unsigned int key_0, unsigned int key_1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        unsigned long long product_0 = 0xD2511F53ull * counter.first;
        unsigned long long product_2 = 0xCD9E8D57ull * counter.third;
        counter = {(unsigned int)(product_2 >> 32) ^ counter.second ^ key_0, (unsigned int)product_2,
                   (unsigned int)(product_0 >> 32) ^ counter.fourth ^ key_1, (unsigned int)product_0};
        key_0 += 0x9E3779B9u;  // 2^32 over the golden ratio
        key_1 += 0xBB67AE85u;  // 2^32 (sqrt(3) - 1)
    }
    return counter;
}

// The words of elements 4 block .. 4 block + 3 of one tensor.
__device__ __forceinline__ PhiloxWords dropout_words(
    unsigned long long block, unsigned long long seed, unsigned int layer, unsigned int site) {
    return philox4x32({(unsigned int)block, (unsigned int)(block >> 32), layer, site}, (unsigned int)seed,
                      (unsigned int)(seed >> 32));
}

// One of four words; without an array, which would have to lie in memory to be indexed.
__device__ __forceinline__ unsigned int word_of(PhiloxWords words, int which) {
    unsigned int low = which & 1 ? words.second : words.first;
    unsigned int high = which & 1 ? words.fourth : words.third;
    return which & 2 ? high : low;
}

// Whether one element survives.
__device__ __forceinline__ bool keep(
    unsigned long long index, unsigned long long seed, unsigned int layer, unsigned int site,
    unsigned int threshold) {
    return word_of(dropout_words(index >> 2, seed, layer, site), (int)(index & 3)) >= threshold;
}
