// Runs the threads of a CUDA kernel as fibers, block after block, on one CPU thread.
//
// This file is compiled without sanitizers: what it does on behalf of all threads is no access of any of
// them. Under ThreadSanitizer it tells the sanitizer which fiber runs, and that barriers order memory.

#include "scheduler.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif
#if defined(__x86_64__) && defined(__linux__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_ASSEMBLY  // ten times as fast as ucontext, which saves the signal mask by a system call
#else
#include <ucontext.h>
#endif

// ThreadSanitizer's interface for fibers; null where it is not linked in.
extern "C" {
__attribute__((weak)) void *__tsan_create_fiber(unsigned flags);
__attribute__((weak)) void *__tsan_get_current_fiber();
__attribute__((weak)) void __tsan_switch_to_fiber(void *fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void *address);
__attribute__((weak)) void __tsan_release(void *address);
}

namespace {

constexpr std::size_t STACK_BYTES = 256 * 1024;  // of address space; only what is touched takes memory
constexpr unsigned WARP = 32;
constexpr unsigned NO_SYNCHRONISATION = 1;  // a flag of __tsan_switch_to_fiber
constexpr std::size_t THREAD_STORAGE = 4096;
constexpr int MAX_SHARED_ARRAYS = 64;

enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Context {
#if defined(EMULATOR_ASSEMBLY)
    void *stack_pointer;
#else
    ucontext_t context;
#endif
};

struct Fiber {
    Context context;
    char *stack;
    void *sanitizer_fiber;
    EmulatorThread thread;
    State state;
    const char *file;  // where it waits
    int line;
    int vote;
    // A warp function that it waits in.
    unsigned mask;
    const char *what;
    void *operands;
    unsigned warp_generation;
    unsigned storage_block;  // the block that `storage` was last cleared for
    alignas(16) unsigned char storage[THREAD_STORAGE];
};

struct SharedArray {
    unsigned char *memory;
    std::size_t bytes;
};

Context scheduler_context;
void *scheduler_sanitizer_fiber;
Fiber **fibers = nullptr;  // in the order of creation
unsigned fiber_count = 0;
Fiber **threads = nullptr;  // the fiber of each thread of the running block
unsigned thread_count;
Fiber *running;
EmulatorLaunch launch;
SharedArray shared_arrays[MAX_SHARED_ARRAYS];
SharedArray dynamic_shared;
unsigned blocks_started = 0;
unsigned barrier_arrivals;
unsigned barrier_generation;
int barrier_result;
// One object for even generations and one for odd ones: with a single one a thread that leaves barrier n
// would also acquire what others release on their way to barrier n + 1, and hide their races.
char barrier_sync[2];
char warp_sync[2][32];
bool failed;
int failure;

void fiber_main();

#if defined(EMULATOR_ASSEMBLY)
// Pushes the registers that a function must preserve, changes stacks, pops the other's.
extern "C" void emulator_switch_stack(void **saved, void *next);
asm(R"(
.text
.globl emulator_switch_stack
.type emulator_switch_stack, @function
emulator_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch_stack, .-emulator_switch_stack
)");

void switch_context(Context &from, Context &to) {
    emulator_switch_stack(&from.stack_pointer, to.stack_pointer);
}

void prepare_context(Fiber &fiber) {
    void **top = reinterpret_cast<void **>(fiber.stack + STACK_BYTES);
    *--top = nullptr;                                   // alignment: as after a call
    *--top = reinterpret_cast<void *>(&fiber_main);     // where `ret` goes
    for (int saved_register = 0; saved_register < 6; ++saved_register) *--top = nullptr;
    fiber.context.stack_pointer = top;
}
#else
void switch_context(Context &from, Context &to) { swapcontext(&from.context, &to.context); }

void prepare_context(Fiber &fiber) {
    getcontext(&fiber.context.context);
    fiber.context.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.context.uc_link = nullptr;
    makecontext(&fiber.context.context, fiber_main, 0);
}
#endif

void fail(int code, const char *format, ...) {
    if (failed) return;  // the first mistake is the one to report
    failed = true;
    failure = code;
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(launch.message, launch.message_size, format, arguments);
    va_end(arguments);
}

void to_scheduler() {
    Fiber *self = running;
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(scheduler_sanitizer_fiber, NO_SYNCHRONISATION);
    switch_context(self->context, scheduler_context);
}

void to_fiber(Fiber *fiber) {
    running = fiber;
    emulator_thread = &fiber->thread;
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(fiber->sanitizer_fiber, NO_SYNCHRONISATION);
    switch_context(scheduler_context, fiber->context);
}

void fiber_main() {
    for (;;) {
        launch.entry(launch.arguments);
        running->state = DONE;
        to_scheduler();
    }
}

bool make_fibers(unsigned count) {
    if (count <= fiber_count) return true;
    fibers = static_cast<Fiber **>(std::realloc(fibers, count * sizeof *fibers));
    threads = static_cast<Fiber **>(std::realloc(threads, count * sizeof *threads));
    for (; fiber_count < count; ++fiber_count) {
        void *stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) return false;
        Fiber *fiber = static_cast<Fiber *>(std::calloc(1, sizeof(Fiber)));
        if (fiber == nullptr) return false;
        fiber->stack = static_cast<char *>(stack);
        if (__tsan_create_fiber) fiber->sanitizer_fiber = __tsan_create_fiber(0);
        prepare_context(*fiber);
        fibers[fiber_count] = fiber;
    }
    return true;
}

