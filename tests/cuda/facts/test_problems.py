"""Which kernels are compiled and how they are launched: what ops ask for when they are called."""

import numpy as np
import pytest

from npbert.cuda import emulator
from npbert.cuda.emulator import Launch, Program
from npbert.cuda.facts.problems import DTYPES, HEAD_WIDTHS, SMALL, problems
from npbert.cuda.facts.variants import MATRIX_PRODUCTS, kernel_variants, label, matrix_flops
from npbert.cuda.source import kernel_folder, kernel_signatures, kernel_source


@pytest.fixture(scope="module")
def everything():
    return list(problems())


def kernels_of_the_sources() -> set[str]:
    files = [path.name for path in kernel_folder().glob("*.cu")]
    return {kernel for file in files for kernel in kernel_signatures(kernel_source(file))}


def test_every_kernel_is_launched_for_every_dtype(everything):
    variants = {(variant.kernel, variant.label) for variant in kernel_variants(everything)}
    scalar = kernels_of_the_sources() - set(MATRIX_PRODUCTS)
    attention = {kernel for kernel in scalar if kernel.startswith("softmax_attention")}
    expected = {(kernel, dtype) for kernel in scalar - attention for dtype in DTYPES}
    expected |= {
        (kernel, f"{dtype} H={width}") for kernel in attention for dtype in DTYPES for width in HEAD_WIDTHS
    }
    expected |= {(kernel, f"float16 H={width}") for kernel in MATRIX_PRODUCTS for width in HEAD_WIDTHS}
    assert len(attention) == 4
    assert variants == expected


def test_launches_are_what_a_kernel_takes(everything):
    for problem in everything:
        for launch in problem.launches:
            assert launch.kernel in kernel_signatures(launch.program.source)
            assert np.prod(launch.block) % 32 == 0
            assert np.prod(launch.block) <= 1024
            assert 0 <= launch.shared_bytes <= emulator.SHARED_BYTES


def test_nothing_is_run(everything, monkeypatch):
    monkeypatch.setattr("npbert.cuda.emulator.launching.run_library", None)
    assert [problem.op for problem in problems()] == [problem.op for problem in everything]


def test_what_cannot_be_avoided(everything):
    for problem in everything:
        assert problem.flops > 0
        if problem.launches:
            # No op reads its inputs once in all and still computes.
            assert problem.launched_bytes >= 0.99 * problem.minimum_bytes > 0, problem.op
    bytes_of = {(problem.op, problem.variant, problem.unit): problem.minimum_bytes for problem in everything}
    rows, width = 32 * 512, 768
    # x, residual and y; weight and bias; mean and inv_std.
    expected = 3 * rows * width * 4 + 2 * width * 4 + 2 * rows * 4
    assert bytes_of["residual_layernorm_forward", "float32", "float32"] == expected
    # Words, one row a token; positions; types; three ids a token; y.
    expected = 2 * rows * width * 2 + (512 + 2) * width * 2 + 3 * rows * 8
    assert bytes_of["embedding_forward", "float16", "float32"] == expected
    # Read and written in place; labels.
    assert bytes_of["cross_entropy_in_place", "float64", "float64"] == 2 * 1024 * 30522 * 8 + 1024 * 8


def test_forward_and_backward_of_attention(everything):
    attention = [p for p in everything if p.op.startswith("attention_") and p.launches]
    assert len(attention) == 2 * (len(DTYPES) + 1) * len(HEAD_WIDTHS)
    for forward, backward in zip(attention[::2], attention[1::2], strict=True):
        assert backward.op == "attention_backward"
        assert backward.flops / forward.flops == 2.5  # five products for two


def test_what_tensor_cores_need():
    for problem in problems(SMALL, head_widths=(64,)):
        for launch in problem.launches:
            products = MATRIX_PRODUCTS.get(launch.kernel)
            if products is None:
                assert matrix_flops(launch) is None
            else:
                assert matrix_flops(launch) == products * 2 * 128 * 128 * 64


@pytest.mark.parametrize(
    ("defines", "expected"),
    [
        ((("REAL", "double"), ("ACC", "double")), "float64"),
        ((("REAL", "__half"), ("ACC", "float"), ("HEAD_WIDTH", "32")), "float16 H=32"),
    ],
)
def test_label(defines, expected):
    assert label(Program("", defines)) == expected


def test_launches_that_are_run_get_numbers(compiler):
    seen = []

    def run(launch: Launch) -> None:
        seen.append(launch)
        emulator.run(launch.program, launch.kernel, launch.grid, launch.block, launch.values)

    size = SMALL._replace(tokens=8, width=16, feed_forward=16, words=20, classes=33, labelled=2)
    found = next(problems(size, run, head_widths=()))
    assert found.op == "embedding_forward"
    (launch,) = seen
    arrays = [value for value in launch.values if isinstance(value, np.ndarray)]
    assert all(np.abs(array).max() > 0 for array in arrays)  # tables, ids, and what the kernel wrote
