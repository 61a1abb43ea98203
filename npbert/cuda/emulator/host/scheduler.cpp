// Runs the threads of a CUDA kernel as fibers, block after block, on one CPU thread.
//
// This file and those beside it are compiled without sanitizers: what they do on behalf of all threads is no
// access of any of them.

#include "scheduler.h"

#include "context.h"
#include "race_detector.h"
#include "shared_memory.h"
#include "signals.h"

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

EmulatorThread *emulator_thread;
EmulatorIndex emulator_block_dim;
EmulatorIndex emulator_grid_dim;
int emulator_perturb;
EmulatorEntry *emulator_entries;

namespace {

constexpr unsigned WARP = 32;
constexpr std::size_t STACK_BYTES = 256 * 1024;  // of address space; only what is touched takes memory
constexpr std::size_t GUARD_BYTES = 64 * 1024;   // a multiple of any page's size
constexpr std::uint64_t CANARY = 0x6b63617473206f6eull;
constexpr std::size_t THREAD_STORAGE = 4096;
// With a race detector, threads of different blocks are different fibers, up to about so many: each costs half
// a millisecond and most of a megabyte.
constexpr unsigned DETECTOR_FIBERS = 384;

enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Fiber {
    Context context;
    char *stack;
    const char *lowest_stack;  // of those that were made together: below it, and above the highest, are traps
    void *detector_fiber;
    EmulatorThread thread;
    State state;
    const char *file;  // where it waits
    int line;
    int vote;
    // A warp function that it waits in.
    unsigned mask;
    const char *what;
    void *operands;
    unsigned long storage_block;  // the block that `storage` was last cleared for
    alignas(16) unsigned char storage[THREAD_STORAGE];
};

Context scheduler_context;
void *scheduler_detector_fiber;
Fiber **fibers;  // in the order of creation
unsigned fiber_count;
EmulatorLaunch launch;
Fiber **threads;  // of the block that runs: a part of a set of fibers
unsigned thread_count;
Fiber *running;
unsigned long blocks_started;
unsigned barrier_arrivals;
int barrier_result;
bool has_printed;
volatile bool is_in_host;  // a fiber is in the library, which must not be left in the middle
volatile bool failed;
int failure;

// Marks what a fiber calls and what is not safe to leave in the middle.
class HostSection {
  public:
    HostSection() { is_in_host = true; }
    ~HostSection() { is_in_host = false; }
};

void fail(int code, const char *format, ...) {
    if (failed) return;  // the first mistake is the one to report
    failure = code;
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(launch.message, launch.message_size, format, arguments);
    va_end(arguments);
    failed = true;
    if (is_race_detector()) __tsan_release(launch.message);
}

struct Description {
    char text[96];
};

Description describe(const EmulatorThread &thread) {
    Description description;
    std::snprintf(description.text, sizeof description.text, "thread (%u, %u, %u) of block (%u, %u, %u)",
                  thread.thread_index.x, thread.thread_index.y, thread.thread_index.z, thread.block_index.x,
                  thread.block_index.y, thread.block_index.z);
    return description;
}

// Fibers --------------------------------------------------------------------------------------------------

void to_scheduler() {
    Fiber *self = running;
    detector_switch(scheduler_detector_fiber);
    switch_context(self->context, scheduler_context);
}

[[noreturn]] void leave_for_ever() {
    for (;;) to_scheduler();
}

std::uint64_t &canary(Fiber *fiber) { return *reinterpret_cast<std::uint64_t *>(fiber->stack); }

void report_overflow(Fiber *fiber) {
    fail(EMULATOR_STOPPED, "stack overflow in %s: endless recursion, or local arrays of more than %zu bytes?",
         describe(fiber->thread).text, STACK_BYTES);
}

void to_fiber(Fiber *fiber) {
    running = fiber;
    is_in_host = false;
    emulator_thread = &fiber->thread;
    detector_switch(fiber->detector_fiber);
    switch_context(scheduler_context, fiber->context);
    if (canary(fiber) != CANARY) {
        report_overflow(fiber);
        canary(fiber) = CANARY;
    }
}

void fiber_main() {
    keep_float_mode();
    for (;;) {
        launch.entry(launch.arguments);
        running->state = DONE;
        to_scheduler();
    }
}

void prepare(Fiber *fiber) { prepare_context(fiber->context, fiber->stack, STACK_BYTES, fiber_main); }

bool make_fibers(unsigned count) {
    if (count <= fiber_count) return true;
    unsigned more = count - fiber_count;
    void *list = std::realloc(fibers, count * sizeof *fibers);
    if (list == nullptr) return false;
    fibers = static_cast<Fiber **>(list);
    void *memory = mmap(nullptr, GUARD_BYTES + more * STACK_BYTES + GUARD_BYTES, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    char *stacks = static_cast<char *>(memory) + GUARD_BYTES;
    if (mprotect(stacks, more * STACK_BYTES, PROT_READ | PROT_WRITE) != 0) return false;
    for (unsigned i = 0; i < more; ++i) {
        Fiber *fiber = static_cast<Fiber *>(std::calloc(1, sizeof(Fiber)));
        if (fiber == nullptr) return false;
        fiber->stack = stacks + i * STACK_BYTES;
        fiber->lowest_stack = stacks;
        canary(fiber) = CANARY;
        if (is_race_detector()) fiber->detector_fiber = __tsan_create_fiber(0);
        prepare(fiber);
        fibers[fiber_count++] = fiber;
    }
    return true;
}

// Fibers are left in the middle of the kernel by a failure: start each of them afresh.
void restart_fibers() {
    for (unsigned i = 0; i < fiber_count; ++i) prepare(fibers[i]);
}

// Signals -------------------------------------------------------------------------------------------------

bool on_signal(int number, const char *stack_pointer, const char *address) {
    if (number == SIGINT) fail(EMULATOR_INTERRUPTED, "interrupted");
    bool is_in_kernel = running != nullptr && !is_in_host && stack_pointer >= running->lowest_stack - GUARD_BYTES &&
                        stack_pointer < running->stack + STACK_BYTES;
    if (!is_in_kernel) return number == SIGINT;  // the scheduler will notice that it has failed
    if (number == SIGFPE)
        fail(EMULATOR_STOPPED, "integer division by zero by %s", describe(running->thread).text);
    else if (number == SIGILL)
        fail(EMULATOR_STOPPED, "illegal instruction in %s", describe(running->thread).text);
    else if (address < running->lowest_stack && address >= running->lowest_stack - GUARD_BYTES)
        report_overflow(running);
    else
        fail(EMULATOR_OUT_OF_BOUNDS, "%s accessed memory that is not there, or at an address that is not aligned",
             describe(running->thread).text);
    leave_for_ever();
}

// Order ---------------------------------------------------------------------------------------------------

std::uint32_t random_state;

void seed_random(std::uint32_t seed) {
    random_state = seed * 2654435761u + 1;
    if (random_state == 0) random_state = 1;
}

std::uint32_t random_below(std::uint32_t limit) {  // xorshift32
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % limit;
}

void shuffle(unsigned *order, unsigned count) {
    for (unsigned i = count; i > 1; --i) {
        unsigned other = random_below(i), kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}

void order_of(unsigned *order, unsigned count) {
    for (unsigned i = 0; i < count; ++i) order[i] = launch.schedule == SCHEDULE_DESCENDING ? count - 1 - i : i;
    if (launch.schedule == SCHEDULE_RANDOM) shuffle(order, count);
}

// Blocks --------------------------------------------------------------------------------------------------

// Every thread of the block waits at a barrier: let them go, if it is the same one.
void release_barrier() {
    Fiber *first = threads[0];
    int count = 0;
    for (unsigned rank = 0; rank < thread_count; ++rank) {
        Fiber *fiber = threads[rank];
        if (fiber->line != first->line || std::strcmp(fiber->file, first->file) != 0) {
            fail(EMULATOR_DIVERGENCE, "barrier divergence: %s waits at %s:%d, %s at %s:%d",
                 describe(first->thread).text, first->file, first->line, describe(fiber->thread).text, fiber->file,
                 fiber->line);
            return;
        }
        count += fiber->vote != 0;
    }
    barrier_result = (count << 2) | (count > 0) << 1 | (count == int(thread_count));
    barrier_arrivals = 0;
    detector_meeting(threads, thread_count, scheduler_detector_fiber);
    for (unsigned rank = 0; rank < thread_count; ++rank) threads[rank]->state = READY;
}

bool waits_for_the_same(const Fiber *one, const Fiber *other) {
    return one->state == AT_WARP && other->state == AT_WARP && one->mask == other->mask && one->line == other->line &&
           std::strcmp(one->what, other->what) == 0 && std::strcmp(one->file, other->file) == 0;
}

void report_warp(Fiber *waiting) {
    unsigned first = waiting->thread.rank - waiting->thread.lane;
    for (unsigned lane = 0; lane < WARP; ++lane) {
        if (!(waiting->mask >> lane & 1)) continue;
        Fiber *other = first + lane < thread_count ? threads[first + lane] : nullptr;
        if (other && waits_for_the_same(waiting, other)) continue;
        if (!other || other->state == DONE) {
            fail(EMULATOR_DIVERGENCE, "warp divergence: %s waits in %s at %s:%d for lane %u, which %s",
                 describe(waiting->thread).text, waiting->what, waiting->file, waiting->line, lane,
                 other ? "has left the kernel" : "does not exist");
        } else {
            fail(EMULATOR_DIVERGENCE, "warp divergence: %s waits in %s at %s:%d (mask 0x%08x), %s at %s:%d",
                 describe(waiting->thread).text, waiting->what, waiting->file, waiting->line, waiting->mask,
                 describe(other->thread).text, other->file, other->line);
        }
        return;
    }
}

// Nobody can go on: say who waits for whom.
void report_deadlock() {
    Fiber *at_barrier = nullptr, *at_warp = nullptr, *done = nullptr;
    for (unsigned rank = 0; rank < thread_count; ++rank) {
        Fiber *fiber = threads[rank];
        if (fiber->state == AT_BARRIER && !at_barrier) at_barrier = fiber;
        if (fiber->state == AT_WARP && !at_warp) at_warp = fiber;
        if (fiber->state == DONE && !done) done = fiber;
    }
    if (at_warp) report_warp(at_warp);
    if (at_barrier && done)
        fail(EMULATOR_DIVERGENCE, "barrier divergence: %s waits at %s:%d, %s has left the kernel",
             describe(at_barrier->thread).text, at_barrier->file, at_barrier->line, describe(done->thread).text);
    fail(EMULATOR_DIVERGENCE, "the threads wait for each other for ever");
}

void begin_block(EmulatorIndex block_index) {
    ++blocks_started;
    poison_shared_memory();
    barrier_arrivals = 0;
    unsigned x = emulator_block_dim.x, y = emulator_block_dim.y;
    for (unsigned rank = 0; rank < thread_count; ++rank) {
        threads[rank]->thread = {{rank % x, rank / x % y, rank / (x * y)}, block_index, rank, rank % WARP};
        threads[rank]->state = READY;
    }
}

void run_block(unsigned *order) {
    unsigned left = thread_count;
    order_of(order, thread_count);
    while (left > 0 && !failed) {
        bool progress = false;
        for (unsigned i = 0; i < thread_count && !failed; ++i) {
            Fiber *fiber = threads[order[i]];
            if (fiber->state != READY) continue;
            progress = true;
            to_fiber(fiber);
            left -= fiber->state == DONE;
        }
        if (failed || left == 0) return;
        if (barrier_arrivals == thread_count)
            release_barrier();
        else if (!progress)
            report_deadlock();
        if (launch.schedule == SCHEDULE_RANDOM) order_of(order, thread_count);
    }
}

// Which fibers are the threads of a block. To a race detector, accesses of one fiber are in order, and what a
// fiber did in a block comes before what all threads of a later block that it takes part in do after a
// barrier. So each block has a set of fibers for itself while there are sets left. After that the sets take
// turns, in another order each time, so that no two blocks share one by a rule.
class FiberSets {
  public:
    explicit FiberSets(std::uint64_t blocks) : sets(1), used(0) {
        if (!is_race_detector()) return;
        sets = DETECTOR_FIBERS / thread_count < 2 ? 2 : DETECTOR_FIBERS / thread_count;
        if (sets > blocks) sets = unsigned(blocks);
        for (unsigned i = 0; i < sets; ++i) order[i] = i;
    }
    unsigned fibers_needed() const { return sets * thread_count; }

    Fiber **next() {
        if (used > 0 && used % sets == 0) shuffle(order, sets);
        return fibers + std::size_t(order[used++ % sets]) * thread_count;
    }

    // For reports, which tell of the past by the names of the present: only where no fiber is used twice.
    void name_threads(std::uint64_t blocks) const {
        if (!is_race_detector() || !__tsan_set_fiber_name || blocks > sets) return;
        for (unsigned rank = 0; rank < thread_count; ++rank)
            __tsan_set_fiber_name(threads[rank]->detector_fiber, describe(threads[rank]->thread).text);
    }

  private:
    unsigned sets;
    std::uint64_t used;
    unsigned order[DETECTOR_FIBERS] = {};
};

EmulatorIndex block_at(std::uint64_t rank) {
    std::uint64_t x = launch.grid[0], y = launch.grid[1];
    return {unsigned(rank % x), unsigned(rank / x % y), unsigned(rank / (x * y))};
}

void run_blocks(std::uint64_t blocks, FiberSets &sets) {
    unsigned *thread_order = static_cast<unsigned *>(std::malloc(thread_count * sizeof(unsigned)));
    unsigned *block_order = nullptr;
    if (launch.schedule == SCHEDULE_RANDOM && blocks <= UINT32_MAX) {
        block_order = static_cast<unsigned *>(std::malloc(blocks * sizeof(unsigned)));
        if (block_order != nullptr) order_of(block_order, unsigned(blocks));
    }
    for (std::uint64_t i = 0; i < blocks && !failed; ++i) {
        std::uint64_t rank = launch.schedule == SCHEDULE_DESCENDING ? blocks - 1 - i : i;
        threads = sets.next();
        begin_block(block_at(block_order != nullptr ? block_order[i] : rank));
        sets.name_threads(blocks);
        run_block(thread_order);
    }
    std::free(thread_order);
    std::free(block_order);
}

}  // namespace

EmulatorEntry::EmulatorEntry(const char *with_name, void (*with_call)(void **))
    : name(with_name), call(with_call), next(emulator_entries) {
    emulator_entries = this;
}

// What kernels ask for ------------------------------------------------------------------------------------

int emulator_barrier(const char *file, int line, int vote) {
    Fiber *self = running;
    self->file = file;
    self->line = line;
    self->vote = vote;
    self->state = AT_BARRIER;
    ++barrier_arrivals;
    to_scheduler();
    return barrier_result;
}

void emulator_warp_exchange(unsigned mask, const char *what, const char *file, int line, void *mine,
                            void (*complete)(void *const lanes[32], unsigned mask)) {
    Fiber *self = running;
    unsigned first = self->thread.rank - self->thread.lane;
    if (!(mask >> self->thread.lane & 1)) {
        fail(EMULATOR_DIVERGENCE, "%s at %s:%d: %s is lane %u, which is not in its own mask 0x%08x", what, file,
             line, describe(self->thread).text, self->thread.lane, mask);
        leave_for_ever();
    }
    self->mask = mask;
    self->what = what;
    self->file = file;
    self->line = line;
    self->operands = mine;
    self->state = AT_WARP;
    void *lanes[WARP] = {};
    Fiber *met[WARP];
    unsigned count = 0;
    for (unsigned lane = 0; lane < WARP; ++lane) {
        if (!(mask >> lane & 1)) continue;
        Fiber *other = first + lane < thread_count ? threads[first + lane] : nullptr;
        if (!other || !waits_for_the_same(self, other)) {
            to_scheduler();  // the last lane to come completes the exchange
            return;
        }
        lanes[lane] = other->operands;
        met[count++] = other;
    }
    complete(lanes, mask);
    // Of the warp functions this one alone orders memory.
    if (std::strcmp(what, "__syncwarp") == 0) detector_meeting(met, count, self->detector_fiber);
    for (unsigned i = 0; i < count; ++i) met[i]->state = READY;
}

int emulator_new_shared_id() {
    static int count = 0;
    return count++;
}

void *emulator_shared(int id, std::size_t bytes) {
    HostSection section;
    void *memory = static_shared_memory(id, bytes);
    if (memory != nullptr) return memory;
    fail(EMULATOR_STOPPED, "__shared__ arrays of a known size take %zu bytes at most, in %d arrays",
         MAX_STATIC_SHARED_BYTES, MAX_SHARED_ARRAYS);
    leave_for_ever();
}

void *emulator_dynamic_shared() {
    HostSection section;
    void *memory = dynamic_shared_memory(launch.dynamic_shared_bytes ? launch.dynamic_shared_bytes : 1);
    if (memory != nullptr) return memory;
    fail(EMULATOR_NO_MEMORY, "no memory for %llu bytes of shared memory",
         static_cast<unsigned long long>(launch.dynamic_shared_bytes));
    leave_for_ever();
}

void *emulator_thread_storage() {
    if (running->storage_block != blocks_started) {
        volatile unsigned char *storage = running->storage;
        for (std::size_t i = 0; i < THREAD_STORAGE; ++i) storage[i] = 0;
        running->storage_block = blocks_started;
    }
    return running->storage;
}

void emulator_stop(const char *file, int line, const char *what) {
    fail(EMULATOR_STOPPED, "%s: %s at %s:%d", what, describe(running->thread).text, file, line);
    leave_for_ever();
}

int emulator_print(const char *format, ...) {
    HostSection section;
    has_printed = true;
    va_list arguments;
    va_start(arguments, format);
    int length = std::vprintf(format, arguments);
    va_end(arguments);
    return length;
}

int emulator_run(const EmulatorLaunch *request) {
    launch = *request;
    failed = has_printed = false;
    failure = EMULATOR_OK;
    running = nullptr;
    thread_count = launch.block[0] * launch.block[1] * launch.block[2];
    emulator_block_dim = {launch.block[0], launch.block[1], launch.block[2]};
    emulator_grid_dim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    emulator_perturb = int(launch.perturb);
    seed_random(launch.seed);
    if (is_race_detector()) scheduler_detector_fiber = __tsan_get_current_fiber();
    std::uint64_t blocks = std::uint64_t(launch.grid[0]) * launch.grid[1] * launch.grid[2];
    FiberSets sets(blocks);
    if (!make_fibers(sets.fibers_needed())) {
        std::snprintf(launch.message, launch.message_size, "no memory for %u threads", thread_count);
        return EMULATOR_NO_MEMORY;
    }
    if (launch.take_signals) take_signals(on_signal);
    unsigned mode = set_float_mode(launch.flush_denormals);
    run_blocks(blocks, sets);
    restore_float_mode(mode);
    if (launch.take_signals) give_signals_back();
    release_shared_memory();
    running = nullptr;
    if (has_printed) std::fflush(stdout);
    if (failed) restart_fibers();
    if (failed && is_race_detector()) __tsan_acquire(launch.message);
    return failure;
}