// Plain stores: a library's memset would be taken for an access of the thread that runs.
void fill(volatile unsigned char *memory, std::size_t bytes, unsigned char value) {
    for (std::size_t i = 0; i < bytes; ++i) memory[i] = value;
}

void reset_shared(SharedArray &array) {
    if (array.memory == nullptr) return;
    if (launch.memory_per_block) {
        array.memory = nullptr;  // a fresh one on first use
    } else {
        fill(array.memory, array.bytes, 0xff);
    }
}

// New memory from the system itself: a race detector takes the library's mmap and malloc for a write to all of
// it by the calling thread.
unsigned char *pages(std::size_t bytes) {
#if defined(__linux__)
    long memory = syscall(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
    return memory == -1 ? nullptr : reinterpret_cast<unsigned char *>(memory);
#else
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<unsigned char *>(memory);
#endif
}

// Room for shared memory that is never used twice, where each block has its own.
unsigned char *from_arena(std::size_t bytes) {
    static unsigned char *arena = nullptr;
    static std::size_t left = 0;
    bytes = (bytes + 63) / 64 * 64;
    if (bytes > left) {
        left = bytes > (std::size_t(1) << 26) ? bytes : std::size_t(1) << 26;
        arena = pages(left);
        if (arena == nullptr) return nullptr;
    }
    unsigned char *found = arena;
    arena += bytes;
    left -= bytes;
    return found;
}

unsigned char *allocate_shared(std::size_t bytes) {
    void *memory = nullptr;
    if (launch.memory_per_block) {
        memory = from_arena(bytes);
    } else if (posix_memalign(&memory, 16, bytes) != 0) {
        memory = nullptr;
    }
    if (memory == nullptr) {
        std::fprintf(stderr, "emulator: no memory for %zu bytes of shared memory\n", bytes);
        std::abort();
    }
    fill(static_cast<unsigned char *>(memory), bytes, 0xff);
    return static_cast<unsigned char *>(memory);
}

void *shared_memory(SharedArray &array, std::size_t bytes) {
    if (array.memory == nullptr) {
        array.memory = allocate_shared(bytes);
        array.bytes = bytes;
    }
    return array.memory;
}

const char *describe(const EmulatorThread &thread) {
    static char texts[2][96];
    static int next = 0;
    char *text = texts[next = 1 - next];
    std::snprintf(text, sizeof texts[0], "thread (%u, %u, %u) of block (%u, %u, %u)", thread.thread_index.x,
                  thread.thread_index.y, thread.thread_index.z, thread.block_index.x, thread.block_index.y,
                  thread.block_index.z);
    return text;
}

// Every thread of the block waits at a barrier: let them go, if it is the same one.
void release_barrier() {
    Fiber *first = threads[0];
    int count = 0;
    for (unsigned rank = 0; rank < thread_count; ++rank) {
        Fiber *fiber = threads[rank];
        if (fiber->line != first->line || std::strcmp(fiber->file, first->file) != 0) {
            fail(EMULATOR_DIVERGENCE, "barrier divergence: %s waits at %s:%d, %s at %s:%d",
                 describe(first->thread), first->file, first->line, describe(fiber->thread), fiber->file,
                 fiber->line);
            return;
        }
        count += fiber->vote != 0;
    }
    barrier_result = (count << 2) | (count > 0) << 1 | (count == int(thread_count));
    ++barrier_generation;
    barrier_arrivals = 0;
    for (unsigned rank = 0; rank < thread_count; ++rank) threads[rank]->state = READY;
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
    if (at_warp) {
        unsigned first = at_warp->thread.rank / WARP * WARP;
        for (unsigned lane = 0; lane < WARP; ++lane) {
            if (!(at_warp->mask >> lane & 1)) continue;
            Fiber *other = first + lane < thread_count ? threads[first + lane] : nullptr;
            if (other && other->state == AT_WARP && other->mask == at_warp->mask &&
                other->line == at_warp->line)
                continue;
            if (!other || other->state == DONE) {
                fail(EMULATOR_DIVERGENCE, "warp divergence: %s waits in %s at %s:%d for lane %u, which %s",
                     describe(at_warp->thread), at_warp->what, at_warp->file, at_warp->line, lane,
                     other ? "has left the kernel" : "does not exist");
            } else {
                fail(EMULATOR_DIVERGENCE, "warp divergence: %s waits in %s at %s:%d (mask 0x%08x), %s at %s:%d",
                     describe(at_warp->thread), at_warp->what, at_warp->file, at_warp->line, at_warp->mask,
                     describe(other->thread), other->file, other->line);
            }
            return;
        }
    }
    if (at_barrier && done) {
        fail(EMULATOR_DIVERGENCE, "barrier divergence: %s waits at %s:%d, %s has left the kernel",
             describe(at_barrier->thread), at_barrier->file, at_barrier->line, describe(done->thread));
        return;
    }
    fail(EMULATOR_DIVERGENCE, "the threads wait for each other for ever");
}

std::uint32_t random_state;

std::uint32_t random_below(std::uint32_t limit) {  // xorshift32
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % limit;
}

void order_of(unsigned *order, unsigned count) {
    for (unsigned i = 0; i < count; ++i) order[i] = launch.schedule == 1 ? count - 1 - i : i;
    if (launch.schedule != 2) return;
    for (unsigned i = count; i > 1; --i) {
        unsigned other = random_below(i), kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}

void run_block(EmulatorIndex block_index, unsigned block_rank, unsigned *order) {
    ++blocks_started;
    reset_shared(dynamic_shared);
    for (SharedArray &array : shared_arrays) reset_shared(array);
    barrier_arrivals = 0;
    for (unsigned rank = 0; rank < thread_count; ++rank) {
        // Another fiber for the same thread of the next block, or the race detector would take the two for
        // one thread, whose accesses are in order.
        Fiber *fiber = fibers[(rank + block_rank) % fiber_count];
        threads[rank] = fiber;
        unsigned x = emulator_block_dim.x, y = emulator_block_dim.y;
        fiber->thread = {{rank % x, rank / x % y, rank / (x * y)}, block_index, rank, rank % WARP};
        fiber->state = READY;
        fiber->warp_generation = 0;
    }
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
        if (barrier_arrivals == thread_count) {
            release_barrier();
        } else if (!progress) {
            report_deadlock();
        }
        if (launch.schedule == 2) order_of(order, thread_count);
    }
}

// Where the processor can: results that are denormal become 0, and so do denormal operands.
class FlushDenormals {
#if defined(__SSE__)
  public:
    explicit FlushDenormals(bool flush) : saved(_mm_getcsr()) {
        constexpr unsigned BOTH = 0x8040;  // of MXCSR
        _mm_setcsr(flush ? saved | BOTH : saved & ~BOTH);
    }
    ~FlushDenormals() { _mm_setcsr(saved); }

  private:
    unsigned saved;
#else
  public:
    explicit FlushDenormals(bool) {}
#endif
};

// After a failure fibers are left in the middle of the kernel: start each of them afresh.
void restart_fibers() {
    for (unsigned i = 0; i < fiber_count; ++i) prepare_context(*fibers[i]);
}

void forget_shared(SharedArray &array) {
    if (!launch.memory_per_block) std::free(array.memory);
    array = {nullptr, 0};
}

}  // namespace

