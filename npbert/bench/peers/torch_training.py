"""transformers and PyTorch: forward and backward of a model with npbert's parameters, no dropout."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.bench.peers import Peer

if TYPE_CHECKING:
    from npbert.bench.training import Problem

CLASSES: Final = {
    "pretraining": "BertForPreTraining",
    "sequence_classification": "BertForSequenceClassification",
}


def build_model(problem: "Problem", threads: int) -> Any:
    """Return transformers' model of a problem, with its parameters, without dropout until it is trained."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    config = problem.config
    settings = transformers.BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        hidden_act=config.hidden_act,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        layer_norm_eps=config.layer_norm_eps,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        pad_token_id=config.pad_token_id,
        num_labels=config.num_labels,
    )
    model = getattr(transformers, CLASSES[problem.task])(settings).eval()
    state = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in problem.params.items()}
    unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        raise ValueError(f"{CLASSES[problem.task]} has no parameter {unexpected[0]}")
    return model


def loss_and_grads(
    problem: "Problem", threads: int
) -> Callable[[], tuple[float, Mapping[str, NDArray[Any]]]]:
    """Return a function that computes the loss and the gradients, as NumPy arrays that are torch's memory."""
    import torch

    model = build_model(problem, threads)
    batch = {name: torch.from_numpy(value) for name, value in problem.batch.items()}

    def step() -> tuple[float, Mapping[str, NDArray[Any]]]:
        model.zero_grad(set_to_none=True)
        loss = model(**batch).loss
        loss.backward()
        grads = {name: value.grad.numpy() for name, value in model.named_parameters()}
        return loss.item(), grads

    return step


PEERS: Final = (
    Peer("transformers (torch)", ("transformers", "torch"), ("transformers", "torch"), loss_and_grads),
)
