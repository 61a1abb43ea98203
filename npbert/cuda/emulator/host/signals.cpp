#include "signals.h"

#include <csignal>
#include <cstdint>
#include <pthread.h>
#include <ucontext.h>

namespace {

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGINT};
constexpr int COUNT = sizeof SIGNALS / sizeof *SIGNALS;

SignalTaker taker;
pthread_t launcher;
struct sigaction before[COUNT];
bool is_taken[COUNT];
stack_t stack_before;
// A handler cannot run on a stack that has overflown.
alignas(16) char handler_stack[64 * 1024];

const char *stack_pointer(void *context) {
    [[maybe_unused]] ucontext_t *state = static_cast<ucontext_t *>(context);
#if defined(__linux__) && defined(__x86_64__)
    return reinterpret_cast<const char *>(state->uc_mcontext.gregs[REG_RSP]);
#elif defined(__linux__) && defined(__aarch64__)
    return reinterpret_cast<const char *>(state->uc_mcontext.sp);
#else
    return nullptr;  // of no fiber
#endif
}

void pass_on(const struct sigaction &action, int number, siginfo_t *info, void *context) {
    if (action.sa_flags & SA_SIGINFO)
        action.sa_sigaction(number, info, context);
    else
        action.sa_handler(number);
}

void on_signal(int number, siginfo_t *info, void *context) {
    int index = 0;
    while (SIGNALS[index] != number) ++index;
    bool is_ours = pthread_equal(pthread_self(), launcher);
    if (number == SIGINT) {
        if (!is_ours) {
            pthread_kill(launcher, number);
            return;
        }
        pass_on(before[index], number, info, context);
    }
    bool is_done = is_ours && taker(number, stack_pointer(context), static_cast<const char *>(info->si_addr));
    // As if nobody had taken it: the instruction is tried again, and the signal comes again.
    if (!is_done) sigaction(number, &before[index], nullptr);
}

}  // namespace

void take_signals(SignalTaker with) {
    taker = with;
    launcher = pthread_self();
    stack_t stack = {};
    stack.ss_sp = handler_stack;
    stack.ss_size = sizeof handler_stack;
    sigaltstack(&stack, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < COUNT; ++i) {
        sigaction(SIGNALS[i], nullptr, &before[i]);
        bool has_handler = (before[i].sa_flags & SA_SIGINFO) ||
                           (before[i].sa_handler != SIG_DFL && before[i].sa_handler != SIG_IGN);
        is_taken[i] = SIGNALS[i] != SIGINT || has_handler;
        if (is_taken[i]) sigaction(SIGNALS[i], &action, nullptr);
    }
}

void give_signals_back() {
    for (int i = 0; i < COUNT; ++i)
        if (is_taken[i]) sigaction(SIGNALS[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
}