EmulatorThread *emulator_thread;
EmulatorIndex emulator_block_dim;
EmulatorIndex emulator_grid_dim;
int emulator_perturb;

int emulator_barrier(const char *file, int line, int vote) {
    Fiber *self = running;
    self->file = file;
    self->line = line;
    self->vote = vote;
    self->state = AT_BARRIER;
    char *sync = &barrier_sync[barrier_generation & 1];
    if (__tsan_release) __tsan_release(sync);
    ++barrier_arrivals;
    to_scheduler();
    if (__tsan_acquire) __tsan_acquire(sync);
    return barrier_result;
}

void emulator_warp_exchange(unsigned mask, const char *what, const char *file, int line, void *mine,
                            void (*complete)(void *const lanes[32], unsigned mask)) {
    Fiber *self = running;
    unsigned first = self->thread.rank / WARP * WARP;
    if (!(mask >> self->thread.lane & 1)) {
        fail(EMULATOR_DIVERGENCE, "%s at %s:%d: %s is lane %u, which is not in its own mask 0x%08x", what, file,
             line, describe(self->thread), self->thread.lane, mask);
        to_scheduler();
    }
    self->mask = mask;
    self->what = what;
    self->file = file;
    self->line = line;
    self->operands = mine;
    self->state = AT_WARP;
    bool orders_memory = std::strcmp(what, "__syncwarp") == 0;
    char *sync = &warp_sync[self->warp_generation & 1][first / WARP];
    if (orders_memory && __tsan_release) __tsan_release(sync);
    void *lanes[WARP];
    bool all_here = true;
    for (unsigned lane = 0; lane < WARP; ++lane) {
        lanes[lane] = nullptr;
        if (!(mask >> lane & 1)) continue;
        Fiber *other = first + lane < thread_count ? threads[first + lane] : nullptr;
        if (!other || other->state != AT_WARP || other->mask != mask || other->line != line ||
            std::strcmp(other->what, what) != 0) {
            all_here = false;
            break;
        }
        lanes[lane] = other->operands;
    }
    if (all_here) {
        complete(lanes, mask);
        for (unsigned lane = 0; lane < WARP; ++lane)
            if (mask >> lane & 1) threads[first + lane]->state = READY;
    } else {
        to_scheduler();
    }
    if (orders_memory && __tsan_acquire) __tsan_acquire(sync);
    self->warp_generation += orders_memory;
}

