"""Sentence encoders: from texts to vectors, each library used as its own documentation does.

All get the same checkpoint, the same number of threads and the same texts, sort these by length and run them
in padded batches of `BATCH_SIZE`, the default of sentence-transformers.
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.bench.memory import peak_bytes_of
from npbert.bench.peers import Peer
from npbert.checkpoint import PoolingSettings

Array = NDArray[Any]
Encode = Callable[[Sequence[str]], Array]

BATCH_SIZE: Final = 32
INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
OPSET: Final = 17
L2_EPSILON: Final = 1e-12


class Checkpoint(NamedTuple):
    """What the encoders load, and how many threads they get."""

    directory: Path
    pooling: PoolingSettings
    max_tokens: int
    threads: int


def sentence_transformers(checkpoint: Checkpoint) -> Encode:
    """sentence-transformers on PyTorch, eager mode."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(checkpoint.threads)
    _quieten()
    model = SentenceTransformer(str(checkpoint.directory), device="cpu")

    def encode(texts: Sequence[str]) -> Array:
        vectors: Array = model.encode(list(texts), batch_size=BATCH_SIZE, show_progress_bar=False)
        return vectors

    return encode


def transformers(checkpoint: Checkpoint) -> Encode:
    """transformers' BertModel on PyTorch, eager mode, its default attention."""
    import torch
    from transformers import AutoModel

    torch.set_num_threads(checkpoint.threads)
    _quieten()
    model = AutoModel.from_pretrained(checkpoint.directory, dtype=torch.float32).eval()

    def hidden_states(batch: dict[str, Array]) -> Array:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
            states: Array = model(**tensors).last_hidden_state.numpy()
        return states

    return _encoder(checkpoint, hidden_states)


def onnxruntime(checkpoint: Checkpoint) -> Encode:
    """ONNX Runtime on the exported model, with the optimisations that it does by itself."""
    return _onnx_encoder(checkpoint, is_fused=False)


def onnxruntime_fused(checkpoint: Checkpoint) -> Encode:
    """ONNX Runtime on the model that its own transformer optimizer has fused."""
    return _onnx_encoder(checkpoint, is_fused=True)


def export(directory: str, path: str, is_fused: bool) -> None:
    """Write a checkpoint as an ONNX file, fused by ONNX Runtime's transformer optimizer if asked to."""
    import torch
    from transformers import AutoModel

    _quieten()
    # "eager" attention is a graph that the optimizer's fusions know.
    model = AutoModel.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()

    class LastHiddenState(torch.nn.Module):  # type: ignore[misc]
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            output = model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return output.last_hidden_state

    module = LastHiddenState()
    module.model = model  # its parameters belong to the file
    example = torch.ones(2, 8, dtype=torch.int64)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about branches that all texts take alike
        torch.onnx.export(
            module,
            (example, example, example * 0),
            path,
            input_names=list(INPUTS),
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in (*INPUTS, "last_hidden_state")},
            opset_version=OPSET,
            dynamo=False,
        )
    if is_fused:
        from onnxruntime.transformers import optimizer

        config = model.config
        fused = optimizer.optimize_model(
            path, model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
        )
        fused.save_model_to_file(path)


def _onnx_encoder(checkpoint: Checkpoint, is_fused: bool) -> Encode:
    import onnxruntime

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        # In another process: what PyTorch takes for it is not ONNX Runtime's.
        peak_bytes_of(
            "npbert.bench.peers.sentence_encoders:export",
            directory=str(checkpoint.directory),
            path=str(path),
            is_fused=is_fused,
        )
        model = path.read_bytes()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = checkpoint.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def hidden_states(batch: dict[str, Array]) -> Array:
        states: Array = session.run(["last_hidden_state"], batch)[0]
        return states

    return _encoder(checkpoint, hidden_states)


def _encoder(checkpoint: Checkpoint, hidden_states: Callable[[dict[str, Array]], Array]) -> Encode:
    """Put the Rust tokenizer before a model, and pooling behind it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.directory)

    def encode(texts: Sequence[str]) -> Array:
        if checkpoint.pooling.do_lower_case:
            texts = [text.lower() for text in texts]
        order = np.argsort([-len(text) for text in texts], kind="stable")
        vectors: list[Array] = []
        for start in range(0, len(texts), BATCH_SIZE):
            batch = tokenizer(
                [texts[index] for index in order[start : start + BATCH_SIZE]],
                padding=True,
                truncation=True,
                max_length=checkpoint.max_tokens,
                return_tensors="np",
            )
            arrays = {name: np.asarray(batch[name], dtype=np.int64) for name in INPUTS}
            vectors.append(_pool(hidden_states(arrays), arrays["attention_mask"], checkpoint.pooling))
        sorted_vectors = np.concatenate(vectors)
        result = np.empty_like(sorted_vectors)
        result[order] = sorted_vectors
        return result

    return encode


def _pool(states: Array, mask: Array, pooling: PoolingSettings) -> Array:
    if pooling.mode == "cls":
        vectors: Array = states[:, 0]
    else:
        weights = mask.astype(states.dtype)[:, None, :]  # (B, 1, T)
        vectors = (weights @ states)[:, 0] / weights.sum(axis=-1)
    if pooling.normalize:
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors = vectors / np.maximum(lengths, L2_EPSILON)
    return vectors


def _quieten() -> None:
    """No progress bars, no advice."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # as without a fork
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


PEERS: Final = (
    Peer(
        "sentence-transformers",
        ("sentence_transformers", "torch"),
        ("sentence-transformers", "torch"),
        sentence_transformers,
    ),
    Peer("transformers (torch)", ("transformers", "torch"), ("transformers", "torch"), transformers),
    Peer(
        "ONNX Runtime",
        ("onnxruntime", "onnx", "transformers", "torch"),
        ("onnxruntime", "onnx", "transformers", "torch"),
        onnxruntime,
    ),
    Peer(
        "ONNX Runtime, BERT fusions",
        ("onnxruntime", "onnx", "transformers", "torch"),
        ("onnxruntime", "onnx", "transformers", "torch"),
        onnxruntime_fused,
    ),
)
