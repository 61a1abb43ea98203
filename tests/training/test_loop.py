"""The training loop: what it computes, what it leaves behind, and that an interruption changes no bit."""

import json
import os
import signal
import threading

import numpy as np
import pytest

import npbert
from npbert.training.communicator import Alone
from npbert.training.failures import TrainingError
from npbert.training.loop import TrainingSettings, dropout_seed, take_step
from npbert.training.metrics import read_metrics
from npbert.training.optimizers import OPTIMIZERS
from npbert.training.saved_run import SavedRun
from npbert.training.step import evaluate
from tests.training.small import small_bert, small_data, small_run, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


def assert_same_params(first, second):
    assert first.params.keys() == second.params.keys()
    for name, value in first.params.items():
        np.testing.assert_array_equal(value, second.params[name], err_msg=name)


def files_in(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def without_times(records):
    return [{name: value for name, value in r.items() if name != "tokens_per_second"} for r in records]


def test_it_learns(tmp_path):
    """Words follow one another in a fixed order: guessing by frequency alone would give log 20 = 3.0."""
    corpus = write_corpus(tmp_path / "corpus.txt", documents=60)
    bert = small_bert(hidden_size=32, intermediate_size=64, initializer_range=0.1)
    _, result = small_run(
        tmp_path / "run", corpus, bert=bert, steps=600, save_every=600, rate=3e-3, dropout=False
    )
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert records[0]["mlm_loss"] > 2.5
    assert np.mean([record["mlm_loss"] for record in records[-20:]]) < 2.4
    assert np.mean([record["mlm_accuracy"] for record in records[-20:]]) > 0.3
    assert result.step == 600 and result.finished
    assert result.last == records[-1]


def test_the_model_is_left_where_load_finds_it(tmp_path, corpus):
    bert, _ = small_run(tmp_path, corpus)
    loaded = npbert.load(tmp_path)
    assert loaded.task == "pretraining"
    assert_same_params(bert, loaded)
    assert loaded.tokenizer.vocab == bert.tokenizer.vocab
    assert_same_params(bert, npbert.load(tmp_path / "checkpoint-00000012"))
    names = {name.split("/")[0] for name in files_in(tmp_path)}
    assert {name for name in names if name.startswith("checkpoint")} == {"checkpoint-00000012"}
    assert not [name for name in names if name.startswith(".")]


def test_the_same_run_again_gives_the_same_bits(tmp_path, corpus):
    first, _ = small_run(tmp_path / "1", corpus)
    second, _ = small_run(tmp_path / "2", corpus)
    assert_same_params(first, second)
    records = [without_times(read_metrics(tmp_path / name / "metrics.jsonl")) for name in "12"]
    assert records[0] == records[1]


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("stop_after", [1, 5, 7, 12])
def test_a_signal_and_a_resumption_change_no_bit(tmp_path, corpus, optimizer, stop_after):
    expected, _ = small_run(tmp_path / "whole", corpus, optimizer=optimizer)

    def stop_then(record):
        if record["step"] == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    options = {"optimizer": optimizer, "log_every": 1}
    _, stopped = small_run(tmp_path / "parts", corpus, report=stop_then, **options)
    assert (stopped.step, stopped.finished, stopped.signal_number) == (stop_after, False, signal.SIGTERM)
    resumed, result = small_run(tmp_path / "parts", corpus, bert=small_bert(seed=9), resume=True, **options)
    assert (result.step, result.finished) == (12, True)
    assert_same_params(expected, resumed)
    assert [r["step"] for r in read_metrics(tmp_path / "parts" / "metrics.jsonl")] == list(range(1, 13))
    assert files_in(tmp_path / "parts") == files_in(tmp_path / "whole")


def test_metrics_that_span_an_interruption_are_those_without_one(tmp_path, corpus):
    """The record of steps 1 to 8 is made of what was measured before the checkpoint at 5, and after it."""
    options = {"log_every": 8, "held_out": lambda: small_data(corpus, small_bert()).one_pass()}
    small_run(tmp_path / "whole", corpus, evaluate_every=4, **options)

    class Killed(BaseException):
        pass

    def kill_at_7(at):
        if at["step"] == 8:
            raise Killed

    with pytest.raises(Killed):
        small_run(tmp_path / "parts", corpus, report=kill_at_7, evaluate_every=4, **options)
    small_run(tmp_path / "parts", corpus, evaluate_every=4, resume=True, **options)
    whole, parts = (
        without_times(read_metrics(tmp_path / name / "metrics.jsonl")) for name in ("whole", "parts")
    )
    assert whole == parts
    assert sum("held_out_loss" in record for record in whole) == 3


def test_ctrl_c_twice_ends_it_at_once(tmp_path, corpus):
    def press_twice(record):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        small_run(tmp_path, corpus, report=press_twice)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_runs_in_other_threads_where_no_signals_arrive(tmp_path, corpus):
    results = []
    thread = threading.Thread(target=lambda: results.append(small_run(tmp_path, corpus)))
    thread.start()
    thread.join()
    assert results[0][1].finished


def test_accumulation_is_the_large_batch(tmp_path, corpus):
    large, _ = small_run(
        tmp_path / "large",
        corpus,
        bert=small_bert(dtype=np.float64),
        source=small_data(corpus, small_bert(), batch_size=12),
        dropout=False,
    )
    parts, _ = small_run(
        tmp_path / "parts", corpus, bert=small_bert(dtype=np.float64), accumulate=3, dropout=False
    )
    moved = max(np.abs(large.params[name] - value).max() for name, value in small_bert().params.items())
    assert moved > 1e-3
    for name, value in large.params.items():
        # Round-off of another order of sums, carried through 12 steps of an optimiser that divides by the
        # gradients' size: the smallest gradients matter as much as the largest.
        np.testing.assert_allclose(parts.params[name], value, rtol=0, atol=1e-9, err_msg=name)


def test_dropout_has_another_seed_for_each_batch_and_none_without_dropout():
    settings = TrainingSettings(steps=1, seed=3)
    seeds = [dropout_seed(settings, number) for number in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert dropout_seed(TrainingSettings(steps=1, seed=4), 0) != seeds[0]
    assert dropout_seed(TrainingSettings(steps=1, dropout=False), 0) is None


def test_dropout_matters(tmp_path, corpus):
    with_dropout, _ = small_run(tmp_path / "1", corpus)
    without, _ = small_run(tmp_path / "2", corpus, dropout=False)
    name = "bert.embeddings.word_embeddings.weight"
    assert not np.array_equal(with_dropout.params[name], without.params[name])


def test_the_learning_rate_of_a_step_is_that_of_the_schedule(tmp_path, corpus):
    small_run(tmp_path, corpus, steps=6, log_every=1, rate=1.0)
    rates = [record["learning_rate"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert rates == [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]


def test_gradients_are_clipped(tmp_path, corpus):
    """With SGD a step is the clipped gradient itself: no step is longer than the rate."""
    bert, settings = small_bert(), TrainingSettings(steps=1, max_grad_norm=0.01)
    before = {name: value.copy() for name, value in bert.params.items()}
    optimizer = OPTIMIZERS["sgd"](bert.params, momentum=0.0, weight_decay=0.0)
    batch, _ = next(small_data(corpus, bert).batches())
    taken = take_step(bert, [batch], optimizer, 1.0, 0, settings, Alone())
    length = np.sqrt(sum(((value - before[name]) ** 2).sum() for name, value in bert.params.items()))
    assert taken.norm > 0.1
    assert length == pytest.approx(0.01, rel=1e-3)


# --- held-out data -------------------------------------------------------------------------------------


def test_held_out_data_is_evaluated(tmp_path, corpus):
    bert = small_bert()
    held_out = lambda: small_data(corpus, bert, seed=5).one_pass()  # noqa: E731
    small_run(tmp_path, corpus, bert=bert, steps=7, evaluate_every=3, held_out=held_out)
    records = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "held_out_loss" in r]
    assert [record["step"] for record in records] == [3, 6, 7]
    loss, tallies = evaluate(bert, held_out())
    assert records[-1]["held_out_loss"] == loss
    assert records[-1]["held_out_mlm_accuracy"] == tallies["labels"].accuracy


class Diverging:
    """Batches of which all labels are one wrong word, from the seventh on: what was learned is unlearned."""

    def __init__(self, data):
        self.data = data

    def batches(self, position=None):
        seen = 0 if position is None else position["seen"]
        inner = None if position is None else {k: v for k, v in position.items() if k != "seen"}
        for number, (batch, after) in enumerate(self.data.batches(inner), start=seen):
            if number >= 6:
                batch["labels"] = np.where(batch["labels"] == -100, -100, 5)
            yield batch, {**after, "seen": number + 1}


@pytest.mark.parametrize("interrupt", [False, True])
def test_patience_ends_it_early_and_the_best_model_is_the_result(tmp_path, corpus, interrupt):
    bert = small_bert()
    held_out = lambda: small_data(corpus, bert, seed=5).one_pass()  # noqa: E731
    options = {
        "steps": 60,
        "save_every": 5,
        "evaluate_every": 2,
        "patience": 3,
        "held_out": held_out,
        "rate": 3e-2,
    }

    def stop(record):
        if interrupt and record["step"] == 8 and "held_out_loss" not in record:
            os.kill(os.getpid(), signal.SIGINT)

    source = Diverging(small_data(corpus, bert))
    _, result = small_run(tmp_path, corpus, bert=bert, source=source, report=stop, **options)
    if interrupt:
        assert not result.finished
        bert = small_bert(seed=3)
        _, result = small_run(tmp_path, corpus, bert=bert, source=source, resume=True, **options)
    records = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "held_out_loss" in r]
    best = min(records, key=lambda record: record["held_out_loss"])
    assert result.finished and result.step < 60
    assert result.step == best["step"] + 2 * 3
    assert result.best_step == best["step"]
    assert evaluate(npbert.load(tmp_path), held_out())[0] == best["held_out_loss"]


# --- what goes wrong -----------------------------------------------------------------------------------


def test_a_run_is_not_overwritten(tmp_path, corpus):
    first, _ = small_run(tmp_path, corpus)
    with pytest.raises(FileExistsError, match=r"a run, saved after step 12; resume it"):
        small_run(tmp_path, corpus)
    assert_same_params(first, npbert.load(tmp_path))


@pytest.mark.parametrize("resume", [False, True])
def test_a_model_is_not_overwritten(tmp_path, corpus, resume):
    other = small_bert(seed=7)
    other.save(tmp_path)
    with pytest.raises(FileExistsError, match="holds a model"):
        small_run(tmp_path, corpus, resume=resume)
    assert_same_params(other, npbert.load(tmp_path))


def test_a_finished_run_resumes_to_itself(tmp_path, corpus):
    first, before = small_run(tmp_path, corpus)
    names = files_in(tmp_path)
    again, after = small_run(tmp_path, corpus, bert=small_bert(seed=5), resume=True)
    assert_same_params(first, again)
    assert after == before
    assert files_in(tmp_path) == names


def test_a_checkpoint_of_another_run_is_refused(tmp_path, corpus):
    small_run(tmp_path, corpus, recipe={"config": {"hidden_size": 16}, "seed": 0})
    names = files_in(tmp_path)
    with pytest.raises(ValueError, match=r"another run: config.hidden_size is 16 there, and 24 now"):
        small_run(tmp_path, corpus, recipe={"config": {"hidden_size": 24}, "seed": 0}, resume=True)
    assert files_in(tmp_path) == names


class Poisoned:
    """The data, with a word vector that is not finite from some step on."""

    def __init__(self, data, bert, at, name, value):
        self.data, self.bert, self.at, self.name, self.value = data, bert, at, name, value

    def batches(self, position=None):
        for number, (batch, after) in enumerate(self.data.batches(position), start=1):
            if number == self.at:
                self.bert.params[self.name][0] = self.value
            yield batch, after


@pytest.mark.parametrize(
    ("name", "value", "culprit"),
    [
        (
            "bert.encoder.layer.1.output.dense.bias",
            np.nan,
            "the parameter bert.encoder.layer.1.output.dense.bias",
        ),
        ("bert.embeddings.LayerNorm.weight", 3e38, "the output of the embeddings"),
        ("bert.encoder.layer.1.output.LayerNorm.weight", 3e38, "the output of encoder layer 1"),
    ],
)
def test_a_loss_that_is_no_number_stops_it(tmp_path, corpus, name, value, culprit):
    bert = small_bert()
    source = Poisoned(small_data(corpus, bert), bert, 8, name, value)
    with (
        pytest.raises(TrainingError, match=rf"step 8: .*; the first that is not finite: {culprit}$"),
        np.errstate(all="ignore"),
    ):
        small_run(tmp_path, corpus, bert=bert, source=source, dropout=False)
    checkpoint = npbert.load(tmp_path / "checkpoint-00000005")
    assert all(np.isfinite(value).all() for value in checkpoint.params.values())
    expected, _ = small_run(tmp_path / "whole", corpus, dropout=False)
    resumed, _ = small_run(tmp_path, corpus, bert=small_bert(seed=1), resume=True, dropout=False)
    assert_same_params(expected, resumed)


def test_a_parameter_that_the_loss_does_not_notice_is_not_saved(tmp_path, corpus):
    """An infinite bias of the pooler only makes its tanh 1."""
    bert = small_bert()
    source = Poisoned(small_data(corpus, bert), bert, 8, "bert.pooler.dense.bias", np.inf)
    with pytest.raises(ValueError, match=r"bert.pooler.dense.bias is inf at \(0,\)"):
        small_run(tmp_path, corpus, bert=bert, source=source)
    assert {name.split("/")[0] for name in files_in(tmp_path)} == {"checkpoint-00000005", "metrics.jsonl"}
    assert np.isfinite(npbert.load(tmp_path / "checkpoint-00000005").params["bert.pooler.dense.bias"]).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("accumulate", -1),
        ("save_every", 0),
        ("log_every", 1.5),
        ("patience", 0),
        ("seed", -1),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", float("nan")),
    ],
)
def test_settings_that_make_no_sense_are_named(field, value):
    with pytest.raises(ValueError, match=rf"{field} is {value!r}; it must be"):
        TrainingSettings(**{"steps": 5, field: value})


def test_the_recipe_is_compared_as_json(tmp_path):
    run = SavedRun(tmp_path, {"shape": (1, 2)})
    assert run.recipe == json.loads('{"shape": [1, 2]}')
