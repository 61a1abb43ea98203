"""Machine code: how wide loads and stores are, loops, products of matrices."""

import json

from npbert.cuda.facts.instructions import (
    Instruction,
    Loop,
    Width,
    global_loads,
    global_stores,
    loops,
    matrix_flops,
    matrix_loop,
    matrix_products,
    parse_disassembly,
    stack_accesses,
)
from npbert.cuda.facts.toolchain import compile_cubin, disassemble

# As nvdisasm 13.5 prints a kernel with -json; shortened.
FLOW = {"control-flow": "True"}
DISASSEMBLY = [
    {"ELF": {"layout-id": 2}, "SM": {"version": {"major": 8, "minor": 0}}},
    [
        {
            "function-name": "multiply",
            "start": 0,
            "length": 256,
            "other-attributes": [],
            "sass-instructions": [
                {"opcode": "LDC", "operands": "R1,c[0x0][0x37c]"},
                {"opcode": "LDG.E.128.CONSTANT", "operands": "R4,desc[UR4][R2.64]"},
                {"opcode": "LDG.E.U16", "operands": "R8,desc[UR4][R2.64]"},
                {"opcode": "LDGSTS.E.BYPASS.LTC128B.128", "operands": "[R9],desc[UR4][R2.64]"},
                {"opcode": "LDG.E.64", "operands": "R10,desc[UR4][R2.64]"},
                {"opcode": "HMMA.16816.F32", "operands": "R4,R8,R2,R4"},
                {"predicate": "@!P0", "opcode": "BRA", "operands": "0xc0", "other-attributes": FLOW},
                {"opcode": "HMMA.16816.F32", "operands": "R4,R8,R2,R4"},
                {"opcode": "HMMA.1688.F32", "operands": "R4,R8,R2,R4"},
                {"opcode": "STL.64", "operands": "[R1],R4"},
                {"predicate": "@P1", "opcode": "BRA", "operands": "P2,0x70", "other-attributes": FLOW},
                {"predicate": "@P2", "opcode": "BRA", "operands": "UP0,0x10", "other-attributes": FLOW},
                {"opcode": "STG.E.128", "operands": "desc[UR4][R2.64],R4"},
                {"opcode": "STG.E", "operands": "desc[UR4][R2.64],R4"},
                {"opcode": "EXIT", "other-attributes": FLOW},
                {"opcode": "BRA", "operands": "0xf0", "other-attributes": FLOW},
            ],
        }
    ],
]
SOURCE = """
extern "C" __global__ void copy(const float *x, float *y, const float4 *from, float4 *to, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        y[i] = x[i];
        to[i] = from[i];
    }
}
"""


def code() -> list[Instruction]:
    return parse_disassembly(json.dumps(DISASSEMBLY))["multiply"]


def test_parse_disassembly():
    assert len(code()) == 16
    assert code()[1] == Instruction(16, "LDG.E.128.CONSTANT", "R4,desc[UR4][R2.64]")
    assert code()[14] == Instruction(14 * 16, "EXIT", "")


def test_widths():
    assert global_loads(code()) == Width(instructions=4, wide=2)
    assert global_stores(code()) == Width(instructions=2, wide=1)
    assert stack_accesses(code()) == 1


def test_loops():
    # Neither the jump ahead nor the endless loop behind the end.
    assert loops(code()) == [Loop(0x70, 0xA0), Loop(0x10, 0xB0)]


def test_products():
    assert matrix_products(code()) == 3
    assert matrix_flops(code()) == 4096 + 4096 + 2048
    # The inner loop has only two of the three.
    assert [instruction.offset for instruction in matrix_loop(code())] == list(range(0x10, 0xC0, 0x10))
    assert matrix_loop([one for one in code() if not one.opcode.startswith("HMMA")]) == []


def test_real_code(toolchain):
    for architecture in ("sm_75", "sm_100"):
        kernels = parse_disassembly(disassemble(compile_cubin(SOURCE, "copy.cu", architecture)))
        found = kernels["copy"]
        loads, stores = global_loads(found), global_stores(found)
        # However often the loop was unrolled, there is a wide one for each other.
        assert loads == stores and loads.wide > 0 and loads.instructions == 2 * loads.wide
        assert stack_accesses(found) == 0
        assert loops(found)
