"""Whole training steps as a benchmark: what is compared, and that wrong steps are noticed."""

import numpy as np
import pytest

from npbert.bench import memory, training, training_steps
from npbert.bench.comparison import FLOOR
from npbert.bench.peers import Peer
from tests.cli.running import run


@pytest.fixture(autouse=True)
def small_and_at_once(monkeypatch):
    monkeypatch.setattr("npbert.bench.contest.PAUSE", 0.0)
    monkeypatch.setattr(training, "VOCABULARY", 1500)


def names_and_failures(comparison):
    return {outcome.name: outcome.failure for outcome in comparison.outcomes}


@pytest.mark.parametrize("dropout", [False, True])
def test_steps(dropout):
    problem = training.pretraining(1, 64, batch=2, tokens=6)
    before = {name: value.copy() for name, value in problem.params.items()}

    def twice(made, threads, drops):
        """Takes two steps for one."""
        step = training_steps.whole_step(made, "cpu", drops)
        return lambda: (step()[0], step()[1])

    peers = [Peer("twice", (), (), twice)]
    found = training_steps.compare_steps(problem, ["cpu", "reference"], peers, 2, 1, dropout, {"twice": 5})
    failures = names_and_failures(found)
    wrong = failures.pop("twice")
    assert wrong == "" if dropout else wrong.startswith("wrong: the step is off by ")
    assert failures == {"npbert cpu": "", "npbert reference": "", FLOOR: ""}
    assert found.title.startswith(f"a step of AdamW, {'dropout 0.1' if dropout else 'no dropout'}: pre-tr")
    assert found.tokens == 12
    assert found.peak_bytes == {"twice": 5}
    for name, value in before.items():  # each contender begins with these
        np.testing.assert_array_equal(problem.params[name], value)


def test_a_step_goes_on_from_the_last():
    step = training_steps.whole_step(training.pretraining(1, 64, batch=2, tokens=6), "cpu", dropout=False)
    losses = [step()[0] for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01


def test_wrong_steps():
    start = {"a": np.zeros(2), "b": np.ones(3)}
    expected = (2.0, {"a": np.array([0.3, 0.4]), "b": np.ones(3)})

    def judged(loss, params, dropout=False):
        return training_steps.wrong_step((loss, params), expected, start, dropout)

    assert judged(2.001, {"a": np.array([0.3, 0.404]), "b": np.ones(3)}) == ""
    assert "the loss is 2.01, not 2" in judged(2.01, expected[1])
    assert "the loss is nan" in judged(float("nan"), expected[1])
    assert "no parameter b" in judged(2.0, {"a": start["a"]})
    assert "off by 1.0e+00" in judged(2.0, start)
    assert "off by 1.2e-02" in judged(2.0, {"a": np.array([0.3, 0.406]), "b": np.ones(3)})
    assert "off by nan" in judged(2.0, expected[1] | {"b": np.full(3, np.nan)})
    assert judged(2.03, start, dropout=True) == ""
    assert "the loss is 2.05" in judged(2.05, start, dropout=True)


def test_peak_memory():
    before = memory.peak_bytes_of("npbert.bench.memory:peak_bytes")
    sizes = {"layers": 1, "hidden": 16, "batch": 1, "tokens": 4}
    after = training_steps.peak_memory("pretraining", ["npbert cpu"], 1, True, **sizes)
    # Parameters, gradients and two moments, 30,522 x 16 float32, at least.
    assert after["npbert cpu"] > before + 4 * 30_522 * 16 * 4


def test_command(capsys, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    few = ["--rounds", "1", "--peer", "none", "--no-memory"]
    code, output, error = run(
        capsys, "bench", "training", "--whole-step", "--size", "1x16", "--batch", "2x6", *few
    )
    assert (code, error) == (0, "")
    assert "a step of AdamW, no dropout: pre-training, 1 layers x 16, 2 x 6 tokens" in output
    assert "a step of AdamW, dropout 0.1: pre-training" in output
    assert "npbert cpu:" not in output  # as a failure would be shown


@pytest.mark.oracle
@pytest.mark.parametrize("dropout", [False, True])
def test_torch_agrees(dropout):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    problem = training.pretraining(1, 64, batch=2, tokens=6)
    found = training_steps.compare_steps(problem, ["cpu"], training_steps.PEERS, 1, 1, dropout)
    assert names_and_failures(found) == {"npbert cpu": "", "transformers (torch)": "", FLOOR: ""}
