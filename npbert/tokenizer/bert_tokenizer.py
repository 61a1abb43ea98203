"""WordPieceTokenizer: text to the input arrays of BERT, and back."""

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from npbert.tokenizer.decoding import join_tokens
from npbert.tokenizer.encoding import Encoding, Offset
from npbert.tokenizer.normalization import BertNormalizer, checked_text
from npbert.tokenizer.truncation import kept_lengths, token_budget
from npbert.tokenizer.vocabulary import tokens_in_id_order
from npbert.tokenizer.wordpiece import CONTINUATION, WordPiece

if TYPE_CHECKING:
    from pathlib import Path

_WORD = re.compile("[^ ]+")


class WordPieceTokenizer:
    """BERT's tokenizer: the ids and offsets of Hugging Face's `tokenizers`, in pure Python.

    Parameters
    ----------
    vocab : sequence of str or mapping of str to int
        The tokens in the order of their ids, or the id of each token. Ids are 0 to V - 1.
    do_lower_case : bool
        Lower-case the text ("uncased" models).
    strip_accents : bool or None
        Strip accents; None does so exactly when the text is lower-cased.
    tokenize_chinese_chars : bool
        Make every CJK ideograph a word of its own.
    clean_text : bool
        Drop control characters before everything else.
    unk_token, sep_token, pad_token, cls_token, mask_token : str
        The special tokens; each must be in the vocabulary. Written in a text, as in
        "Paris is [MASK].", they are recognised when spelled exactly so.
    max_input_chars_per_word : int
        A longer word is one unknown token.
    model_max_length : int or None
        The number of positions of the model this tokenizer belongs to, None for no limit. It is a
        record for callers: the tokenizer truncates only where `max_length` is given.
    additional_special_tokens : sequence of str
        Further tokens of the vocabulary to recognise in a text as a whole.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a token occurs twice, ids are not 0 to V - 1, or a special token is not in the vocabulary.

    Examples
    --------
    >>> vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "!"]
    >>> tokenizer = WordPieceTokenizer(vocab)
    >>> tokenizer.encode("Unaffable!").tokens
    ['[CLS]', 'un', '##aff', '##able', '!', '[SEP]']
    >>> tokenizer.encode("Unaffable!").offsets
    [(0, 0), (0, 2), (2, 5), (5, 9), (9, 10), (0, 0)]
    >>> tokenizer.decode([2, 5, 6, 7, 8, 3])
    'unaffable!'
    """

    def __init__(
        self,
        vocab: Sequence[str] | Mapping[str, int],
        *,
        do_lower_case: bool = True,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        clean_text: bool = True,
        unk_token: str = "[UNK]",
        sep_token: str = "[SEP]",
        pad_token: str = "[PAD]",
        cls_token: str = "[CLS]",
        mask_token: str = "[MASK]",
        max_input_chars_per_word: int = 100,
        model_max_length: int | None = 512,
        additional_special_tokens: Sequence[str] = (),
    ) -> None:
        if max_input_chars_per_word < 1:
            raise ValueError(f"max_input_chars_per_word must be at least 1, it is {max_input_chars_per_word}")
        if model_max_length is not None and model_max_length < 1:
            raise ValueError(f"model_max_length must be at least 1 or None, it is {model_max_length}")
        self._tokens = tokens_in_id_order(vocab)
        self._vocab = {token: index for index, token in enumerate(self._tokens)}
        self.do_lower_case = do_lower_case
        self.strip_accents = strip_accents
        self.tokenize_chinese_chars = tokenize_chinese_chars
        self.clean_text = clean_text
        self.unk_token = unk_token
        self.sep_token = sep_token
        self.pad_token = pad_token
        self.cls_token = cls_token
        self.mask_token = mask_token
        self.max_input_chars_per_word = max_input_chars_per_word
        self.model_max_length = model_max_length
        self.additional_special_tokens = list(additional_special_tokens)

        named = {"pad": pad_token, "unk": unk_token, "cls": cls_token, "sep": sep_token, "mask": mask_token}
        arguments = {f"{name}_token": token for name, token in named.items()}
        for index, token in enumerate(self.additional_special_tokens):
            arguments[f"additional_special_tokens[{index}]"] = token
        for argument, token in arguments.items():
            if token not in self._vocab or not token:
                raise ValueError(
                    f"{argument} {token!r} is not in the vocabulary of {len(self._tokens)} tokens"
                )
        self._special_ids = {self._vocab[token] for token in arguments.values()}
        # The longest comes first: of two that begin at the same place the longer is meant.
        spellings = sorted(set(arguments.values()), key=len, reverse=True)
        self._special_pattern = re.compile("(" + "|".join(map(re.escape, spellings)) + ")")

        self._normalizer = BertNormalizer(
            lowercase=do_lower_case,
            strip_accents=do_lower_case if strip_accents is None else strip_accents,
            space_cjk=tokenize_chinese_chars,
            clean_text=clean_text,
        )
        self._model = WordPiece(self._vocab, self.unk_id, max_input_chars_per_word)

    @classmethod
    def from_directory(cls, path: "str | Path") -> "WordPieceTokenizer":
        """Read the tokenizer of a Hugging Face checkpoint.

        Parameters
        ----------
        path : str or Path
            A directory with vocab.txt, or else a WordPiece tokenizer.json; tokenizer_config.json and
            special_tokens_map.json are read where present.

        Returns
        -------
        WordPieceTokenizer
            The tokenizer that these files describe.

        Raises
        ------
        ValueError
            If a file is missing, not UTF-8, empty or not JSON, or asks for something that is not
            BERT's tokenization; the message names the file and the setting.
        """
        from npbert.tokenizer.files import read_settings  # here: files are not every program's matter

        return cls(**read_settings(path))

    def save(self, path: "str | Path") -> None:
        """Write the tokenizer so that `from_directory` and `transformers` read it back.

        Parameters
        ----------
        path : str or Path
            A directory, made if need be. vocab.txt, tokenizer.json, tokenizer_config.json and
            special_tokens_map.json in it are replaced, all of them or none.

        Raises
        ------
        ValueError
            If a token holds a line break, which vocab.txt cannot.
        """
        from npbert.checkpoint.files import replacing_files

        with replacing_files(path) as files:
            for name, contents in self.files().items():
                files.write(name, contents)

    def files(self) -> dict[str, str]:
        """Return the files that `save` writes, for those who write a whole checkpoint.

        Returns
        -------
        dict of str to str
            The contents of each file by its name.

        Raises
        ------
        ValueError
            If a token holds a line break, which vocab.txt cannot.
        """
        settings = {
            "do_lower_case": self.do_lower_case,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.tokenize_chinese_chars,
            "clean_text": self.clean_text,
            "unk_token": self.unk_token,
            "sep_token": self.sep_token,
            "pad_token": self.pad_token,
            "cls_token": self.cls_token,
            "mask_token": self.mask_token,
            "max_input_chars_per_word": self.max_input_chars_per_word,
            "model_max_length": self.model_max_length,
            "additional_special_tokens": self.additional_special_tokens,
        }
        from npbert.tokenizer.files import settings_files

        return settings_files(self._tokens, settings)

    @property
    def vocab(self) -> dict[str, int]:
        """The id of every token, in the order of the ids (a copy)."""
        return dict(self._vocab)

    @property
    def vocab_size(self) -> int:
        """The number of tokens, V."""
        return len(self._tokens)

    @property
    def pad_id(self) -> int:
        """The id of the padding token."""
        return self._vocab[self.pad_token]

    @property
    def unk_id(self) -> int:
        """The id of the unknown token."""
        return self._vocab[self.unk_token]

    @property
    def cls_id(self) -> int:
        """The id of the token before the first text."""
        return self._vocab[self.cls_token]

    @property
    def sep_id(self) -> int:
        """The id of the token after each text."""
        return self._vocab[self.sep_token]

    @property
    def mask_id(self) -> int:
        """The id of the token that stands for a hidden one."""
        return self._vocab[self.mask_token]

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token.

        Parameters
        ----------
        token : str
            A token as the vocabulary spells it.

        Returns
        -------
        int or None
            Its id; None if it is not in the vocabulary.
        """
        return self._vocab.get(token)

    def id_to_token(self, index: int) -> str:
        """Return the token with an id.

        Parameters
        ----------
        index : int
            An id, 0 to V - 1.

        Returns
        -------
        str
            The token as the vocabulary spells it.

        Raises
        ------
        ValueError
            If the id is out of range.
        """
        position = operator.index(index)
        if not 0 <= position < len(self._tokens):
            raise ValueError(f"id {position} is out of range: the vocabulary has {len(self._tokens)} tokens")
        return self._tokens[position]

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, without special tokens around it.

        Parameters
        ----------
        text : str
            Any text.

        Returns
        -------
        list of str
            The tokens as the vocabulary spells them.
        """
        return [self._tokens[index] for index in self._text_ids(checked_text(text, "text"))]

    def encode(
        self,
        text: str,
        pair: str | None = None,
        *,
        max_length: int | None = None,
        add_special_tokens: bool = True,
    ) -> Encoding:
        """Encode one text or one pair of texts, with all there is to know about each token.

        Parameters
        ----------
        text : str
            The first text; may be empty.
        pair : str, optional
            The second text.
        max_length : int, optional
            The largest number of tokens, special ones included. Of a pair the longer text loses its
            end first, then both keep half each (`longest_first`).
        add_special_tokens : bool
            Put `[CLS]` and `[SEP]` around the texts.

        Returns
        -------
        Encoding
            Ids, token types, tokens, offsets and the mask of special tokens.

        Raises
        ------
        TypeError
            If a text is not a string.
        ValueError
            If a text holds a lone surrogate, or `max_length` is too small for the special tokens.
        """
        texts = {"text": text} if pair is None else {"text": text, "pair": pair}
        budget = token_budget(max_length, pair is not None, add_special_tokens)
        encoded = [self._text_ids_and_offsets(checked_text(text, name)) for name, text in texts.items()]
        kept = kept_lengths([len(text_ids) for text_ids, _ in encoded], budget)

        ids: list[int] = []
        offsets: list[Offset] = []
        mask: list[int] = []
        token_type_ids: list[int] = []
        for type_id, ((text_ids, text_offsets), length) in enumerate(zip(encoded, kept, strict=True)):
            before = [self.cls_id] if add_special_tokens and type_id == 0 else []
            after = [self.sep_id] if add_special_tokens else []
            ids += before + text_ids[:length] + after
            offsets += [(0, 0)] * len(before) + text_offsets[:length] + [(0, 0)] * len(after)
            mask += [1] * len(before) + [0] * length + [1] * len(after)
            token_type_ids += [type_id] * (len(before) + length + len(after))
        tokens = [self._tokens[index] for index in ids]
        return Encoding(ids, token_type_ids, tokens, offsets, mask)

    def encode_ids(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        add_special_tokens: bool = True,
    ) -> list[list[int]]:
        """Return only the ids of many texts: several times faster than `encode`.

        Parameters
        ----------
        texts : sequence of str
            The (first) texts.
        pairs : sequence of str, optional
            The second texts, as many.
        max_length, add_special_tokens
            As for `encode`.

        Returns
        -------
        list of list of int
            The ids of each text or pair, not padded.

        Raises
        ------
        TypeError
            If `texts` or `pairs` is one string, or holds something else than strings.
        ValueError
            As for `encode`, or if there are not as many pairs as texts.
        """
        return [ids for ids, _ in self._encode_many(texts, pairs, max_length, add_special_tokens)]

    def batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        pad_to: int | None = None,
    ) -> dict[str, npt.NDArray[np.int64]]:
        """Encode many texts into the arrays that BERT takes, padded at the end.

        Parameters
        ----------
        texts : sequence of str
            The (first) texts, B of them.
        pairs : sequence of str, optional
            The second texts, as many.
        max_length : int, optional
            As for `encode`.
        pad_to : int, optional
            The length T to pad to; by default that of the longest.

        Returns
        -------
        dict of str to ndarray of int64, shape (B, T)
            `input_ids`, `attention_mask` (1 for tokens, 0 for padding) and `token_type_ids`. No
            texts give arrays of shape (0, pad_to or 0).

        Raises
        ------
        TypeError
            As for `encode_ids`.
        ValueError
            As for `encode_ids`, or if a text is longer than `pad_to`.
        """
        rows = self._encode_many(texts, pairs, max_length, add_special_tokens=True)
        longest = max((len(ids) for ids, _ in rows), default=0)
        width = longest if pad_to is None else operator.index(pad_to)
        if longest > width:
            index = next(i for i, (ids, _) in enumerate(rows) if len(ids) > width)
            raise ValueError(f"texts[{index}] has {len(rows[index][0])} tokens, more than pad_to={width}")
        shape = (len(rows), width)
        input_ids = np.full(shape, self.pad_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        token_type_ids = np.zeros(shape, dtype=np.int64)
        for row, (ids, second_length) in enumerate(rows):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
            token_type_ids[row, len(ids) - second_length : len(ids)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Return readable text for some ids.

        Parameters
        ----------
        ids : iterable of int
            Token ids, 0 to V - 1.
        skip_special_tokens : bool
            Leave out special tokens.

        Returns
        -------
        str
            The pieces joined to words, words joined by spaces, and the spaces before the commonest
            English punctuation and contractions taken out, as `tokenizers` does.

        Raises
        ------
        ValueError
            If an id is out of range; the message says at which position.
        """
        tokens = []
        for position, index in enumerate(ids):
            try:
                token = self.id_to_token(index)
            except ValueError as error:
                raise ValueError(f"ids[{position}]: {error}") from None
            if not (skip_special_tokens and index in self._special_ids):
                tokens.append(token)
        return join_tokens(tokens)

    def _encode_many(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        max_length: int | None,
        add_special_tokens: bool,
    ) -> list[tuple[list[int], int]]:
        """Return for each text or pair its ids, and how many of them belong to the second text."""
        for name, value in (("texts", texts), ("pairs", pairs)):
            if isinstance(value, str):
                raise TypeError(f"{name} must be a sequence of strings, got one string; write [{name}]")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"pairs has {len(pairs)} texts, texts has {len(texts)}")
        budget = token_budget(max_length, pairs is not None, add_special_tokens)
        rows = []
        for index, text in enumerate(texts):
            encoded = [self._text_ids(checked_text(text, f"texts[{index}]"))]
            if pairs is not None:
                encoded.append(self._text_ids(checked_text(pairs[index], f"pairs[{index}]")))
            kept = kept_lengths([len(ids) for ids in encoded], budget)
            parts = [ids[:length] for ids, length in zip(encoded, kept, strict=True)]
            if add_special_tokens:
                parts = [[*ids, self.sep_id] for ids in parts]
                parts[0] = [self.cls_id, *parts[0]]
            rows.append((list(chain.from_iterable(parts)), sum(map(len, parts[1:]))))
        return rows

    def _text_ids(self, text: str) -> list[int]:
        """Return the ids of a text; what lies between special tokens is split into words."""
        ids: list[int] = []
        for position, part in enumerate(self._special_pattern.split(text)):
            if position % 2:
                ids.append(self._vocab[part])
            else:
                # Not split(): it also splits at the separators U+001C to U+001F, which are no white
                # space to BERT and stay in the text when it is not cleaned.
                words = self._normalizer.normalize(part).split(" ")
                ids += self._model.ids(filter(None, words))
        return ids

    def _text_ids_and_offsets(self, text: str) -> tuple[list[int], list[Offset]]:
        """Return the ids of a text and where each token stands in it."""
        ids: list[int] = []
        offsets: list[Offset] = []
        part_start = 0
        for position, part in enumerate(self._special_pattern.split(text)):
            part_end = part_start + len(part)
            if position % 2:
                ids.append(self._vocab[part])
                offsets.append((part_start, part_end))
            else:
                normalized, origins = self._normalizer.normalize_with_origins(part)
                for word in _WORD.finditer(normalized):
                    word_ids = self._model.word_ids(word[0])
                    ids += word_ids
                    for start, end in self._piece_spans(word_ids, *word.span()):
                        offsets.append((part_start + origins[start], part_start + origins[end - 1] + 1))
            part_start = part_end
        return ids, offsets

    def _piece_spans(self, word_ids: tuple[int, ...], start: int, end: int) -> list[Offset]:
        """Return where the pieces of the word at start:end lie in the normalised text."""
        if len(word_ids) == 1:  # a whole word, known or unknown
            return [(start, end)]
        spans: list[Offset] = []
        for index in word_ids:
            prefix_length = len(CONTINUATION) if spans else 0
            piece_end = start + len(self._tokens[index]) - prefix_length
            spans.append((start, piece_end))
            start = piece_end
        return spans