void *emulator_shared(int id, std::size_t bytes) { return shared_memory(shared_arrays[id], bytes); }

void *emulator_dynamic_shared() {
    return shared_memory(dynamic_shared, launch.dynamic_shared_bytes ? launch.dynamic_shared_bytes : 1);
}

void *emulator_thread_storage() {
    if (running->storage_block != blocks_started) {
        fill(running->storage, sizeof running->storage, 0);
        running->storage_block = blocks_started;
    }
    return running->storage;
}

void emulator_stop(const char *file, int line, const char *what) {
    fail(EMULATOR_STOPPED, "%s: %s at %s:%d", what, describe(running->thread), file, line);
    for (;;) to_scheduler();
}

void emulator_complete_shuffle(void *const lanes[32], unsigned mask) {
    for (unsigned lane = 0; lane < WARP; ++lane) {
        if (!(mask >> lane & 1)) continue;
        ShuffleLane *to = static_cast<ShuffleLane *>(lanes[lane]);
        // A lane that takes no part has nothing to give: what CUDA leaves undefined is NaN here.
        bool is_there = to->source < WARP && (mask >> to->source & 1);
        const ShuffleLane *from = is_there ? static_cast<ShuffleLane *>(lanes[to->source]) : nullptr;
        for (unsigned i = 0; i < sizeof to->out; ++i) to->out[i] = from ? from->in[i] : 0xff;
    }
}

void emulator_complete_ballot(void *const lanes[32], unsigned mask) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < WARP; ++lane)
        if (mask >> lane & 1) votes |= unsigned(static_cast<ShuffleLane *>(lanes[lane])->is_set != 0) << lane;
    for (unsigned lane = 0; lane < WARP; ++lane)
        if (mask >> lane & 1) static_cast<ShuffleLane *>(lanes[lane])->ballot = votes;
}

void emulator_complete_nothing(void *const[32], unsigned) {}

int emulator_run(const EmulatorLaunch *request) {
    launch = *request;
    failed = false;
    failure = EMULATOR_OK;
    thread_count = launch.block[0] * launch.block[1] * launch.block[2];
    emulator_block_dim = {launch.block[0], launch.block[1], launch.block[2]};
    emulator_grid_dim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    emulator_perturb = launch.perturb;
    random_state = launch.seed * 2654435761u + 1;
    if (random_state == 0) random_state = 1;
    if (__tsan_get_current_fiber) scheduler_sanitizer_fiber = __tsan_get_current_fiber();
    // Some fibers more than threads, so that those of neighbouring blocks differ.
    if (!make_fibers(thread_count + (launch.memory_per_block ? 7 : 0))) {
        std::snprintf(launch.message, launch.message_size, "no memory for %u threads", thread_count);
        return EMULATOR_NO_MEMORY;
    }
    unsigned blocks = launch.grid[0] * launch.grid[1] * launch.grid[2];
    unsigned *thread_order = static_cast<unsigned *>(std::malloc(thread_count * sizeof(unsigned)));
    unsigned *block_order = static_cast<unsigned *>(std::malloc(blocks * sizeof(unsigned)));
    order_of(block_order, blocks);
    FlushDenormals flush(launch.flush_denormals);
    for (unsigned i = 0; i < blocks && !failed; ++i) {
        unsigned rank = block_order[i];
        run_block({rank % launch.grid[0], rank / launch.grid[0] % launch.grid[1],
                   rank / (launch.grid[0] * launch.grid[1])}, rank, thread_order);
    }
    std::free(thread_order);
    std::free(block_order);
    for (SharedArray &array : shared_arrays) forget_shared(array);
    forget_shared(dynamic_shared);
    if (failed) restart_fibers();
    return failure;
}
