"""The table of `npbert gradcheck`: everything passes, and it would not if an op were wrong."""

import json

import numpy as np
import pytest

from npbert.gradcheck import suite
from npbert.gradcheck.suite import case_names, draw_problem, model, ops, run_case, run_suite
from npbert.ops import layernorm_backward
from npbert.ops.activations import ACTIVATIONS
from npbert.params import TASKS, WORD_EMBEDDINGS


@pytest.mark.parametrize("name", case_names())
def test_every_case_passes_by_the_complex_step(name):
    report = run_case(name)
    assert report.ok, str(report)
    assert report.oracle == "complex_step"
    assert report.max_error <= 1e-11
    assert {row.dtype for row in report.tensors} == {"float32"}  # so that the dtype contract is seen


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_ops_pass_with_other_seeds(seed):
    for case in ops.CASES:
        report = run_case(case.name, seed)
        assert report.ok, str(report)


def test_every_op_is_there():
    import npbert.ops

    backwards = {name for name in npbert.ops.__all__ if name.endswith("_backward")}
    checked = {draw_problem(case.name).backward.__name__ for case in ops.CASES}
    # The padding row of the embedding is held constant by a wrapper of its own.
    assert backwards <= checked
    activations = {draw_problem(name).args[1] for name in case_names() if name.startswith("activation ")}
    assert {id(ACTIVATIONS[name]) for name in activations} == {id(value) for value in ACTIVATIONS.values()}


def test_every_task_is_there():
    tasks = {
        case.draw.keywords["task"] for case in model.CASES if "task" in getattr(case.draw, "keywords", {})
    }
    assert tasks == set(TASKS) - {"encoder"}  # the encoder is the body


def test_names_are_unique():
    assert len(set(case_names())) == len(case_names())


def test_inputs_depend_on_the_seed_and_nothing_else():
    name = "layernorm (eps 0.3)"
    first, again, other = (draw_problem(name, seed).args[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_a_case_reports_runs_it_again():
    report = run_case("CLS pooling", seed=4)
    scope = {}
    code = report.reproduce.replace("print(", "again = (")
    exec(code, scope)
    assert report.subject == "CLS pooling"
    assert scope["again"].tensors == report.tensors


def test_run_suite_reports_progress_and_keeps_the_order():
    names = ["dropout", "linear (bias)"]
    seen = []
    results = run_suite(1, progress=lambda name, report: seen.append((name, report)), names=names)
    assert [name for name, _ in results] == names
    assert results == seen
    json.dumps([report.to_dict() for _, report in results], allow_nan=False)


def test_unknown_cases_and_seeds():
    with pytest.raises(ValueError, match="there is no case 'layernom'; the cases are: linear"):
        run_case("layernom")
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        run_case("dropout", seed=-1)


def test_a_wrong_op_fails_its_own_case_and_every_task(monkeypatch):
    import npbert.ops

    def no_mean_term(dy, cache):
        dx, dweight, dbias = layernorm_backward(dy, cache)
        mean = (dy * cache.weight).mean(axis=-1, keepdims=True)
        return dx + mean * cache.inv_std, dweight, dbias

    monkeypatch.setattr(npbert.ops, "layernorm_backward", no_mean_term)
    for name in ("layernorm (eps 0.3)", "encoder layer", "body (ids)", "question answering"):
        assert run_case(name).status == "failed", name
    assert run_case("linear (bias)").ok


def test_a_lost_tied_gradient_is_found(monkeypatch):
    from npbert.heads import task_backward

    def loses_the_decoder(dloss, cache, params, config, task, ops):
        dinputs_embeds, grads = task_backward(dloss, cache, params, config, task, ops)
        name = f"bert.{WORD_EMBEDDINGS}"
        used = np.zeros(len(grads[name]), dtype=bool)
        used[1 : config.vocab_size // 2] = True
        return dinputs_embeds, grads | {name: np.where(used[:, None], grads[name], 0)}

    monkeypatch.setattr(suite.model, "task_backward", loses_the_decoder)
    report = run_case("pretraining (tied)")
    wrong = [row.name for row in report.tensors if row.status == "failed"]
    assert wrong == [f"bert.{WORD_EMBEDDINGS}"]
