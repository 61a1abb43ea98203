"""What kernels ask of memory and of the tensor cores, on the emulator, at a small size."""

import pytest

from npbert.cuda.facts.problems import SMALL, problems
from npbert.cuda.facts.traffic import collect_traffic, count_traces
from npbert.cuda.facts.variants import MATRIX_PRODUCTS

# Rows of one or two tiles, so that all of it takes seconds.
SIZE = SMALL._replace(tokens=64, labelled=2)


@pytest.fixture(scope="module")
def found(request):
    request.getfixturevalue("emulated")
    kernels = {launch.kernel for problem in problems(SIZE) for launch in problem.launches}
    progress = []
    traffic = list(collect_traffic(kernels, lambda done, what: progress.append(done), SIZE))
    assert sum(progress) == count_traces(kernels, SIZE)
    return traffic


def test_every_op_is_there(found):
    expected = [problem.op for problem in problems(SIZE, head_widths=(64,)) if problem.launches]
    assert [one.problem.op for one in found] == expected


def test_no_bank_conflicts_to_speak_of(found):
    kernels = [kernel for one in found for kernel in one.kernels]
    assert sum(kernel.shared.requests for kernel in kernels) > 10_000
    for kernel in kernels:
        assert kernel.shared.excess <= 1.15, (kernel.kernel, kernel.variant, kernel.worst_shared)


def test_loads_are_coalesced(found):
    for one in found:
        for kernel in one.kernels:
            assert kernel.loads.requests > 0
            # Rows of 30,522 numbers begin and end in the middle of a sector.
            assert kernel.loads.excess <= 1.2, (kernel.kernel, kernel.variant, kernel.worst_global)


def test_stores_are_coalesced(found):
    for one in found:
        for kernel in one.kernels:
            # float32 sums of eight float16 columns a thread are stored 16 bytes at a time, 32 apart.
            is_sums_of_halves = kernel.variant.startswith("float16") and kernel.stores.excess <= 2
            assert kernel.stores.excess <= 1.1 or is_sums_of_halves, (kernel.kernel, kernel.worst_global)


def test_what_is_asked_for_is_near_the_least(found):
    for one in found:
        assert one.problem.minimum_bytes > 0
        # All that an op needs is asked for at least once; what blocks share they ask for each.
        assert 0.99 <= one.global_bytes / one.problem.minimum_bytes <= 7, one.problem.op


def test_tensor_cores_multiply_no_more_than_the_formulas_say(emulated):
    # Texts of 128 tokens are whole tiles, forward and backward.
    found = list(collect_traffic(MATRIX_PRODUCTS, size=SMALL, head_widths=(32, 64)))
    kernels = [kernel for one in found for kernel in one.kernels]
    assert [kernel.kernel for kernel in kernels] == 2 * list(MATRIX_PRODUCTS)
    for kernel in kernels:
        assert kernel.matrix_excess == 1


def test_others_are_not_run(emulated):
    (one,) = collect_traffic({"layernorm_parameter_gradients"}, size=SIZE, dtypes=("float32",))
    assert one.problem.op == "residual_layernorm_backward"
    assert [kernel.kernel for kernel in one.kernels] == ["layernorm_parameter_gradients"]
