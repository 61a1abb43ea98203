"""Small models on rich inputs: what the tests of model, heads and `Bert` are run on.

Sizes are coprime where the model allows it, so that an axis taken for another one cannot go unnoticed.
Parameters are drawn with a large spread, zeros and negative numbers included, so that every gradient is far
from 0 and nonlinearities are used where they bend.
"""

from typing import Any

import numpy as np

from npbert.config import BertConfig
from npbert.params import TASKS, TASKS_WITH_DECODER, parameter_shapes

# Every task with a loss, as (task, fields of the configuration): sequence classification has three losses.
LOSSES = {
    "pretraining": ("pretraining", {}),
    "pretraining untied": ("pretraining", {"tie_word_embeddings": False}),
    "masked_lm": ("masked_lm", {}),
    "masked_lm untied": ("masked_lm", {"tie_word_embeddings": False}),
    "next_sentence": ("next_sentence", {}),
    "classes": ("sequence_classification", {"num_labels": 4, "problem_type": "single_label_classification"}),
    "several classes": (
        "sequence_classification",
        {"num_labels": 4, "problem_type": "multi_label_classification"},
    ),
    "regression": ("sequence_classification", {"num_labels": 1, "problem_type": "regression"}),
    "regressions": ("sequence_classification", {"num_labels": 4, "problem_type": "regression"}),
    "token_classification": ("token_classification", {"num_labels": 4}),
    "question_answering": ("question_answering", {}),
    "multiple_choice": ("multiple_choice", {}),
}
TASKS_WITH_LOSS = tuple(task for task in TASKS if task != "encoder")

TEXTS, TOKENS, CHOICES = 2, 5, 3


def structural_zeros(config: BertConfig, task: str) -> tuple[str, ...]:
    """Name the parameters (by pattern) whose gradient is 0 by construction; what is computed is round-off.

    They are biases that move all scores of one softmax together, which changes no probability: that of the
    attention's keys, and, where the classes are the tokens of a text or the choices of a question, those of
    the head, and of the layer norm right before it.
    """
    zeros = []
    if config.num_hidden_layers and config.position_embedding_type != "relative_key_query":
        zeros.append("*attention.self.key.bias")  # there a key is also compared with distances
    if task == "multiple_choice":
        zeros.append("classifier.bias")
    if task == "question_answering":
        layers = config.num_hidden_layers
        last = f"bert.encoder.layer.{layers - 1}.output" if layers else "bert.embeddings"
        zeros += ["qa_outputs.bias", f"{last}.LayerNorm.bias"]
    return tuple(zeros)


def unused_params(config: BertConfig, task: str) -> tuple[str, ...]:
    """Name the parameters (by pattern) that nothing is computed from: their gradient is exactly 0."""
    unused = []
    if config.position_embedding_type.startswith("relative"):
        unused.append("*embeddings.position_embeddings.weight")
    if task in TASKS_WITH_DECODER and not config.tie_word_embeddings:
        unused.append("cls.predictions.bias")
    return tuple(unused)


def tiny_config(**fields: Any) -> BertConfig:
    """A model of a few hundred parameters, small enough to differentiate one by one."""
    sizes = {
        "vocab_size": 11,
        "hidden_size": 6,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 7,
        "max_position_embeddings": 8,
        "type_vocab_size": 3,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-3,
    }
    return BertConfig(**(sizes | fields))


def random_params(rng: np.random.Generator, config: BertConfig, task: str, spread: float = 0.5) -> dict:
    """Normal numbers, about one in twelve of them 0; the weights of layer norms lie around 1."""
    params = {}
    for name, shape in parameter_shapes(config, task).items():
        values = spread * rng.standard_normal(shape) * (rng.random(shape) > 1 / 12)
        params[name] = values + 1 if name.endswith("LayerNorm.weight") else values
    return params


def random_inputs(
    rng: np.random.Generator,
    config: BertConfig,
    task: str,
    *,
    texts: int = TEXTS,
    tokens: int = TOKENS,
    choices: int = CHOICES,
) -> dict[str, np.ndarray]:
    """Repeated ids and pad ids, and padding at the end of all texts but the first."""
    shape = (texts, choices, tokens) if task == "multiple_choice" else (texts, tokens)
    input_ids = rng.integers(0, config.vocab_size, shape)
    input_ids[..., -2] = input_ids[..., 0]
    if config.pad_token_id is not None:
        input_ids[..., 1] = config.pad_token_id  # even where it is attended to, it is read like any word
    lengths = rng.integers(2, tokens, size=shape[:-1])
    lengths.flat[0] = tokens
    return {
        "input_ids": input_ids,
        "attention_mask": (np.arange(tokens) < lengths[..., None]).astype(np.int64),
        "token_type_ids": rng.integers(0, config.type_vocab_size, shape),
    }


def random_vectors(rng: np.random.Generator, config: BertConfig, inputs: dict[str, np.ndarray]) -> dict:
    """The same inputs with ``inputs_embeds`` in the place of ``input_ids``."""
    vectors = rng.standard_normal((*inputs["input_ids"].shape, config.hidden_size))
    return {"inputs_embeds": vectors} | {k: v for k, v in inputs.items() if k != "input_ids"}


def random_labels(
    rng: np.random.Generator, config: BertConfig, task: str, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Labels for inputs of a shape; some are -100 where a task allows it, and the first never is."""
    texts, tokens = shape[0], shape[-1]

    def classes(count: int, *size: int) -> np.ndarray:
        labels = rng.integers(0, count, size)
        ignored = rng.random(size) < 0.4
        ignored.flat[0] = False
        ignored.flat[-1] = labels.size > 1
        return np.where(ignored, -100, labels)

    if task in TASKS_WITH_DECODER:
        labels = {"labels": classes(config.vocab_size, texts, tokens)}
        return labels | ({"next_sentence_label": classes(2, texts)} if task == "pretraining" else {})
    if task == "next_sentence":
        return {"labels": classes(2, texts)}
    if task == "token_classification":
        return {"labels": classes(config.num_labels, texts, tokens)}
    if task == "question_answering":
        # The last answer begins in the text and ends behind it: a place that does not count.
        start, end = rng.integers(0, tokens, (2, texts))
        end[-1] = tokens + 2 if texts > 1 else end[-1]
        return {"start_positions": start, "end_positions": end}
    if task == "multiple_choice":
        return {"labels": classes(shape[1], texts)}
    if config.problem_type == "single_label_classification":
        return {"labels": classes(config.num_labels, texts)}
    if config.problem_type == "multi_label_classification":
        return {"labels": rng.integers(0, 2, (texts, config.num_labels)).astype(np.float64)}
    return {"labels": rng.standard_normal((texts, config.num_labels))}
