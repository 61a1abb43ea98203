"""Random models of awkward shapes for the comparison with torch."""

from typing import Any

import numpy as np

from npbert.config import BertConfig
from tests import models
from tests.models import LOSSES

# Awkward and different in every field. Each is run with every loss, each time with other numbers.
SHAPES = {
    "a": {"hidden_size": 15, "num_attention_heads": 3, "num_hidden_layers": 2, "hidden_act": "gelu"},
    "no layers": {"hidden_size": 11, "num_attention_heads": 11, "num_hidden_layers": 0, "pad_token_id": None},
    "one head, three layers": {
        "hidden_size": 13,
        "num_attention_heads": 1,
        "num_hidden_layers": 3,
        "hidden_act": "gelu_new",
        "type_vocab_size": 1,
        "layer_norm_eps": 0.3,
    },
    "heads of width 1": {
        "hidden_size": 9,
        "num_attention_heads": 9,
        "num_hidden_layers": 1,
        "hidden_act": "silu",
        "pad_token_id": 22,
        "intermediate_size": 5,
    },
}


def config_of(**fields: Any) -> BertConfig:
    sizes = {
        "vocab_size": 23,
        "hidden_size": 10,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 17,
        "max_position_embeddings": 14,
        "type_vocab_size": 3,
        "pad_token_id": 4,
        "layer_norm_eps": 1e-12,
    }
    return BertConfig(**(sizes | fields))


def draw(seed: int, config: BertConfig, task: str) -> tuple[np.random.Generator, dict, dict]:
    """A generator, and from it the parameters and the inputs of one problem."""
    rng = np.random.default_rng(seed)
    params = models.random_params(rng, config, task, spread=0.4)
    inputs = models.random_inputs(rng, config, task, texts=3, tokens=7, choices=2)
    return rng, params, inputs


def draw_problem(loss: str, shape: str, seed: int) -> tuple[BertConfig, str, dict, dict]:
    """Return configuration, task, parameters and arguments of one of ``LOSSES`` on one of ``SHAPES``."""
    task, fields = LOSSES[loss]
    config = config_of(**(SHAPES[shape] | fields))
    rng, params, inputs = draw(seed, config, task)
    return config, task, params, inputs | models.random_labels(rng, config, task, inputs["input_ids"].shape)
