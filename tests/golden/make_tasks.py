"""Record tasks.safetensors: every task, forward and backward, as transformers 5 computes it in float64.

Run again with::

    pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
    python tests/golden/make_tasks.py

Two runs on one machine give the same file; another machine, or another version of torch, may round the last
digits differently.
"""

from pathlib import Path

import numpy as np
from recording import Recorder, inputs, with_ignored

FIELDS = {
    "vocab_size": 13,
    "hidden_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 7,
    "max_position_embeddings": 8,
    "type_vocab_size": 3,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-12,
}
TEXTS, TOKENS, CHOICES, LABELS = 3, 5, 2, 4


def main() -> None:
    """Draw the inputs of each case, and record it."""
    rng = np.random.default_rng(2018)
    recorder = Recorder()
    texts = (TEXTS, TOKENS)

    def add(case: str, task: str, labels: dict, shape: tuple[int, ...] = texts, **fields: object) -> None:
        arguments = inputs(
            rng, shape, FIELDS["vocab_size"], FIELDS["type_vocab_size"], FIELDS["pad_token_id"]
        )
        recorder.record(case, task, FIELDS | fields, arguments | labels, seed=len(case))

    words = with_ignored(rng, rng.integers(0, FIELDS["vocab_size"], texts))
    pairs = np.array([0, 1, 1])
    yes_or_no = rng.integers(0, 2, (TEXTS, LABELS)).astype(np.float64)
    numbers = rng.standard_normal((TEXTS, LABELS))
    add("encoder", "encoder", {})
    add("pretraining", "pretraining", {"labels": words, "next_sentence_label": pairs})
    add("masked_lm tanh gelu", "masked_lm", {"labels": words}, hidden_act="gelu_new", layer_norm_eps=0.3)
    add("masked_lm untied", "masked_lm", {"labels": words}, tie_word_embeddings=False, hidden_act="silu")
    add("next_sentence", "next_sentence", {"labels": pairs}, num_hidden_layers=1)
    for case, labels, problem_type in (
        ("classes", np.array([3, 0, -100]), "single_label_classification"),
        ("several classes", yes_or_no, "multi_label_classification"),
        ("regression", numbers, "regression"),
    ):
        more = {"num_labels": LABELS, "problem_type": problem_type, "num_hidden_layers": 1}
        add(case, "sequence_classification", {"labels": labels}, **more)
    tags = with_ignored(rng, rng.integers(0, LABELS, texts))
    add(
        "token_classification",
        "token_classification",
        {"labels": tags},
        num_labels=LABELS,
        num_hidden_layers=1,
    )
    # The last answer ends behind the text: it does not count.
    answers = {"start_positions": np.array([0, 3, 2]), "end_positions": np.array([1, 4, 9])}
    add("question_answering", "question_answering", answers, num_hidden_layers=1)
    right = {"labels": np.array([1, 0, 1])}
    add("multiple_choice", "multiple_choice", right, shape=(TEXTS, CHOICES, TOKENS), num_hidden_layers=1)
    recorder.save(Path(__file__).with_name("tasks.safetensors"))


if __name__ == "__main__":
    main()
