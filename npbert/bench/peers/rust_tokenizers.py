"""The tokenizers library (Rust), on one thread, with the same vocabulary."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from npbert.bench.peers import Peer
from npbert.tokenizer import WordPieceTokenizer


def build(
    tokenizer: WordPieceTokenizer, texts: Sequence[str], job: str
) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """Return what makes a tokenizer, and what uses it for the job ("ids" or "ids and offsets")."""
    import tokenizers

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core: so does npbert's
    batch = list(texts)
    content = tokenizers.BertWordPieceTokenizer(tokenizer.vocab, lowercase=tokenizer.do_lower_case).to_str()

    def make() -> Any:
        return tokenizers.Tokenizer.from_str(content)

    if job == "ids":
        return make, lambda one: [encoding.ids for encoding in one.encode_batch_fast(batch)]
    return make, lambda one: [(e.ids, e.offsets) for e in one.encode_batch(batch)]


PEERS: Final = (Peer("tokenizers (Rust)", ("tokenizers",), ("tokenizers",), build),)
