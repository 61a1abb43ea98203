"""Sentences of sanitizers' reports, such as GCC 12's and Clang 16's are."""

import pytest

from npbert.cuda import emulator
from npbert.cuda.emulator.reports import error_of

RACE = """==================
WARNING: ThreadSanitizer: data race (pid=7)
  Write of size 4 at 0x7f82fae00004 by thread T33:
    #0 emulator_kernel_sum /home/me/sum.cu:12 (sum-51+0xd6fe4)
    #1 void emulator_call<float*>(void (*)(float*), void**) /host/emulator.h:324 (sum-51+0x1)

  Previous atomic read of size 8 at 0x7f82fae00004 by thread T1:
    #0 atomicAdd<float> /host/emulator.h:179 (sum-51+0xd6fff)
    #1 block_sum reduce.cuh:28 (sum-51+0xd6fff)

  Location is global '<null>' at 0x000000000000 ([stack]+0x1e910)

  Thread T33 'thread (1, 0, 0) of block (2, 3, 0)' (tid=0, running) created by main thread at:
    #0 make_fibers /host/scheduler.cpp:161 (sum-51+0x4c8b)

  Thread T1 (tid=0, running) created by main thread at:
    #0 make_fibers /host/scheduler.cpp:161 (sum-51+0x4c8b)

SUMMARY: ThreadSanitizer: data race /home/me/sum.cu:12 in emulator_kernel_sum
"""
OVERFLOW = """=================================================================
==7==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x604000000038 at pc 0x5 bp 0x7 sp 0x7
READ of size 16 at 0x604000000038 thread T0
    #0 0x55 in load_pack(float const*) number.cuh:44
    #1 0x55 in emulator_kernel_f /home/me/f.cu:3

0x604000000038 is located 0 bytes to the right of 40-byte region [0x604000000010,0x604000000038)
"""
WILD = """==7==ERROR: AddressSanitizer: SEGV on unknown address 0x000000000000 (pc 0x55 bp 0x7f sp 0x7f T0)
==7==The signal is caused by a READ memory access.
    #0 0x55 in emulator_kernel_f f.cu:9
"""


@pytest.mark.parametrize(
    ("report", "kind", "sentence"),
    [
        (
            RACE,
            emulator.RaceError,
            "k: data race: write of 4 bytes at sum.cu:12 by thread (1, 0, 0) of block (2, 3, 0); "
            "atomic read of 8 bytes at reduce.cuh:28",
        ),
        (OVERFLOW, emulator.OutOfBounds, "k: out of bounds: read of 16 bytes at number.cuh:44"),
        (WILD, emulator.OutOfBounds, "k: out of bounds: an access at f.cu:9"),
        (
            "f.cu:15:32: runtime error: index -1 out of bounds for type 'float [4]'\n",
            emulator.OutOfBounds,
            "k: index -1 out of bounds for type 'float [4]' at f.cu:15",
        ),
        (
            "/home/me/f.cu:42:40: runtime error: store to misaligned address 0x14 for type 'struct float4'\n",
            emulator.OutOfBounds,
            "k: store to misaligned address 0x14 for type 'struct float4' at f.cu:42",
        ),
        (
            "==7==WARNING: ASan is ignoring requested __asan_handle_no_return\nf.cu:3:7: runtime error: "
            "shift exponent 32 is too large for 32-bit type 'int'\n",
            emulator.KernelStopped,
            "k: shift exponent 32 is too large for 32-bit type 'int' at f.cu:3",
        ),
        (
            "==7==ERROR: AddressSanitizer: FPE on unknown address 0x55\n    #0 0x55 in f f.cu:3\n",
            emulator.KernelStopped,
            "k: integer division by zero at f.cu:3",
        ),
        (
            "==7==ERROR: AddressSanitizer: stack-overflow on address 0x7f\n    #0 0x55 in f f.cu:3\n",
            emulator.KernelStopped,
            "k: stack overflow at f.cu:3",
        ),
        (
            "==7==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x60\n"
            "READ of size 4 at 0x60 thread T0\n"
            "==7==WARNING: Failed to use and restart external symbolizer!\n    #0 0x55  (f+0x1)\n",
            emulator.OutOfBounds,
            "k: out of bounds: read of 4 bytes at an unknown place; install llvm-symbolizer for lines",
        ),
        (
            "out of memory\n",
            emulator.EmulatorError,
            "k: the emulated launch ended with code 66: out of memory",
        ),
    ],
)
def test_the_sentence(report, kind, sentence):
    error = error_of("k", 66, report)
    assert type(error) is kind
    first, _, rest = str(error).partition("\n")
    assert first == sentence
    assert kind is emulator.EmulatorError or rest == report
