// Several stacks on one CPU thread: what a fiber is made of.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && defined(__linux__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_ASSEMBLY  // ten times as fast as ucontext, which saves the signal mask by a system call
#else
#include <ucontext.h>
#endif

// Where to go on.
struct Context {
#if defined(EMULATOR_ASSEMBLY)
    void *stack_pointer;
#else
    ucontext_t context;
#endif
};

// Let a context begin with `entry`, which must not return, on a stack.
void prepare_context(Context &context, char *stack, std::size_t bytes, void (*entry)());

// Go on with `to`; returns when somebody goes on with `from`.
void switch_context(Context &from, Context &to);

// Whether the processor takes denormal numbers for 0, as operands and as results. Returns its mode, for
// restore_float_mode. All contexts have the same mode.
unsigned set_float_mode(bool flush_denormals);
void restore_float_mode(unsigned mode);

// An `entry` begins with it.
void keep_float_mode();
