// What the lanes of a warp give each other in a warp function, once all of them are there.

#include "scheduler.h"

namespace {

constexpr unsigned WARP = 32;

bool is_in(unsigned mask, unsigned lane) { return lane < WARP && (mask >> lane & 1); }

}  // namespace

void emulator_complete_shuffle(void *const lanes[32], unsigned mask) {
    for (unsigned lane = 0; lane < WARP; ++lane) {
        if (!is_in(mask, lane)) continue;
        ShuffleLane *to = static_cast<ShuffleLane *>(lanes[lane]);
        // A lane that takes no part has nothing to give: what CUDA leaves undefined is NaN here.
        const ShuffleLane *from =
            is_in(mask, to->source) ? static_cast<ShuffleLane *>(lanes[to->source]) : nullptr;
        for (unsigned i = 0; i < sizeof to->out; ++i) to->out[i] = from ? from->in[i] : 0xff;
    }
}

void emulator_complete_ballot(void *const lanes[32], unsigned mask) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < WARP; ++lane)
        if (is_in(mask, lane)) votes |= unsigned(static_cast<ShuffleLane *>(lanes[lane])->is_set != 0) << lane;
    for (unsigned lane = 0; lane < WARP; ++lane)
        if (is_in(mask, lane)) static_cast<ShuffleLane *>(lanes[lane])->ballot = votes;
}

void emulator_complete_nothing(void *const[32], unsigned) {}
