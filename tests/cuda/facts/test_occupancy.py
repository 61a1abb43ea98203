"""Occupancy, against values worked out by hand and against NVIDIA's own calculator in C++."""

import subprocess

import numpy as np
import pytest

from npbert.cuda import emulator
from npbert.cuda.facts import toolchain as tools
from npbert.cuda.facts.architectures import ARCHITECTURES, KIB
from npbert.cuda.facts.occupancy import occupancy

# Reads lines of: major minor max_warps shared_per_sm shared_per_block reserved threads registers shared.
ORACLE = r"""
#include <cstdio>
#include <cstring>
#include <climits>
#include "cuda_occupancy.h"

int main() {
    int major, minor, warps, per_sm, per_block, reserved, threads, registers, shared;
    while (std::scanf("%d %d %d %d %d %d %d %d %d", &major, &minor, &warps, &per_sm, &per_block, &reserved,
                      &threads, &registers, &shared) == 9) {
        cudaOccDeviceProp device;
        device.computeMajor = major;
        device.computeMinor = minor;
        device.maxThreadsPerBlock = 1024;
        device.maxThreadsPerMultiprocessor = 32 * warps;
        device.regsPerBlock = device.regsPerMultiprocessor = 65536;
        device.warpSize = 32;
        device.sharedMemPerBlock = 48 * 1024;
        device.sharedMemPerMultiprocessor = per_sm;
        device.numSms = 1;
        device.sharedMemPerBlockOptin = per_block;
        device.reservedSharedMemPerBlock = reserved;
        cudaOccFuncAttributes kernel;
        kernel.maxThreadsPerBlock = 1024;
        kernel.numRegs = registers;
        kernel.sharedSizeBytes = 0;
        kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        kernel.maxDynamicSharedSizeBytes = shared;
        kernel.numBlockBarriers = 1;
        cudaOccDeviceState state;
        cudaOccResult result;
        std::memset(&result, 0, sizeof result);
        cudaOccError error =
            cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, shared);
        std::printf("%d\n", error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : -1);
    }
}
"""


@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared_bytes", "blocks", "fraction", "limited_by"),
    [
        ("sm_75", 256, 32, 0, 4, 1.0, "warps"),
        ("sm_75", 64, 32, 0, 16, 1.0, "warps"),
        ("sm_75", 32, 32, 0, 16, 0.5, "blocks"),
        ("sm_75", 128, 32, 33 * KIB, 1, 0.125, "shared memory"),
        ("sm_80", 256, 32, 0, 8, 1.0, "warps"),
        ("sm_80", 256, 33, 0, 6, 0.75, "registers"),  # 33 registers take as many as 40 do
        ("sm_80", 256, 40, 0, 6, 0.75, "registers"),
        ("sm_80", 128, 255, 0, 2, 0.125, "registers"),
        ("sm_80", 128, 32, 48 * KIB, 3, 0.1875, "shared memory"),  # 49 of 164 KiB each
        ("sm_86", 256, 40, 0, 6, 1.0, "warps"),
        ("sm_89", 32, 32, 0, 24, 0.5, "blocks"),
        ("sm_90", 1024, 64, 0, 1, 0.5, "registers"),
        ("sm_90", 128, 128, 227 * KIB, 1, 0.0625, "shared memory"),
        ("sm_100", 128, 128, 100 * KIB, 2, 0.125, "shared memory"),
        ("sm_120", 128, 64, 99 * KIB, 1, 4 / 48, "shared memory"),
    ],
)
def test_worked_out_by_hand(architecture, threads, registers, shared_bytes, blocks, fraction, limited_by):
    found = occupancy(ARCHITECTURES[architecture], threads, registers, shared_bytes)
    assert (found.blocks, found.fraction) == (blocks, fraction)
    assert found.warps == blocks * threads // 32
    assert found.limited_by == limited_by


@pytest.mark.parametrize(
    ("threads", "registers", "shared_bytes"),
    [(1025, 32, 0), (1024, 65, 0), (128, 256, 0), (128, 32, 99 * KIB + 1)],
)
def test_a_block_that_does_not_fit(threads, registers, shared_bytes):
    found = occupancy(ARCHITECTURES["sm_86"], threads, registers, shared_bytes)
    assert (found.blocks, found.warps, found.fraction) == (0, 0, 0)


def test_as_nvidia_calculates(compiler, toolchain, tmp_path):
    headers = tools.installed_file(tools.HEADERS, "cuda_occupancy.h").parent
    (tmp_path / "oracle.cpp").write_text(ORACLE, encoding="utf-8")
    command = [emulator.compiler(), "-w", f"-I{headers}", "oracle.cpp", "-o", "oracle"]
    subprocess.run(command, cwd=tmp_path, check=True)

    rng = np.random.default_rng(0)
    cases, lines = [], []
    for name, limits in ARCHITECTURES.items():
        major, minor = divmod(int(name.removeprefix("sm_")), 10)
        for _ in range(300):
            threads, registers = int(rng.integers(1, 1025)), int(rng.integers(1, 256))
            shared = int(rng.integers(0, 2)) * int(rng.integers(0, limits.max_block_shared_bytes + 2000))
            cases.append((limits, threads, registers, shared))
            device = (
                limits.max_warps,
                limits.shared_bytes,
                limits.max_block_shared_bytes,
                limits.reserved_shared_bytes,
            )
            lines.append(" ".join(map(str, (major, minor, *device, threads, registers, shared))))
    text = "\n".join(lines)
    done = subprocess.run([tmp_path / "oracle"], input=text, capture_output=True, text=True, check=True)
    expected = [int(line) for line in done.stdout.split()]
    assert len(expected) == len(cases)
    assert len(set(expected)) > 10
    for case, blocks in zip(cases, expected, strict=True):
        assert occupancy(*case).blocks == blocks, case
