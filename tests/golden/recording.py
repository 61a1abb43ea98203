"""Run a model of transformers in float64 and write down everything it computes.

What make_tasks.py and make_relative_positions.py share. No npbert here: what is recorded owes it nothing.

A file holds several cases. Tensors are called ``CASE/KIND/NAME``; kinds are

- ``params``: multiples of 1/64 in float16, so that they are exact at two bytes each
- ``arguments``: of the call, under transformers' names
- ``outputs``: loss, scores, hidden states and attentions ("hidden_states.0", ...)
- ``grads``: of the loss, or, for a model without a loss, of ``sum(output * cotangent)`` over the outputs that
  have an entry of kind ``cotangents``. A parameter that was not used has no entry.

The metadata says, for each case, its task and the fields of its configuration, as JSON.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

CLASSES = {
    "encoder": "BertModel",
    "pretraining": "BertForPreTraining",
    "masked_lm": "BertForMaskedLM",
    "next_sentence": "BertForNextSentencePrediction",
    "sequence_classification": "BertForSequenceClassification",
    "token_classification": "BertForTokenClassification",
    "question_answering": "BertForQuestionAnswering",
    "multiple_choice": "BertForMultipleChoice",
}


class Recorder:
    """Collects cases and writes them into one file."""

    def __init__(self) -> None:
        self._tensors: dict[str, np.ndarray] = {}
        self._cases: dict[str, dict] = {}

    def record(self, case: str, task: str, fields: dict, arguments: dict, seed: int) -> None:
        """Run one model with random parameters, forward and backward."""
        torch.manual_seed(seed)
        config = transformers.BertConfig(**fields, attn_implementation="eager")
        model = getattr(transformers, CLASSES[task])(config).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.round(torch.randn_like(parameter) * 0.5 * 64) / 64)
        outputs = model(
            **{name: torch.tensor(value) for name, value in arguments.items()},
            output_hidden_states=True,
            output_attentions=True,
        )
        named = _flat(outputs)
        cotangents = {}
        if "loss" in named:
            named["loss"].backward()
        else:
            cotangents = {
                name: torch.randn_like(named[name]) for name in ("last_hidden_state", "pooler_output")
            }
            sum((named[name] * value).sum() for name, value in cotangents.items()).backward()
        parameters = dict(model.named_parameters())
        kinds = {
            "params": {n: p.detach().numpy().astype(np.float16) for n, p in parameters.items()},
            "arguments": arguments,
            "cotangents": {name: value.numpy() for name, value in cotangents.items()},
            "outputs": {name: value.detach().numpy() for name, value in named.items()},
            "grads": {n: p.grad.numpy() for n, p in parameters.items() if p.grad is not None},
        }
        for kind, tensors in kinds.items():
            self._tensors |= {f"{case}/{kind}/{name}": t.copy("C") for name, t in tensors.items()}
        self._cases[case] = {"task": task, "fields": fields}

    def save(self, path: Path) -> None:
        """Write the file, and say how large it is."""
        metadata = {
            "cases": json.dumps(self._cases),
            "made with": f"transformers {transformers.__version__}, torch {torch.__version__}",
        }
        save_file(self._tensors, path, metadata)
        print(f"{path}: {len(self._cases)} cases, {path.stat().st_size:,} bytes")


def _flat(outputs: dict) -> dict[str, torch.Tensor]:
    """Outputs by name, the members of a tuple numbered."""
    flat = {}
    for name, value in outputs.items():
        members = (
            {f"{name}.{i}": v for i, v in enumerate(value)} if isinstance(value, tuple) else {name: value}
        )
        flat |= members
    return flat


def inputs(rng: np.random.Generator, shape: tuple[int, ...], words: int, types: int, pad: int | None) -> dict:
    """Ids that repeat, a pad id inside each text, and padding at the end of all texts but the first."""
    input_ids = rng.integers(0, words, shape)
    input_ids[..., -2] = input_ids[..., 0]
    if pad is not None:
        input_ids[..., 1] = pad
    lengths = rng.integers(2, shape[-1], shape[:-1])
    lengths.flat[0] = shape[-1]
    return {
        "input_ids": input_ids,
        "attention_mask": (np.arange(shape[-1]) < lengths[..., None]).astype(np.int64),
        "token_type_ids": rng.integers(0, types, shape),
    }


def with_ignored(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Half of the labels become -100, but never the first."""
    ignored = rng.random(labels.shape) < 0.5
    ignored.flat[0] = False
    return np.where(ignored, -100, labels)
