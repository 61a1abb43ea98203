"""Whole pre-training runs, step by step in float64: npbert's loop against transformers and torch.

Both start from the same weights and see the same batches, without dropout. On torch's side everything is
torch's own: autograd, clipping, the optimiser, the schedule; where a step has several batches, they are put
together to one. Only Google's optimiser, which torch does not have, is written out here.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np
import pytest

from npbert import Bert, BertConfig, WordPieceTokenizer, init_params
from npbert.data.pretraining import PretrainingData
from npbert.training.loop import TrainingSettings, train
from npbert.training.optimizers import OPTIMIZERS
from npbert.training.saved_run import SavedRun
from npbert.training.schedules import make_schedule
from tests.oracle import huggingface
from tests.oracle.measurements import Figure
from tests.tolerances import LOSS_OF_A_RUN, PARAMETER_OF_A_RUN

torch = pytest.importorskip("torch", reason="torch is not installed (the extra 'oracle' has it)")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (the extra 'oracle' has it)"
)

FABLES = Path(__file__).with_name("fables.txt")  # Aesop's, translated by G. F. Townsend, 1867
MAX_LENGTH, BATCH_SIZE = 48, 8
STEPS, WARMUP_STEPS, LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 50, 10, 2e-3, 0.01, 1.0

Batch = Mapping[str, np.ndarray]


class Run(NamedTuple):
    """The loss of each step, the norm of its gradients before clipping, and the parameters at the end."""

    losses: list[float]
    norms: list[float]
    params: Mapping[str, np.ndarray]


class Setting(NamedTuple):
    """How to train: the name of an optimiser and of a schedule, and how many batches make a step."""

    optimizer: str = "adamw"
    schedule: str = "linear"
    accumulate: int = 1


SETTINGS: Final = (Setting(), Setting(accumulate=2), Setting("bert_adam", "google"))


def compare(setting: Setting) -> list[Figure]:
    """Return how far npbert's losses and parameters are from torch's."""
    config, tokenizer = model_of(FABLES.read_text(encoding="utf-8"))
    params = init_params(config, "pretraining", seed=1, dtype=np.float64)
    source = PretrainingData([FABLES], tokenizer, batch_size=BATCH_SIZE, max_length=MAX_LENGTH, seed=3)
    found = run_npbert(config, tokenizer, params, source, setting)
    expected = run_torch(config, params, source, setting)
    check_that_something_was_learnt(expected)
    size = f"{setting.accumulate} x {BATCH_SIZE} x {MAX_LENGTH} tokens"
    run = f"{STEPS} steps of pre-training, {setting.optimizer}, {size}, float64, vs transformers and torch"
    return [
        Figure(f"losses of {run}", largest_difference(found.losses, expected.losses), LOSS_OF_A_RUN),
        Figure(
            f"parameters after {run}",
            max(largest_difference(found.params[name], value) for name, value in expected.params.items()),
            PARAMETER_OF_A_RUN,
        ),
    ]


def model_of(text: str) -> tuple[BertConfig, WordPieceTokenizer]:
    """Return a small model's configuration, and a tokenizer with the words that a text has more than once."""
    words = Counter(re.findall(r"\w+|[^\w\s]", text.lower()))
    letters = sorted(set("".join(words)))
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    pieces += [word for word, count in sorted(words.items()) if count > 1 and len(word) > 1]
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_LENGTH,
    )
    return config, tokenizer


def run_npbert(
    config: BertConfig,
    tokenizer: WordPieceTokenizer,
    params: Mapping[str, np.ndarray],
    source: PretrainingData,
    setting: Setting,
) -> Run:
    """Train with npbert's loop, as ``npbert pretrain`` does."""
    copies = {name: value.copy() for name, value in params.items()}
    bert = Bert(config, copies, tokenizer, "pretraining")
    optimizer = OPTIMIZERS[setting.optimizer](
        bert.params, weight_decay=WEIGHT_DECAY, share_out=bert.share_out
    )
    schedule = make_schedule(
        setting.schedule, peak=LEARNING_RATE, warmup_steps=WARMUP_STEPS, total_steps=STEPS
    )
    settings = TrainingSettings(
        STEPS, setting.accumulate, max_grad_norm=MAX_NORM, dropout=False, log_every=1, save_every=STEPS
    )
    records: list[dict[str, Any]] = []
    with TemporaryDirectory() as directory:
        train(bert, source, optimizer, schedule, settings, SavedRun(directory, {}), report=records.append)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    return Run([r["loss"] for r in records], [r["gradient_norm"] for r in records], bert.params)


