"""Bert, the object that users hold: parameters, configuration and tokenizer, and what they can do."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npbert import ops
from npbert.backends import ShareOut, find_backend
from npbert.config import BertConfig
from npbert.encoding import TextEncoder, encode_texts
from npbert.heads import HeadOptions, task_backward, task_forward
from npbert.inputs import ModelInputs, check_dropout_seed, check_shape, floats, prepare_inputs
from npbert.labels import LABELS_OF_TASK, Labels, prepare_labels
from npbert.model import model_backward, model_forward, zeros_for_unused
from npbert.ops.array_module import to_numpy
from npbert.output import BertOutput, MaskPrediction
from npbert.params import (
    BODY_PREFIX,
    TASKS_WITH_DECODER,
    Params,
    canonical_names,
    check_task,
    subset,
    validate_params,
    with_prefix,
)
from npbert.pooling import PoolingSettings
from npbert.progress import progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    from npbert.tokenizer import WordPieceTokenizer

Array = NDArray[Any]

DEFAULT_BATCH_TOKENS: Final = 4096
INPUT_NAMES: Final = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
LABEL_NAMES: Final = ("labels", "next_sentence_label", "start_positions", "end_positions")


class Bert:
    """A BERT with its parameters, and perhaps its tokenizer.

    Parameters
    ----------
    config : BertConfig
    params : mapping of str to array
        Under Hugging Face's names, with or without ``"bert."``; see `npbert.init_params`. Arrays that
        have the right dtype are used as they are, not copied.
    tokenizer : WordPieceTokenizer, optional
        Needed by `encode` and `fill_mask`.
    task : str
        One of "encoder", "pretraining", "masked_lm", "next_sentence", "sequence_classification",
        "token_classification", "question_answering", "multiple_choice".
    dtype : float32, float64, or float16 on a CUDA backend, optional
        What is computed in. None: that of the parameters, but float32 at least.
    backend : str
        "reference" (the textbook, `npbert.ops`), "cpu" (the same mathematics, fast), "cuda" (kernels on a
        GPU, needs CuPy: parameters, outputs and gradients are CuPy arrays; what comes in may be NumPy's) or
        "cuda-emulated" (the same kernels on the CPU, slowly; needs a C++ compiler).
    pooling : PoolingSettings, optional
        How `encode` makes one vector of a text. None: the mean of its tokens, not normalised.

    Attributes
    ----------
    config, tokenizer, task, backend, pooling
        As given.
    dtype : numpy.dtype
    params : dict of str to array
        To train a model, change these arrays, or put others into the dict.

    Raises
    ------
    ValueError
        If a parameter is missing, has a wrong shape or is not finite, or an argument is not one of the
        above.
    npbert.errors.BackendError
        If the backend cannot work on this machine; says what is missing.

    Examples
    --------
    >>> config = BertConfig(vocab_size=50, hidden_size=12, num_hidden_layers=1, num_attention_heads=3,
    ...                     intermediate_size=24, max_position_embeddings=16)
    >>> from npbert.params import init_params
    >>> bert = Bert(config, init_params(config, "masked_lm", seed=0), task="masked_lm")
    >>> bert.forward(input_ids=[[2, 7, 3]]).logits.shape
    (1, 3, 50)
    """

    def __init__(
        self,
        config: BertConfig,
        params: Mapping[str, Array],
        tokenizer: "WordPieceTokenizer | None" = None,
        task: str = "pretraining",
        dtype: DTypeLike | None = None,
        backend: str = "cpu",
        pooling: PoolingSettings | None = None,
    ) -> None:
        check_task(task)
        if tokenizer is not None:
            _check_type("tokenizer", tokenizer, _tokenizer_class())
        if pooling is not None:
            _check_type("pooling", pooling, PoolingSettings)
        self._backend = find_backend(backend)
        self._ops = self._backend.ops
        arrays = {name: to_numpy(value) for name, value in params.items()}
        arrays = canonical_names(arrays, config, task)
        validate_params(arrays, config, task)
        self.dtype = _computing_dtype(dtype, arrays, self._backend.dtypes)
        if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} words, more than vocab_size {config.vocab_size}"
            )
        self.config = config
        self.params: Params = {
            name: self._backend.to_device(value.astype(self.dtype, copy=False))
            for name, value in arrays.items()
        }
        self.tokenizer = tokenizer
        self.task = task
        self.backend = backend
        self.pooling = pooling

    def __repr__(self) -> str:
        size = sum(value.size for value in self.params.values())
        return (
            f"Bert(task={self.task!r}, layers={self.config.num_hidden_layers}, "
            f"hidden_size={self.config.hidden_size}, parameters={size:,}, dtype={self.dtype}, "
            f"backend={self.backend!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the model as what it was made of; the engine, a module, is found by its name."""
        params = {name: to_numpy(value) for name, value in self.params.items()}
        made_of = (self.config, params, self.tokenizer, self.task, self.dtype, self.backend, self.pooling)
        return type(self), made_of

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that `encode` uses whole; it cuts longer ones."""
        limits = [self._pooling_settings.max_seq_length, self.config.max_position_embeddings]
        if self.tokenizer is not None:
            limits.append(self.tokenizer.model_max_length)
        return min(limit for limit in limits if limit is not None)

    def forward(
        self,
        input_ids: Any = None,
        *,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        past_key_values_length: int = 0,
        labels: Any = None,
        next_sentence_label: Any = None,
        start_positions: Any = None,
        end_positions: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        dropout_seed: int | None = None,
        reduction: str = "mean",
    ) -> BertOutput:
        """Run the model.

        Parameters
        ----------
        input_ids : (B, T) integer
            Word pieces. For multiple_choice all arrays have an axis of choices: (B, C, T).
        attention_mask : (B, T) of 0 and 1, or bool, optional
            1 for real tokens (all, where not given). In a text without any, attention yields 0.
        token_type_ids : (B, T) integer, optional
            Which sentence a token belongs to (0, where not given).
        position_ids : (B, T), (1, T) or (T,) integer, optional
            0, 1, 2, ... where not given.
        inputs_embeds : (B, T, D) floating, optional
            Word vectors in the place of ``input_ids``.
        past_key_values_length : int
            Where the positions start.
        labels, next_sentence_label, start_positions, end_positions : optional
            What the task's loss compares with; see `npbert.labels.prepare_labels`.
        output_hidden_states, output_attentions : bool
            Whether to return these too.
        dropout_seed : int in [0, 2^64), optional
            Turns dropout on, with masks drawn from this key. None: off.
        reduction : "mean" or "sum"
            Over the labelled places.

        Returns
        -------
        BertOutput

        Raises
        ------
        ValueError
            For a wrong shape, dtype or value; names the argument, the value, its index and the limit.
        """
        inputs = self._prepare_inputs(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, past_key_values_length
        )
        dropout_seed = check_dropout_seed(dropout_seed)
        checked_labels = self._prepare_labels(
            inputs, labels, next_sentence_label, start_positions, end_positions
        )
        wanted = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        if self.task == "encoder":
            body, _ = model_forward(
                self.params, self.config, inputs, self._ops, dropout_seed, keep_cache=False, **wanted
            )
            return BertOutput(**body._asdict())
        options = HeadOptions(dropout_seed, reduction, all_logits=True, choices=inputs.choices)
        body, head, _ = task_forward(
            self.params,
            self.config,
            self.task,
            inputs,
            checked_labels,
            options,
            self._ops,
            keep_cache=False,
            **wanted,
        )
        return BertOutput(loss=head.loss, **head.logits, **body._asdict())

    def loss_and_grads(
        self,
        input_ids: Any = None,
        *,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        past_key_values_length: int = 0,
        labels: Any = None,
        next_sentence_label: Any = None,
        start_positions: Any = None,
        end_positions: Any = None,
        dropout_seed: int | None = None,
        reduction: str = "mean",
    ) -> tuple[Any, Params]:
        """Return the loss and its gradient with respect to every parameter.

        Word scores are computed only where a label asks for them.

        Parameters
        ----------
        All : as for `forward`
            With the labels of the task.

        Returns
        -------
        loss : () floating
        grads : dict of str to array
            Keyed, ordered, shaped and typed like ``params``; zeros for parameters that were not used.

        Raises
        ------
        ValueError
            As for `forward`; and where labels are missing.
        """
        inputs = self._prepare_inputs(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, past_key_values_length
        )
        dropout_seed = check_dropout_seed(dropout_seed)
        checked_labels = self._prepare_labels(
            inputs, labels, next_sentence_label, start_positions, end_positions
        )
        if self.task == "encoder":
            raise ValueError('the task "encoder" has no loss; vjp gives the gradients of its outputs')
        if checked_labels.is_empty:
            needed = " and ".join(LABELS_OF_TASK[self.task])
            raise ValueError(f"the task {self.task!r} has no loss without {needed}")
        options = HeadOptions(dropout_seed, reduction, all_logits=False, choices=inputs.choices)
        _, head, cache = task_forward(
            self.params, self.config, self.task, inputs, checked_labels, options, self._ops
        )
        dloss = self.dtype.type(1)
        _, grads = task_backward(dloss, cache, self.params, self.config, self.task, self._ops)
        return head.loss, grads

    def vjp(
        self,
        dlast_hidden_state: Any = None,
        dpooler_output: Any = None,
        *,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        past_key_values_length: int = 0,
        dropout_seed: int | None = None,
    ) -> tuple[Params, Array | None]:
        """Pull gradients of the body's outputs back to its parameters (a vector-Jacobian product).

        For a loss of your own on top of the encoder: run `forward`, differentiate your loss with
        respect to ``last_hidden_state`` and ``pooler_output``, and hand these gradients to this method.

        Parameters
        ----------
        dlast_hidden_state : (B, T, D) floating, optional
        dpooler_output : (B, D) floating, optional
            At least one of the two.
        Others : as for `forward`
            The same as in the forward pass, which is run again.

        Returns
        -------
        grads : dict of str to array
            Keyed like ``params``; a head's parameters get zeros.
        dinputs_embeds : (B, T, D), or None where ``input_ids`` were given

        Raises
        ------
        ValueError
            As for `forward`; and for a gradient of a wrong shape, or none.
        """
        inputs = self._prepare_inputs(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, past_key_values_length
        )
        dropout_seed = check_dropout_seed(dropout_seed)
        body_params = self._body_params()
        output, cache = model_forward(body_params, self.config, inputs, self._ops, dropout_seed)
        if dlast_hidden_state is None and dpooler_output is None:
            raise ValueError("neither dlast_hidden_state nor dpooler_output given; at least one is needed")
        dlast_hidden_state = self._cotangent(
            "dlast_hidden_state", dlast_hidden_state, output.last_hidden_state
        )
        dpooler_output = self._cotangent("dpooler_output", dpooler_output, output.pooler_output)
        assert cache is not None
        dinputs_embeds, body_grads = model_backward(
            dlast_hidden_state, dpooler_output, cache, body_params, self.config, self._ops
        )
        if self.task == "encoder":
            return body_grads, dinputs_embeds
        grads = zeros_for_unused(with_prefix(body_grads, BODY_PREFIX), self.params)
        return grads, dinputs_embeds

    def prepare(self, batch: Mapping[str, Any]) -> tuple[ModelInputs, Labels]:
        """Check a batch and move it to where the engine computes: what a loop of one's own starts with.

        Parameters
        ----------
        batch : mapping of str to array
            The inputs and labels of `forward`, by name.

        Returns
        -------
        inputs : ModelInputs
        labels : Labels

        Raises
        ------
        ValueError
            As for `forward`; and for a name that is neither an input nor a label.
        """
        unknown = sorted(set(batch) - set(INPUT_NAMES) - set(LABEL_NAMES))
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is neither an input nor a label; these are: "
                f"{', '.join(INPUT_NAMES + LABEL_NAMES)}"
            )
        given: dict[str, Any] = {name: batch.get(name) for name in INPUT_NAMES}
        inputs = self._prepare_inputs(**given)
        return inputs, self._prepare_labels(inputs, *(batch.get(name) for name in LABEL_NAMES))

    @property
    def ops(self) -> ModuleType:
        """The engine: :mod:`npbert.ops`, or a module with the same names."""
        return self._ops

    @property
    def share_out(self) -> ShareOut:
        """How the engine does what is made of independent pieces: on its threads, where it has some."""
        return self._backend.share_out

    def encode(
        self,
        texts: str | Sequence[str],
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        progress: bool = False,
        batch_invariant: bool | None = None,
    ) -> Array:
        """Turn texts into vectors, pooled and normalised as the checkpoint says (``pooling``).

        Texts are run sorted by length, some thousand at a time, the next ones being tokenized meanwhile;
        longer texts than the checkpoint allows are cut.

        Parameters
        ----------
        texts : sequence of str, or one str
        batch_tokens : int
            The most tokens at once (of each thread), padding included: bounds the memory. A text that is
            longer runs alone.
        progress : bool
            Whether to show a progress bar on the standard error.
        batch_invariant : bool, optional
            Whether a text's vector is the same to the last bit whatever it is encoded with and however many
            threads there are. None: if that takes less than a tenth of the time, which depends on the
            kernels of the BLAS library (`npbert.cpu.invariance`); where they are no help, True means that
            texts share no product, which takes longer.

        Returns
        -------
        embeddings : (n, D) floating, or (D,) for one str
            A NumPy array in the model's dtype, or float32 where that is float16. No texts: (0, D).

        Raises
        ------
        ValueError
            Without a tokenizer, or if ``batch_tokens`` is not positive, or ``batch_invariant`` neither a bool
            nor None.
        TypeError
            If a text is not a str.
        """
        tokenizer = self._required_tokenizer("encode")
        if (
            isinstance(batch_tokens, bool)
            or not isinstance(batch_tokens, int | np.integer)
            or batch_tokens < 1
        ):
            raise ValueError(f"batch_tokens is {batch_tokens!r}; it must be an integer of at least 1")
        if batch_invariant not in (True, False, None):
            raise ValueError(f"batch_invariant is {batch_invariant!r}; it must be True, False or None")
        if isinstance(texts, str):
            embedding: Array = self.encode([texts], batch_tokens, progress, batch_invariant)[0]
            return embedding
        texts = list(texts)
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{index}] is {text!r}; it must be a str")
        if self._pooling_settings.do_lower_case:
            texts = [text.lower() for text in texts]
        encoder = self._encoder(batch_tokens, batch_invariant)
        with progress_bar("encoding", total=len(texts), enabled=progress) as advance:
            return encode_texts(texts, tokenizer, self.max_tokens, encoder, advance)

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[MaskPrediction]]:
        """Propose words for each mask in a text.

        Parameters
        ----------
        text : str
            With one or more mask tokens, usually ``[MASK]``.
        top_k : int
            How many words to return for each.

        Returns
        -------
        list of list of MaskPrediction
            For each mask, from left to right, its words from the most probable on.

        Raises
        ------
        ValueError
            Without a tokenizer, for a task without word scores, for a text without a mask or one that
            is too long, and if ``top_k`` is not in ``[1, vocab_size]``.

        Examples
        --------
        ``bert.fill_mask("the capital of france is [MASK].")[0][0].token``
        """
        tokenizer = self._required_tokenizer("fill_mask")
        if self.task not in TASKS_WITH_DECODER:
            raise ValueError(
                f"the task {self.task!r} has no word scores; load the model with one of: "
                f"{', '.join(TASKS_WITH_DECODER)}"
            )
        limit = tokenizer.vocab_size
        if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or not 1 <= top_k <= limit:
            raise ValueError(f"top_k is {top_k!r}; it must be an integer in [1, {limit}]")
        ids = np.array([tokenizer.encode(text).ids])  # (1, T)
        masks = np.flatnonzero(ids[0] == tokenizer.mask_id)
        if len(masks) == 0:
            raise ValueError(f"the text has no {tokenizer.id_to_token(tokenizer.mask_id)} to fill")

        output = self.forward(input_ids=ids)
        logits = output.logits if output.prediction_logits is None else output.prediction_logits
        assert logits is not None
        probs, _ = ops.softmax_forward(to_numpy(logits[0])[masks, :limit])  # (masks, V)
        best = np.argsort(-probs, axis=-1, kind="stable")[:, :top_k]  # (masks, top_k)
        return [
            [
                MaskPrediction(tokenizer.id_to_token(word), int(word), float(probs[row, word]))
                for word in best[row]
            ]
            for row in range(len(masks))
        ]

    def save(self, path: "Path | str", other_files: Mapping[str, bytes | str] | None = None) -> None:
        """Write a directory that `load`, transformers and sentence-transformers read.

        The configuration, the parameters (bit for bit), the tokenizer and the pooling, where there are
        such. All files appear together, or none.

        Parameters
        ----------
        path : path
            A directory; made if need be.
        other_files : mapping of str to bytes or str, optional
            Contents of more files, by their names.
        """
        # Imported here: most programs that load a model never save one.
        from npbert.checkpoint.huggingface import write_checkpoint
        from npbert.checkpoint.sentence_transformers import pooling_files

        files = dict(other_files or {})
        if self.tokenizer is not None:
            files |= self.tokenizer.files()
        if self.pooling is not None:
            files |= pooling_files(self.pooling, self.config.hidden_size)
        params = {name: to_numpy(value) for name, value in self.params.items()}
        write_checkpoint(path, self.config, params, self.task, other_files=files)

    # What the methods above share

    def _prepare_inputs(
        self,
        input_ids: Any,
        attention_mask: Any,
        token_type_ids: Any,
        position_ids: Any,
        inputs_embeds: Any,
        past_key_values_length: int = 0,
    ) -> ModelInputs:
        inputs: ModelInputs = self._backend.to_device(
            prepare_inputs(
                self.config,
                self.task,
                self.dtype,
                input_ids,
                attention_mask,
                token_type_ids,
                position_ids,
                inputs_embeds,
                past_key_values_length,
            )
        )
        return inputs

    def _prepare_labels(self, inputs: ModelInputs, *labels: Any) -> Labels:
        checked: Labels = self._backend.to_device(
            prepare_labels(self.config, self.task, self.dtype, inputs, *labels)
        )
        return checked

    def _body_params(self) -> Params:
        """The parameters of the body, without ``"bert."``."""
        return self.params if self.task == "encoder" else subset(self.params, BODY_PREFIX)

    def _cotangent(self, name: str, value: Any, output: Array | None) -> Array | None:
        if value is None:
            return None
        if output is None:
            raise ValueError(f"{name} is given, but the model has no pooler")
        array: Array = floats(name, value)
        check_shape(name, array, output.shape)
        cotangent: Array = self._backend.to_device(array.astype(self.dtype, copy=False))
        return cotangent

    def _required_tokenizer(self, method: str) -> "WordPieceTokenizer":
        if self.tokenizer is None:
            raise ValueError(f"{method} needs a tokenizer, and this Bert has none: Bert(..., tokenizer=...)")
        return self.tokenizer

    def _encoder(
        self, batch_tokens: int = DEFAULT_BATCH_TOKENS, batch_invariant: bool | None = None
    ) -> TextEncoder:
        return TextEncoder(
            self._body_params(),
            self.config,
            self.dtype,
            self._backend,
            self._pooling_settings,
            batch_tokens,
            batch_invariant,
        )

    @property
    def _pooling_settings(self) -> PoolingSettings:
        return self.pooling if self.pooling is not None else PoolingSettings()


def _tokenizer_class() -> type:
    """Import the tokenizer only where there is one: a model alone does not need it."""
    from npbert.tokenizer import WordPieceTokenizer

    return WordPieceTokenizer


def _check_type(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r}; it must be a {kind.__name__} or None")


def named_dtype(dtype: DTypeLike, allowed: Sequence[str]) -> np.dtype[Any]:
    try:
        result = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(allowed)}") from None
    if result.name not in allowed:
        raise ValueError(f"dtype is {result.name}; it must be one of {', '.join(allowed)}")
    return result


def _computing_dtype(
    dtype: DTypeLike | None, params: Mapping[str, Array], allowed: Sequence[str]
) -> np.dtype[Any]:
    """Return the dtype asked for, or the widest of the parameters' (half precision counts as float32)."""
    if dtype is not None:
        return named_dtype(dtype, allowed)
    return named_dtype(np.result_type(np.float32, *(value.dtype for value in params.values())), allowed)
