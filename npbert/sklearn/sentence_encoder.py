"""SentenceEncoder: texts to vectors, as a scikit-learn transformer."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from npbert.bert import DEFAULT_BATCH_TOKENS, Bert
from npbert.checkpoint.source import INSTALLED_MODEL
from npbert.loading import load
from npbert.pooling import PoolingSettings
from npbert.sklearn.texts import list_of_texts

MODELS_KEPT: Final = 2  # in memory; a pipeline seldom has more
FileStamp = tuple[str, int, int]  # name, size, time of the last change


class SentenceEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn each text into one vector, with a model as it is: nothing is learned.

    There is nothing to fit: `transform` works at once, and a pickle or a clone has the parameters alone. The
    model is read when it is first used; all encoders of a process share the two that were used last.

    Parameters
    ----------
    model : str or path
        A directory or a name, as for `npbert.load`.
    pooling : "mean", "cls" or None
        Whether a text's vector is the mean of its tokens' or that of its first token. None: as the model
        says, else the mean.
    normalize : bool or None
        Whether vectors are scaled to length 1. None: as the model says, else not.
    max_length : int or None
        Texts are cut to this many tokens. None: to what the model says.
    batch_tokens : int
        The most tokens at once (of each thread), padding included: bounds the memory.
    batch_invariant : bool or None
        Whether a text's vector has the same bits whatever is encoded with it; see `npbert.Bert.encode`.
    dtype : str
        What is computed in: "float32" or "float64" ("float16" on a CUDA backend).
    backend : str
        As for `npbert.Bert`.
    verbose : bool
        Whether to show a progress bar.

    Examples
    --------
    A classifier on vectors of texts, and how well it does:

    .. code-block:: python

        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_score
        from sklearn.pipeline import make_pipeline

        pipeline = make_pipeline(SentenceEncoder("all-MiniLM-L6-v2"), LogisticRegression())
        cross_val_score(pipeline, texts, labels)
    """

    def __init__(
        self,
        model: str | Path = INSTALLED_MODEL,
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        batch_invariant: bool | None = None,
        dtype: str = "float32",
        backend: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.pooling = pooling
        self.normalize = normalize
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.batch_invariant = batch_invariant
        self.dtype = dtype
        self.backend = backend
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "SentenceEncoder":
        """Check the texts, and that the model can be read; nothing is learned from them.

        Parameters
        ----------
        X : array-like of str, (n,) or (n, 1)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X are not texts, or a parameter is not one of the above.
        FileNotFoundError
            If there is no such model.
        """
        self._texts(X, reset=True)
        self._bert()
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return the texts' vectors.

        Parameters
        ----------
        X : array-like of str, (n,) or (n, 1)

        Returns
        -------
        (n, D) floating

        Raises
        ------
        ValueError, FileNotFoundError
            As for `fit`.
        """
        texts = self._texts(X, reset=False)
        return self._bert().encode(texts, self.batch_tokens, bool(self.verbose), self.batch_invariant)

    @property
    def _n_features_out(self) -> int:
        """How many features `get_feature_names_out` has to name."""
        return self._bert().config.hidden_size

    def _texts(self, X: Any, reset: bool) -> list[str]:
        """Return X as texts; ``reset`` is scikit-learn's word for a new fit."""
        return list_of_texts(X)

    def _bert(self) -> Bert:
        return _load_encoder(
            str(self.model),
            _file_stamps(Path(self.model)),
            self.pooling,
            self.normalize,
            self.max_length,
            self.dtype,
            self.backend,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


@lru_cache(maxsize=MODELS_KEPT)
def _load_encoder(
    model: str,
    files: tuple[FileStamp, ...],
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
    dtype: str,
    backend: str,
) -> Bert:
    """Return a model that pools as it is told to; ``files`` is there so that changed files are read anew."""
    bert = load(model, "encoder", dtype, backend)
    if bert.tokenizer is None:
        raise ValueError(f"{model}: no vocabulary (vocab.txt); without it a model cannot read texts")
    settings = bert.pooling if bert.pooling is not None else PoolingSettings()
    changes: dict[str, Any] = {"mode": pooling, "normalize": normalize, "max_seq_length": max_length}
    bert.pooling = replace(settings, **{name: value for name, value in changes.items() if value is not None})
    return bert


def _file_stamps(directory: Path) -> tuple[FileStamp, ...]:
    """Return what tells a directory's files from later ones under the same names; nothing of a mere name."""
    stamps = []
    for path in sorted(directory.rglob("*")) if directory.is_dir() else ():
        status = path.stat()
        stamps.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(stamps)
