"""Reading WordNet's database files: the words that mean the same, what they mean, and examples of their use.

The format is described in the manual page wndb(5WN). A synset, a set of words with one meaning, is a line::

    02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 023 @ 02083346 n 0000 ... | a member of the ...

that is: its offset in the file; the number of its lexicographer file (a broad subject); its part of speech;
how many words, in hexadecimal; each word with a number; how many pointers; each pointer (its symbol, the
other synset's offset and part of speech, which words); a bar; and the gloss, a definition and then examples
in quotation marks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# To what a synset is subordinate: a hypernym, the class of an instance, the head of a cluster of adjectives.
PARENT_POINTERS: Final = ("@", "@i", "&")

_EXAMPLES: Final = re.compile(r'(?:^|[;:,.] *|\) )"')
_QUOTED: Final = re.compile(r'"([^"]+)"')


Key = tuple[str, str]  # part of speech ("n", "v", "a", "r") and offset: a synset's name among all


@dataclass(frozen=True)
class Synset:
    """A line of a data file.

    Parameters
    ----------
    key : Key
    subject : int
        The number of its lexicographer file.
    words : tuple of str
        With spaces for underscores.
    parent : Key or None
        Of the synset that it is subordinate to; the first where it has several.
    is_instance : bool
        Whether it is the name of one thing, such as a city.
    definition : str
    examples : tuple of str
    """

    key: Key
    subject: int
    words: tuple[str, ...]
    parent: Key | None
    is_instance: bool
    definition: str
    examples: tuple[str, ...]


def read_synsets(path: Path) -> Iterator[Synset]:
    """Yield the synsets of a data file, in its order.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is not a synset. Names the file and the line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.startswith("  "):  # the licence
                continue
            try:
                yield parse_synset(line)
            except (ValueError, IndexError):
                raise ValueError(
                    f"{path}, line {number}: not a synset of WordNet: {line.rstrip()[:60]!r}"
                ) from None


def parse_synset(line: str) -> Synset:
    """Return the synset of a line.

    Examples
    --------
    >>> line = '02 05 n 01 sea_dog 0 001 @ 01 n 0000 | a dog of the sea; "sea dogs swim"; "he is no sea dog"'
    >>> synset = parse_synset(line)
    >>> synset.words, synset.parent, synset.definition, synset.examples
    (('sea dog',), ('n', '01'), 'a dog of the sea', ('sea dogs swim', 'he is no sea dog'))
    """
    data, gloss = line.rstrip().split(" | ", maxsplit=1)
    offset, subject, part_of_speech, word_count, *fields = data.split()
    end = 2 * int(word_count, 16)
    words = tuple(re.sub(r"\((?:a|p|ip)\)$", "", word).replace("_", " ") for word in fields[:end:2])
    pointers = fields[end + 1 : end + 1 + 4 * int(fields[end])]
    parents = [
        (pointers[start + 2], pointers[start + 1])
        for start in range(0, len(pointers), 4)
        if pointers[start] in PARENT_POINTERS
    ]
    if part_of_speech == "s":  # a satellite: an adjective whose parent is the head of its cluster
        part_of_speech = "a"
    elif part_of_speech == "a":  # such a head, which points to its satellites: it stands with them
        parents = [("a", offset)] if parents else []
    definition, examples = split_gloss(gloss)
    return Synset(
        (part_of_speech, offset),
        int(subject),
        words,
        parents[0] if parents else None,
        "@i" in pointers[::4],
        definition,
        examples,
    )


def split_gloss(gloss: str) -> tuple[str, tuple[str, ...]]:
    """Return the definition and the examples of a gloss.

    Examples
    --------
    >>> split_gloss('allowing light to pass; "clear water"; "clear glass"- Anon.')
    ('allowing light to pass', ('clear water', 'clear glass'))
    >>> split_gloss('the letter "a"')
    ('the letter "a"', ())
    """
    start = _EXAMPLES.search(gloss)
    if start is None:
        return gloss.strip(), ()
    definition = gloss[: start.start() + (start.group()[0] == ")")]
    return definition.strip(" ;:,"), tuple(_QUOTED.findall(gloss[start.start() :]))
