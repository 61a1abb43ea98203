"""Record relative_positions.safetensors: relative position embeddings, as transformers 4 computes them.

transformers 5 dropped ``relative_key`` and ``relative_key_query``; 4.57 is the last release that has them.
Run again with::

    pip install torch==2.13.0 "transformers>=4.57,<5" safetensors numpy
    python tests/golden/make_relative_positions.py

Two runs on one machine give the same file; another machine, or another version of torch, may round the last
digits differently.
"""

from pathlib import Path

import numpy as np
from recording import Recorder, inputs, with_ignored

FIELDS = {
    "vocab_size": 11,
    "hidden_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 7,
    "max_position_embeddings": 7,
    "type_vocab_size": 3,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-12,
}
TEXTS = 3


def main() -> None:
    """Record both kinds, on the encoder and on masked words, with as many tokens as positions and fewer."""
    rng = np.random.default_rng(2020)
    recorder = Recorder()
    for kind in ("relative_key", "relative_key_query"):
        for task, tokens in (("encoder", 5), ("masked_lm", FIELDS["max_position_embeddings"])):
            fields = FIELDS | {"position_embedding_type": kind}
            arguments = inputs(rng, (TEXTS, tokens), fields["vocab_size"], fields["type_vocab_size"], 1)
            if task == "masked_lm":
                words = rng.integers(0, fields["vocab_size"], (TEXTS, tokens))
                arguments |= {"labels": with_ignored(rng, words)}
            recorder.record(f"{kind} {task}", task, fields, arguments, seed=tokens)
    recorder.save(Path(__file__).with_name("relative_positions.safetensors"))


if __name__ == "__main__":
    main()