def run_torch(
    config: BertConfig, params: Mapping[str, np.ndarray], source: PretrainingData, setting: Setting
) -> Run:
    """Train a transformers model with torch."""
    model = huggingface.build(config, "pretraining", params)
    step, schedule = OF_TORCH[setting.optimizer](model)
    losses, norms = [], []
    batches = (batch for batch, _ in source.batches())
    for _ in range(STEPS):
        model.zero_grad()
        loss = huggingface.run(model, joined(list(islice(batches, setting.accumulate)))).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM).item())
        step()
        schedule()
        losses.append(loss.item())
    return Run(losses, norms, {name: p.detach().numpy() for name, p in model.named_parameters()})


def joined(batches: Sequence[Batch]) -> Batch:
    """Return one batch of some, padded to the longest."""
    longest = max(batch["input_ids"].shape[1] for batch in batches)
    padding = {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0, "labels": -100}
    whole = {"next_sentence_label": np.concatenate([batch["next_sentence_label"] for batch in batches])}
    for name, value in padding.items():
        rows = [
            np.pad(batch[name], ((0, 0), (0, longest - batch[name].shape[1])), constant_values=value)
            for batch in batches
        ]
        whole[name] = np.concatenate(rows)
    return whole


Steps = tuple[Callable[[], Any], Callable[[], Any]]  # the optimiser's step, and the schedule's


def groups_of(model: Any) -> list[dict[str, Any]]:
    """Return parameters that decay, and those that do not, as transformers' examples make these groups."""
    no_decay = ["bias", "LayerNorm.weight"]
    named = list(model.named_parameters())
    return [
        {
            "params": [p for n, p in named if not any(nd in n for nd in no_decay)],
            "weight_decay": WEIGHT_DECAY,
        },
        {"params": [p for n, p in named if any(nd in n for nd in no_decay)], "weight_decay": 0.0},
    ]


def adamw_of_torch(model: Any) -> Steps:
    """torch's AdamW and transformers' linear schedule."""
    optimizer = torch.optim.AdamW(groups_of(model), lr=LEARNING_RATE)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP_STEPS, STEPS)
    return optimizer.step, schedule.step


def adam_of_google(model: Any) -> Steps:
    """AdamWeightDecayOptimizer and the learning rate of Google's optimization.py, line by line."""
    groups = groups_of(model)
    state = {p: (torch.zeros_like(p), torch.zeros_like(p)) for group in groups for p in group["params"]}
    global_step = 0

    def learning_rate() -> float:
        if global_step < WARMUP_STEPS:
            return LEARNING_RATE * global_step / WARMUP_STEPS
        return LEARNING_RATE * (1 - global_step / STEPS)

    @torch.no_grad()
    def step() -> None:
        for group in groups:
            for param in group["params"]:
                m, v = state[param]
                m.copy_(0.9 * m + (1.0 - 0.9) * param.grad)
                v.copy_(0.999 * v + (1.0 - 0.999) * torch.square(param.grad))
                update = m / (torch.sqrt(v) + 1e-6)
                update += group["weight_decay"] * param
                param.sub_(learning_rate() * update)

    def next_step() -> None:
        nonlocal global_step
        global_step += 1

    return step, next_step


OF_TORCH = {"adamw": adamw_of_torch, "bert_adam": adam_of_google}


def check_that_something_was_learnt(run: Run) -> None:
    """A loss that stays where it was, or a clipping that never clips, would prove nothing."""
    assert np.isfinite(run.losses).all()
    assert np.mean(run.losses[-5:]) < np.mean(run.losses[:5]) - 0.5
    assert any(norm > MAX_NORM for norm in run.norms)


def largest_difference(found: Any, expected: Any) -> float:
    """Return the largest absolute difference of two arrays of one shape; NaN if there is one."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())
