"""Fifty steps of pre-training in float64 against transformers and torch: losses and parameters."""

import pytest

pytest.importorskip("torch", reason="torch is not installed (the extra 'oracle' has it)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra 'oracle' has it)")

from tests.oracle.training_runs import SETTINGS, compare

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: f"{one.optimizer}-{one.accumulate}")
def test_fifty_steps(setting, record_property):
    for figure in compare(setting):
        print(f"{figure.claim}: {figure.measured:.2e} (at most {figure.budget:.0e})")
        record_property(figure.claim, figure.measured)
        assert figure.holds, figure
