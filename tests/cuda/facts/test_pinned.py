"""No kernel gets worse unnoticed: facts of all, for every architecture, against those recorded."""

import json
import os

import pytest

from npbert.cuda.facts.architectures import ARCHITECTURES
from npbert.cuda.facts.collect import KernelFacts
from tests.cuda.facts import pinned

# Compiling everything takes 15 seconds an architecture: outside of CI, the oldest and the newest will do.
SOME = ("sm_75", "sm_120")

GOOD = KernelFacts(
    kernel="softmax",
    variant="float16",
    architecture="sm_80",
    threads=128,
    registers=40,
    stack_bytes=0,
    spill_store_bytes=0,
    spill_load_bytes=0,
    stack_accesses=0,
    shared_bytes=1024,
    blocks=8,
    occupancy=0.5,
    limited_by="warps",
    loads=10,
    wide_loads=8,
    stores=4,
    wide_stores=4,
    matrix_products=32,
    matrix_columns=16.0,
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_got_worse(toolchain, architecture):
    if architecture not in SOME and not os.environ.get("CI"):
        pytest.skip(f"compiles all kernels for {architecture}: only with CI=true")
    recorded = pinned.read()
    complaints = pinned.complaints(recorded["kernels"][architecture], pinned.facts_of(architecture))
    advice = (
        f"compiled by {toolchain}, recorded with {recorded['compiler']}; if this is meant, "
        f"{pinned.HOW_TO_RENEW}"
    )
    assert not complaints, "\n".join([*complaints, advice])


def test_all_architectures_are_pinned():
    recorded = pinned.read()["kernels"]
    assert list(recorded) == list(ARCHITECTURES)
    with_tensor_cores = {name for name in recorded["sm_80"] if "mma" in name}
    assert len(with_tensor_cores) == 9
    for name, limits in ARCHITECTURES.items():
        missing = set(recorded["sm_80"]) - set(recorded[name])
        assert missing == (set() if limits.has_mma_m16n8k16 else with_tensor_cores)


def test_what_is_written_can_be_read():
    text = pinned.pin("13.0", [GOOD, GOOD._replace(kernel="other"), GOOD._replace(architecture="sm_90")])
    content = json.loads(text)
    assert content["compiler"] == "13.0"
    assert [list(group) for group in content["kernels"].values()] == [
        ["softmax float16", "other float16"],
        ["softmax float16"],
    ]
    assert pinned.complaints(content["kernels"]["sm_80"], [GOOD, GOOD._replace(kernel="other")]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"registers": 48},
        {"registers": 30},
        {"shared_bytes": 512},
        {"blocks": 9},
        {"wide_loads": 6},
        {"wide_stores": 3},
        {"loads": 100},
    ],
)
def test_what_is_no_worse(change):
    assert complaints_about(change) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"registers": 49}, "49 registers, were 40"),
        ({"stack_bytes": 8}, "8 bytes of stack"),
        ({"spill_store_bytes": 4}, "spills of 4 + 0 bytes"),
        ({"spill_load_bytes": 4}, "spills of 0 + 4 bytes"),
        ({"stack_accesses": 1}, "1 accesses"),
        ({"shared_bytes": 1025}, "1025 bytes of shared memory, were 1024"),
        ({"blocks": 7}, "7 resident blocks, were 8"),
        ({"wide_loads": 5}, "5 loads of 16 bytes, were 8"),
        ({"wide_stores": 2}, "2 stores of 16 bytes, were 4"),
        ({"matrix_products": 64}, "matrix_products is 64, was 32"),
        ({"matrix_columns": 17.0}, "matrix_columns is 17.0, was 16.0"),
        ({"kernel": "new"}, "new float16 sm_80: not pinned"),
    ],
)
def test_what_is_worse(change, words):
    assert words in "\n".join(complaints_about(change))


def test_a_kernel_that_is_gone():
    assert pinned.complaints({"softmax float16": {}}, []) == [
        "softmax float16: pinned, but there is no such kernel"
    ]


def complaints_about(change: dict) -> list[str]:
    """Pin one kernel, change it, and compare."""
    recorded = json.loads(pinned.pin("13.0", [GOOD]))["kernels"]["sm_80"]
    return pinned.complaints(recorded, [GOOD._replace(**change)])
