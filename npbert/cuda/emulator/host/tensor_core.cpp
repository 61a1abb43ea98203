// What the lanes of a warp exchange in tensor-core instructions. Who holds what: see kernels/tensor_core.cuh.
//
// This file is compiled without sanitizers: it reads and writes on behalf of all lanes.

#include "tensor_core.h"

#include <cstring>

namespace {

constexpr unsigned LANES = 32;
constexpr int ROWS = 16, COLUMNS = 8, DEPTH = 16;  // of mma.m16n8k16

float half_of(unsigned word, int which) {
    unsigned short bits = static_cast<unsigned short>(word >> (16 * which));
    _Float16 value;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<float>(value);
}

// Element `which` (0 or 1) of register i of A's fragment is A[row][column].
struct Element {
    int row, column;
};
Element element_of_a(unsigned lane, int i, int which) {
    return {static_cast<int>(lane / 4) + 8 * (i % 2), 2 * static_cast<int>(lane % 4) + which + 8 * (i / 2)};
}
Element element_of_b(unsigned lane, int i, int which) {
    return {2 * static_cast<int>(lane % 4) + which + 8 * i, static_cast<int>(lane / 4)};
}
Element element_of_d(unsigned lane, int i) {
    return {static_cast<int>(lane / 4) + 8 * (i / 2), 2 * static_cast<int>(lane % 4) + i % 2};
}

const LoadMatrixLane &row_of_matrix(void *const lanes[32], int matrix, unsigned row) {
    return *static_cast<const LoadMatrixLane *>(lanes[8 * matrix + row]);
}

unsigned half_bits(const LoadMatrixLane &row, unsigned column) {
    return row.row.words[column / 2] >> (16 * (column % 2)) & 0xffffu;
}

}  // namespace

const SixteenBytes emulator_zeros = {};
const SixteenBytes emulator_not_arrived = {{~0u, ~0u, ~0u, ~0u}};

void emulator_complete_mma_m16n8k16(void *const lanes[32], unsigned) {
    float a[ROWS][DEPTH], b[DEPTH][COLUMNS];
    for (unsigned lane = 0; lane < LANES; ++lane) {
        const MmaLane &mine = *static_cast<const MmaLane *>(lanes[lane]);
        for (int which = 0; which < 2; ++which) {
            for (int i = 0; i < 4; ++i) {
                Element at = element_of_a(lane, i, which);
                a[at.row][at.column] = half_of(mine.a[i], which);
            }
            for (int i = 0; i < 2; ++i) {
                Element at = element_of_b(lane, i, which);
                b[at.row][at.column] = half_of(mine.b[i], which);
            }
        }
    }
    for (unsigned lane = 0; lane < LANES; ++lane) {
        MmaLane &mine = *static_cast<MmaLane *>(lanes[lane]);
        for (int i = 0; i < 4; ++i) {
            Element at = element_of_d(lane, i);
            // The product of two halves is exact in a float; the order of the sum is not documented.
            for (int k = 0; k < DEPTH; ++k) mine.d[i] += a[at.row][k] * b[k][at.column];
        }
    }
}

void emulator_complete_load_matrix(void *const lanes[32], unsigned) {
    for (unsigned lane = 0; lane < LANES; ++lane) {
        LoadMatrixLane &mine = *static_cast<LoadMatrixLane *>(lanes[lane]);
        for (int matrix = 0; matrix < 4; ++matrix)
            mine.fragment[matrix] = row_of_matrix(lanes, matrix, lane / 4).row.words[lane % 4];
    }
}

void emulator_complete_load_matrix_transposed(void *const lanes[32], unsigned) {
    for (unsigned lane = 0; lane < LANES; ++lane) {
        LoadMatrixLane &mine = *static_cast<LoadMatrixLane *>(lanes[lane]);
        unsigned pair = 2 * (lane % 4), column = lane / 4;
        for (int matrix = 0; matrix < 4; ++matrix)
            mine.fragment[matrix] = half_bits(row_of_matrix(lanes, matrix, pair), column) |
                                    half_bits(row_of_matrix(lanes, matrix, pair + 1), column) << 16;
    }
}
