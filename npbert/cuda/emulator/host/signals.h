// What would end the process: a wild pointer in a kernel, a division by zero; and what has to, now and then:
// the interrupt key.
#pragma once

// Is told the signal, the stack pointer and, for a wild pointer, the address. Does not return if it can deal
// with the signal by leaving the code that was running; returns false if it has nothing to do with it.
typedef bool (*SignalTaker)(int signal, const char *stack_pointer, const char *address);

// From here on signals of this CPU thread go to the taker. The interrupt goes to the handler that it had, too.
void take_signals(SignalTaker taker);
void give_signals_back();
