"""Encoding, training and ops at the sizes of MiniLM, with random parameters, on one thread.

One thread, so that a figure depends on the code and the processor, not on what else the machine does. What is
used of npbert is what all its versions have.
"""

import numpy as np
from threadpoolctl import threadpool_limits

import npbert
from npbert import ops
from npbert.config import BertConfig
from npbert.params import init_params
from npbert.tokenizer import WordPieceTokenizer

WORDS = ("a", "quiet", "film", "about", "bees", "honey", "is", "sweet", "and", "slow", ".")
SPECIAL_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MINILM = {
    "vocab_size": 30_522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
BATCH, TOKENS = 8, 128
MASKED = 0.15


class OneThread:
    """What all have in common."""

    timeout = 300.0

    def setup(self, *_):
        """Take one thread for the products; npbert's workers follow where they exist."""
        self._limits = threadpool_limits(1)
        try:
            from npbert.cpu.workers import workers
        except ImportError:  # before there were any
            self._workers = None
        else:
            self._workers = workers(1)
            self._workers.__enter__()

    def teardown(self, *_):
        """Give the threads back."""
        if self._workers is not None:
            self._workers.__exit__(None, None, None)
        self._limits.restore_original_limits()


class Encode(OneThread):
    """Texts to vectors."""

    params = ([1, 8], [16, 128])
    param_names = ("texts", "tokens")

    def setup(self, texts, tokens):
        """Make a model and texts of these lengths."""
        super().setup()
        tokenizer = WordPieceTokenizer([*SPECIAL_WORDS, *WORDS])
        config = BertConfig(**MINILM)
        self.bert = npbert.Bert(config, init_params(config, "encoder", seed=0), tokenizer, task="encoder")
        words = [WORDS[index % len(WORDS)] for index in range(tokens - 2)]
        self.texts = [" ".join(words)] * texts
        self.bert.encode(self.texts)

    def time_encode(self, texts, tokens):
        """Seconds."""
        self.bert.encode(self.texts)

    def peakmem_encode(self, texts, tokens):
        """Bytes."""
        self.bert.encode(self.texts)


class Training(OneThread):
    """The loss and all gradients of a pre-training batch."""

    def setup(self):
        """Make a model and a batch."""
        super().setup()
        config = BertConfig(**MINILM)
        rng = np.random.default_rng(0)
        ids = rng.integers(1000, config.vocab_size, (BATCH, TOKENS))
        self.batch = {
            "input_ids": ids,
            "labels": np.where(rng.random(ids.shape) < MASKED, ids, -100),
            "next_sentence_label": rng.integers(0, 2, BATCH),
        }
        self.bert = npbert.Bert(config, init_params(config, "pretraining", seed=0), task="pretraining")

    def time_loss_and_grads(self):
        """Seconds."""
        self.bert.loss_and_grads(**self.batch)

    def peakmem_loss_and_grads(self):
        """Bytes."""
        self.bert.loss_and_grads(**self.batch)


class Textbook(OneThread):
    """Ops of the textbook, forward and backward."""

    params = (["gelu", "layernorm", "softmax_attention"],)
    param_names = ("op",)

    def setup(self, op):
        """Draw the inputs."""
        super().setup()
        rng = np.random.default_rng(0)

        def normal(*shape):
            return rng.standard_normal(shape, dtype=np.float32)

        hidden, heads = MINILM["hidden_size"], MINILM["num_attention_heads"]
        self.args = {
            "gelu": lambda: (normal(BATCH, TOKENS, MINILM["intermediate_size"]),),
            "layernorm": lambda: (normal(BATCH, TOKENS, hidden), normal(hidden), normal(hidden), 1e-12),
            "softmax_attention": lambda: tuple(
                normal(BATCH, heads, TOKENS, hidden // heads) for _ in range(3)
            ),
        }[op]()
        self.forward, self.backward = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
        y, self.cache = self.forward(*self.args)
        self.dy = normal(*y.shape)

    def time_forward(self, op):
        """Seconds."""
        self.forward(*self.args)

    def time_backward(self, op):
        """Seconds."""
        self.backward(self.dy, self.cache)
