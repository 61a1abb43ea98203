"""From raw text to words, as BERT sees them: cleaning, CJK spacing, accents, case, punctuation.

Almost everything that BERT does to a text before WordPiece happens one character at a time, so it is
one table from a character to the string that takes its place:

    "\\x07" -> ""     "\\t" -> " "     "中" -> " 中 "     "É" -> "e"     "!" -> " ! "

`str.translate` applies the table and the words are what lies between the spaces. The position of
every character of the result in the original text follows from the lengths of the table's entries.

One thing is not character by character: accent stripping first brings the text into canonical
decomposition (Unicode's NFD), which sorts runs of combining characters. The sorting shows only where
a combining character survives the stripping. The characters that are one, or decompose to one, are
the `REORDERED` ones; they are rare, and a text with one of them takes the long way
(`_normalize_in_canonical_order`).

References
----------
google-research/bert, tokenization.py (BasicTokenizer); Hugging Face `tokenizers`, BertNormalizer and
BertPreTokenizer, whose results these are; Unicode Standard Annex #15 for NFD.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator

from npbert.tokenizer import unicode_tables

# The table of a tokenizer that meets every code point would hold a million strings; real text uses
# a few thousand. Characters beyond the limit are worked out anew each time.
MAX_CACHED_CHARACTERS = 65_536


class CodePoints:
    """A set of code points, kept as sorted ranges.

    Parameters
    ----------
    table : str
        Code points in hexadecimal in ascending order, a range as first-last, separated by white space.

    Examples
    --------
    >>> digits_and_a = CodePoints("30-39 61")
    >>> [ord(c) in digits_and_a for c in "5ab"]
    [True, True, False]
    """

    def __init__(self, table: str) -> None:
        self.ranges: list[tuple[int, int]] = []
        for item in table.split():
            first, _, last = item.partition("-")
            self.ranges.append((int(first, 16), int(last or first, 16)))
        self._firsts = [first for first, _ in self.ranges]

    def __contains__(self, code_point: int) -> bool:
        index = bisect_right(self._firsts, code_point) - 1
        return index >= 0 and code_point <= self.ranges[index][1]

    def pattern(self) -> re.Pattern[str]:
        """Return a compiled pattern that matches any one character of the set."""
        return re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in self.ranges) + "]")


REMOVED = CodePoints(unicode_tables.REMOVED)
WHITESPACE = CodePoints(unicode_tables.WHITESPACE)
CJK = CodePoints(unicode_tables.CJK)
PUNCTUATION = CodePoints(unicode_tables.PUNCTUATION)
MARKS = CodePoints(unicode_tables.MARKS)
REORDERED = CodePoints(unicode_tables.REORDERED)
UNDECOMPOSED = CodePoints(unicode_tables.UNDECOMPOSED)
NEW_LOWER_CASE = {
    chr(code_point): chr(code_point + distance)
    for first, last, distance in unicode_tables.NEW_LOWER_CASE
    for code_point in range(first, last + 1)
}

_HAS_REORDERED = REORDERED.pattern()
_SURROGATE = re.compile("[\ud800-\udfff]")


def checked_text(text: object, name: str) -> str:
    """Return the text if it is one that can be tokenized.

    Parameters
    ----------
    text : object
        What a caller passed as a text.
    name : str
        How errors call it.

    Returns
    -------
    str
        The same text.

    Raises
    ------
    TypeError
        If it is not a string.
    ValueError
        If it holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, got {type(text).__name__}")
    if not text.isascii() and (surrogate := _SURROGATE.search(text)):
        raise ValueError(
            f"{name} has a lone surrogate U+{ord(surrogate[0]):04X} at character {surrogate.start()}; "
            "it is not valid Unicode text"
        )
    return text


