"""Relative positions against what transformers 4 computed; transformers 5 no longer has them.

tests/golden/make_relative_positions.py made the file.
"""

import numpy as np
import pytest

from npbert import Bert
from tests.golden_files import assert_within, case_names, gradient_errors, output_errors, read_case
from tests.tolerances import GRADIENT_TORCH, HIDDEN_STATE_TORCH

FILE = "relative_positions.safetensors"


@pytest.mark.parametrize("case", case_names(FILE))
def test_outputs(case):
    assert_within(output_errors(read_case(FILE, case)), HIDDEN_STATE_TORCH)


@pytest.mark.parametrize("case", case_names(FILE))
def test_gradients(case):
    assert_within(gradient_errors(read_case(FILE, case)), GRADIENT_TORCH)


def test_both_kinds_and_both_tasks_are_there():
    found = {
        (recorded.config.position_embedding_type, recorded.task) for recorded in map(_read, case_names(FILE))
    }
    assert found == {(k, t) for k in ("relative_key", "relative_key_query") for t in ("encoder", "masked_lm")}


@pytest.mark.parametrize("case", case_names(FILE))
def test_the_table_of_absolute_positions_is_not_read(case):
    """It is a parameter all the same, because transformers 4 saves it."""
    recorded = _read(case)
    name = next(name for name in recorded.params if name.endswith("position_embeddings.weight"))
    changed = recorded.params | {name: recorded.params[name] + 1}
    before = Bert(recorded.config, recorded.params, task=recorded.task).forward(**recorded.arguments)
    after = Bert(recorded.config, changed, task=recorded.task).forward(**recorded.arguments)
    np.testing.assert_array_equal(after.last_hidden_state, before.last_hidden_state)


def _read(case):
    return read_case(FILE, case)
