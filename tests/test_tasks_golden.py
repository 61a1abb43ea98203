"""Every task against what transformers computed, from a file: the comparison that needs no torch.

tests/golden/make_tasks.py made the file; tests/oracle compares with transformers itself, on many more models.
"""

import pytest

from npbert.params import TASKS
from tests.golden_files import assert_within, case_names, gradient_errors, output_errors, read_case
from tests.tolerances import GRADIENT_TORCH, HIDDEN_STATE_TORCH

FILE = "tasks.safetensors"


@pytest.mark.parametrize("case", case_names(FILE))
def test_outputs(case):
    assert_within(output_errors(read_case(FILE, case)), HIDDEN_STATE_TORCH)


@pytest.mark.parametrize("case", case_names(FILE))
def test_gradients(case):
    assert_within(gradient_errors(read_case(FILE, case)), GRADIENT_TORCH)


def test_no_task_is_missing():
    assert {read_case(FILE, case).task for case in case_names(FILE)} == set(TASKS)
