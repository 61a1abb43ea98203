#include "context.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace {

#if defined(__SSE__)
constexpr unsigned FLUSH_RESULTS_AND_OPERANDS = 0x8040;  // bits of MXCSR
unsigned float_mode;
#endif

}  // namespace

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

void switch_context(Context &from, Context &to) { emulator_switch_stack(&from.stack_pointer, to.stack_pointer); }

void prepare_context(Context &context, char *stack, std::size_t bytes, void (*entry)()) {
    void **top = reinterpret_cast<void **>(stack + bytes);
    *--top = nullptr;                           // alignment: as after a call
    *--top = reinterpret_cast<void *>(entry);   // where `ret` goes
    for (int saved_register = 0; saved_register < 6; ++saved_register) *--top = nullptr;
    context.stack_pointer = top;
}

void keep_float_mode() {}

#else

void switch_context(Context &from, Context &to) {
    swapcontext(&from.context, &to.context);
    keep_float_mode();
}

void prepare_context(Context &context, char *stack, std::size_t bytes, void (*entry)()) {
    getcontext(&context.context);
    context.context.uc_stack.ss_sp = stack;
    context.context.uc_stack.ss_size = bytes;
    context.context.uc_link = nullptr;
    makecontext(&context.context, entry, 0);
}

// A ucontext brings the mode that it was left in, perhaps by another launch.
void keep_float_mode() { restore_float_mode(float_mode); }

#endif

#if defined(__SSE__)

unsigned set_float_mode(bool flush_denormals) {
    unsigned before = _mm_getcsr();
    float_mode = flush_denormals ? before | FLUSH_RESULTS_AND_OPERANDS : before & ~FLUSH_RESULTS_AND_OPERANDS;
    _mm_setcsr(float_mode);
    return before;
}

void restore_float_mode(unsigned mode) { _mm_setcsr(mode); }

#else

unsigned set_float_mode(bool) { return 0; }
void restore_float_mode(unsigned) {}

#endif