class BertNormalizer:
    """Turns text into words separated by spaces, and says where each character came from.

    Parameters
    ----------
    lowercase : bool
        Lower-case every character (on its own: a final sigma is not special).
    strip_accents : bool
        Decompose characters and drop the marks (category Mn).
    space_cjk : bool
        Make every CJK ideograph a word of its own.
    clean_text : bool
        Drop control characters, NUL and U+FFFD.
    """

    def __init__(self, *, lowercase: bool, strip_accents: bool, space_cjk: bool, clean_text: bool) -> None:
        self._lowercase = lowercase
        self._strip_accents = strip_accents
        self._space_cjk = space_cjk
        self._clean_text = clean_text
        self._table = _CharacterTable(self)

    def normalize(self, text: str) -> str:
        """Return the words of a text, separated by one or more spaces.

        Parameters
        ----------
        text : str
            Any text without lone surrogates.

        Returns
        -------
        str
            Words and spaces; no other white space is left.

        Examples
        --------
        >>> normalizer = BertNormalizer(
        ...     lowercase=True, strip_accents=True, space_cjk=True, clean_text=True
        ... )
        >>> normalizer.normalize("Très bien!").split()
        ['tres', 'bien', '!']
        """
        if self._needs_canonical_order(text):
            return self._normalize_in_canonical_order(text)[0]
        return text.translate(self._table)

    def normalize_with_origins(self, text: str) -> tuple[str, list[int]]:
        """Return the words of a text and, for each of their characters, where it came from.

        Parameters
        ----------
        text : str
            Any text without lone surrogates.

        Returns
        -------
        normalized : str
            The same as `normalize` gives.
        origins : list of int
            For each character of `normalized`, the index in `text` of the character it came from.
            Never decreases.
        """
        if self._needs_canonical_order(text):
            return self._normalize_in_canonical_order(text)
        replacements = [self._table[ord(character)] for character in text]
        origins = [index for index, replacement in enumerate(replacements) for _ in replacement]
        return "".join(replacements), origins

    def _needs_canonical_order(self, text: str) -> bool:
        return self._strip_accents and not text.isascii() and _HAS_REORDERED.search(text) is not None

    def replacement(self, code_point: int) -> str:
        """Return what takes the place of one character when it stands alone.

        Parameters
        ----------
        code_point : int
            The character's code point.

        Returns
        -------
        str
            Nothing, a space, or one or more characters, with spaces around those that are words.
        """
        return "".join(
            self._finish(part)
            for character in self._clean_and_space(chr(code_point))
            for part in self._decompose(character)
        )

    # The three stages of `replacement`, which the long way takes one by one.

    def _clean_and_space(self, character: str) -> str:
        """Drop control characters, make white space a space, put spaces around an ideograph."""
        code_point = ord(character)
        if self._clean_text and code_point in REMOVED:
            return ""
        if code_point in WHITESPACE:
            return " "
        if self._space_cjk and code_point in CJK:
            return f" {character} "
        return character

    def _decompose(self, character: str) -> str:
        """Return the canonical decomposition where accents are stripped, else the character."""
        if not self._strip_accents or ord(character) in UNDECOMPOSED:
            return character
        return unicodedata.normalize("NFD", character)

    def _finish(self, character: str) -> str:
        """Drop a mark, lower the case, and put spaces around punctuation."""
        if self._strip_accents and ord(character) in MARKS:
            return ""
        if self._lowercase:
            character = NEW_LOWER_CASE.get(character) or character.lower()
        if ord(character[0]) in WHITESPACE:
            return " "
        # Only a single character can be punctuation: no lower case of several characters holds any.
        return f" {character} " if ord(character[0]) in PUNCTUATION else character

    def _normalize_in_canonical_order(self, text: str) -> tuple[str, list[int]]:
        """Do what `normalize_with_origins` does for a text whose combining characters get sorted.

        The origins copy a habit of the `tokenizers` library. It looks at the sorted characters in
        turn: the first character of a decomposition takes the next place of the undecomposed text,
        whatever stood there, and the others share the place taken last.
        """
        characters: list[str] = []
        places: list[int] = []
        for index, original in enumerate(text):
            for character in self._clean_and_space(original):
                characters.append(character)
                places.append(index)

        normalized: list[str] = []
        origins: list[int] = []
        taken = 0
        for part, is_first in _in_canonical_order(
            (part, position == 0)
            for character in characters
            for position, part in enumerate(self._decompose(character))
        ):
            taken += is_first
            replacement = self._finish(part)
            normalized.append(replacement)
            origins.extend([places[max(taken - 1, 0)]] * len(replacement))
        return "".join(normalized), origins


class _CharacterTable(dict[int, str]):
    """The replacements of a normalizer, each worked out when its character is first met."""

    def __init__(self, normalizer: BertNormalizer) -> None:
        self._replacement = normalizer.replacement

    def __missing__(self, code_point: int) -> str:
        replacement = self._replacement(code_point)
        if len(self) < MAX_CACHED_CHARACTERS:
            self[code_point] = replacement
        return replacement


def _in_canonical_order(parts: Iterator[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    """Sort every run of non-starters by combining class, equal classes staying in their order."""
    run: list[tuple[str, bool]] = []
    for part in parts:
        if _combining_class(part[0]) == 0:
            yield from sorted(run, key=lambda item: _combining_class(item[0]))
            run = []
            yield part
        else:
            run.append(part)
    yield from sorted(run, key=lambda item: _combining_class(item[0]))


def _combining_class(character: str) -> int:
    """Return the canonical combining class; 0 for characters newer than the library's table."""
    code_point = ord(character)
    if code_point in MARKS or code_point in REORDERED:
        return unicodedata.combining(character)
    return 0
