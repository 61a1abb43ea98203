"""What the assembler says a kernel needs, read from a log, and from a cubin."""

import pytest

from npbert.cuda.facts.resources import Resources, parse_compile_log, parse_resource_usage
from npbert.cuda.facts.toolchain import compile_cubin, resource_usage

# Of ptxas 13.5, of two kernels for sm_80 and one for sm_120; shortened.
LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'spill' for 'sm_80'
ptxas info    : Function properties for spill
ptxas         .     1088 bytes stack frame, 112 bytes spill stores, 116 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 1088 bytes cumulative stack size, 372 bytes cmem[0]
ptxas info    : Compile time = 202.066 ms
ptxas info    : Compiling entry function 'saxpy' for 'sm_80'
ptxas info    : Function properties for saxpy
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 1 barriers, 128 bytes smem, 372 bytes cmem[0]
ptxas info    : Compile time = 1.633 ms
ptxas info    : Compiling entry function 'power' for 'sm_120'
ptxas info    : Function properties for power
ptxas         .     8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 29 registers, used 0 barriers
ptxas info    : Compile time = 17.695 ms
ptxas info    : Function properties for __internal_accurate_pow
ptxas         .     16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
"""
USAGE = """\

Resource usage:
 Common:
  GLOBAL:0
 Function spill:
  REG:255 STACK:1088 SHARED:0 LOCAL:0 CONSTANT[0]:916 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function saxpy:
  REG:14 STACK:0 SHARED:1152 LOCAL:0 CONSTANT[0]:916 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SOURCE = """
extern "C" __global__ void turn(const float *x, float *y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}
// More numbers than there are registers, and an array that is indexed by what only a run can tell.
extern "C" __global__ void spill(const float *x, float *y, int n) {
    float a[256];
    for (int i = 0; i < 256; ++i) a[i] = x[i * n + threadIdx.x];
    for (int k = 0; k < n; ++k)
        for (int i = 0; i < 256; ++i) a[i] = a[i] * a[(i + k) % 256];
    for (int i = 0; i < 256; ++i) y[i * n] = a[i];
}
"""


def test_parse_compile_log():
    assert parse_compile_log(LOG) == {
        "spill": Resources(255, 1088, 112, 116, 0),
        "saxpy": Resources(14, 0, 0, 0, 128),
        # What is called has a stack of its own.
        "power": Resources(29, 24, 4, 8, 0),
    }


def test_a_log_without_kernels():
    assert parse_compile_log("ptxas info    : 0 bytes gmem\n") == {}


@pytest.mark.parametrize(
    ("missing", "field"),
    [
        ("1088 bytes stack frame, ", "stack_bytes"),
        ("112 bytes spill stores, ", "spill_store_bytes"),
        ("116 bytes spill loads", "spill_load_bytes"),
        ("Used 255 registers, ", "registers"),
    ],
)
def test_a_log_that_leaves_something_out(missing, field):
    with pytest.raises(ValueError, match=f"does not say {field} of spill"):
        parse_compile_log(LOG.replace(missing, ""))


def test_parse_resource_usage():
    assert parse_resource_usage(USAGE) == {"spill": (255, 1088), "saxpy": (14, 0)}


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_the_log_and_the_cubin_agree(toolchain, architecture):
    cubin = compile_cubin(SOURCE, "two.cu", architecture)
    by_log, by_cubin = parse_compile_log(cubin.log), parse_resource_usage(resource_usage(cubin))
    assert set(by_log) == set(by_cubin) == {"turn", "spill"}
    for name, resources in by_log.items():
        assert (resources.registers, resources.stack_bytes) == by_cubin[name]
    assert by_log["turn"].shared_bytes == 256
    assert by_log["turn"].registers > 0
    assert by_log["spill"].stack_bytes >= 1024
    assert by_log["spill"].spill_store_bytes > 0 and by_log["spill"].spill_load_bytes > 0
