// What kernels/tensor_core.cuh asks of the emulator: fragments, and copies that arrive when waited for.
//
// Accesses to the kernel's memory are made here, in the kernel's own translation unit, where sanitizers see
// them; what lanes exchange is moved by tensor_core.cpp, which they do not look at.
#pragma once

#include "race_detector.h"
#include "scheduler.h"

extern "C" {
void emulator_complete_mma_m16n8k16(void *const lanes[32], unsigned mask);
void emulator_complete_load_matrix(void *const lanes[32], unsigned mask);
void emulator_complete_load_matrix_transposed(void *const lanes[32], unsigned mask);
}

struct MmaLane {
    float d[4];
    unsigned a[4], b[2];
};

// What one instruction moves: copied whole, it is one access.
struct alignas(16) SixteenBytes {
    unsigned words[4];
};
extern const SixteenBytes emulator_zeros;
extern const SixteenBytes emulator_not_arrived;  // NaN

struct LoadMatrixLane {
    SixteenBytes row;  // what this lane points to
    unsigned fragment[4];
};

constexpr unsigned EMULATOR_WHOLE_WARP = 0xffffffffu;

inline void emulator_mma_m16n8k16(float d[4], const unsigned a[4], const unsigned b[2], const char *file,
                                  int line) {
    MmaLane lane = {{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    emulator_warp_exchange(EMULATOR_WHOLE_WARP, "mma.m16n8k16", file, line, &lane,
                           emulator_complete_mma_m16n8k16);
    for (int i = 0; i < 4; ++i) d[i] = lane.d[i];
}

inline void emulator_require_alignment(const void *address, unsigned bytes, const char *file, int line,
                                       const char *what) {
    if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0) emulator_stop(file, line, what);
}

inline void emulator_load_matrix_x4(unsigned fragment[4], const void *row, bool transposed, const char *file,
                                    int line) {
    emulator_require_alignment(row, 16, file, line, "ldmatrix: a row is not aligned to 16 bytes");
    LoadMatrixLane lane = {*static_cast<const SixteenBytes *>(row), {}};
    emulator_warp_exchange(
        EMULATOR_WHOLE_WARP, transposed ? "ldmatrix.x4.trans" : "ldmatrix.x4", file, line, &lane,
        transposed ? emulator_complete_load_matrix_transposed : emulator_complete_load_matrix);
    for (int i = 0; i < 4; ++i) fragment[i] = lane.fragment[i];
}

// A thread's copies that have not arrived yet, in the thread's own storage, oldest first.
struct PendingCopy {
    void *shared;
    const void *global;  // null: zeros
    unsigned bytes;      // 4 or 16
    unsigned group;      // the number of commits before it
};

struct PendingCopies {
    static constexpr unsigned MOST = 128;
    unsigned count;
    unsigned groups;  // commits so far
    PendingCopy copies[MOST];
};
static_assert(sizeof(PendingCopies) <= 4096, "a thread's storage has 4,096 bytes");

inline PendingCopies &emulator_pending_copies() {
    return *static_cast<PendingCopies *>(emulator_thread_storage());
}

template <class T>
inline void emulator_move(const PendingCopy &copy) {
    const void *from = copy.global == nullptr ? &emulator_zeros : copy.global;
    *static_cast<T *>(copy.shared) = *static_cast<const T *>(from);
}

inline void emulator_arrive(const PendingCopy &copy) {
    if (copy.bytes == 16)
        emulator_move<SixteenBytes>(copy);
    else
        emulator_move<unsigned>(copy);
}

// The copy itself is made as late as the device may make it: when it is waited for. As early as the device
// may, its destination is overwritten, with NaN. So a reader that is not done yet shows, and one that does
// not wait.
inline void emulator_copy_async(void *shared, const void *global, unsigned bytes, bool valid,
                                const char *file, int line) {
    emulator_require_alignment(shared, bytes, file, line, "cp.async: the shared address is not aligned");
    emulator_require_alignment(global, bytes, file, line, "cp.async: the global address is not aligned");
    PendingCopies &pending = emulator_pending_copies();
    if (pending.count == PendingCopies::MOST)
        emulator_stop(file, line, "cp.async: a thread has more copies under way than the emulator keeps");
    pending.copies[pending.count++] = {shared, valid ? global : nullptr, bytes, pending.groups};
    if (bytes == 16)
        *static_cast<SixteenBytes *>(shared) = emulator_not_arrived;
    else
        *static_cast<unsigned *>(shared) = ~0u;
}

inline void emulator_copy_async_commit() { ++emulator_pending_copies().groups; }

inline void emulator_copy_async_wait(unsigned still_pending) {
    PendingCopies &pending = emulator_pending_copies();
    unsigned left = 0;
    for (unsigned i = 0; i < pending.count; ++i) {
        const PendingCopy copy = pending.copies[i];
        if (copy.group + still_pending >= pending.groups) {  // among the youngest groups, or in none yet
            pending.copies[left++] = copy;
        } else {
            emulator_arrive(copy);
        }
    }
    pending.count = left;
}

#ifdef NPBERT_EMULATED
// What a thread never waited for arrives any time up to its end: a race with all that others did to the place
// since the last barrier. Results are of those to which it came too late.
inline void emulator_leave_copies() {
    if (!is_race_detector()) return;
    const PendingCopies &pending = emulator_pending_copies();
    for (unsigned i = 0; i < pending.count; ++i) emulator_arrive(pending.copies[i]);
}
static const bool emulator_leaves_copies = (emulator_leave = emulator_leave_copies, true);
#endif
