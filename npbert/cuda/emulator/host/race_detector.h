// What ThreadSanitizer is told, where a program is linked with it: which fiber runs, and what orders memory.
#pragma once

#include <cstddef>
#include <cstdlib>

// Its interface for fibers; null where it is not linked in.
extern "C" {
__attribute__((weak)) void *__tsan_create_fiber(unsigned flags);
__attribute__((weak)) void *__tsan_get_current_fiber();
__attribute__((weak)) void __tsan_switch_to_fiber(void *fiber, unsigned flags);
__attribute__((weak)) void __tsan_set_fiber_name(void *fiber, const char *name);
__attribute__((weak)) void __tsan_acquire(void *address);
__attribute__((weak)) void __tsan_release(void *address);
}

inline bool is_race_detector() { return __tsan_create_fiber != nullptr; }

// To let another fiber run orders nothing.
inline void detector_switch(void *fiber) {
    constexpr unsigned NO_SYNCHRONISATION = 1;
    if (is_race_detector()) __tsan_switch_to_fiber(fiber, NO_SYNCHRONISATION);
}

// Everything that these fibers did comes before everything that they will do. Each meeting has an object of
// its own: with one for all, a fiber would be ordered after fibers that it never met, and their races lost.
template <class Fiber>
inline void detector_meeting(Fiber *const *fibers, unsigned count, void *current) {
    if (!is_race_detector()) return;
    void *object = std::malloc(1);
    for (unsigned i = 0; i < count; ++i) {
        detector_switch(fibers[i]->detector_fiber);
        __tsan_release(object);
    }
    for (unsigned i = 0; i < count; ++i) {
        detector_switch(fibers[i]->detector_fiber);
        __tsan_acquire(object);
    }
    detector_switch(current);
    std::free(object);
}
