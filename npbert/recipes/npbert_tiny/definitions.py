"""Turning the definition of a WordNet synset into a sentence about its words."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from npbert.recipes.npbert_tiny.sentences import with_full_stop
from npbert.recipes.npbert_tiny.wordnet_format import Key, Synset

# The lexicographer files of things that are counted: animal, artifact, body, event, object, person, plant,
# shape. See lexnames(5WN).
COUNTED_SUBJECTS: Final = frozenset({5, 6, 8, 11, 17, 18, 20, 25})

VERBS: Final = ("comprises", "includes", "consists")
# fmt: off
DETERMINERS: Final = frozenset({
    "a", "an", "the", "any", "one", "some", "someone", "somebody", "something", "anyone", "anything",
    "each", "every", "either", "two", "three", "four", "several", "all", "both", "this", "that",
    "these", "those", "what", "whatever", "his", "her", "its", "their", "your", "one's",
})
# Where the noun of a gloss has been passed.
AFTER_THE_NOUN: Final = frozenset({
    "of", "that", "which", "in", "with", "having", "who", "used", "for", "from", "to", "by", "at", "on",
    "or", "and", "as",
})

# Notes on how a word is used, as against in which field.
USAGE_NOTES: Final = frozenset({
    "plural", "usually", "often", "sometimes", "used", "followed", "informal", "formal", "slang",
    "colloquial", "colloquially", "british", "trademark", "archaic", "formerly", "figurative",
    "figuratively", "derogatory", "chiefly", "usage", "meaning", "when",
})
# fmt: on

_NOTE: Final = re.compile(r"\(([^()]+)\) +(?=\S)")
# "a dog that", "a dog,": not "a gold medal".
_NOUN_WITH_ARTICLE: Final = re.compile(
    r"\ban? ([a-z][a-z-]+)"
    r"(?=[;,.)!?]|$| (?:of|that|which|in|with|for|from|to|by|at|on|or|and|is|was|has|having)\b)"
)


def nouns_with_articles(synsets: Iterable[Synset]) -> frozenset[str]:
    """Return the nouns that have "a" or "an" somewhere in the glosses: those that are counted."""
    return frozenset(
        word
        for synset in synsets
        for text in (synset.definition, *synset.examples)
        for word in _NOUN_WITH_ARTICLE.findall(text)
    )


def definition_sentence(synset: Synset, synsets: Mapping[Key, Synset], counted: frozenset[str]) -> str:
    """Return what a synset means as a sentence that begins with its words.

    Parameters
    ----------
    synset : Synset
    synsets : mapping of Key to Synset
        All of them, to look up the hypernyms.
    counted : frozenset of str
        See `nouns_with_articles`.

    Returns
    -------
    str
        "a violin or fiddle is a bowed stringed instrument ...", "to gentle is to stroke soothingly.",
        "clear means allowing light to pass through."; with "lemma: definition." for nouns whose
        definition does not fit a sentence.
    """
    domain, definition = split_note(synset.definition)
    if synset.key[0] == "n":
        return with_full_stop(domain + _noun_sentence(synset, definition, synsets, counted))
    names = " or ".join(synset.words[:2])
    if synset.key[0] != "v":
        return with_full_stop(f"{domain}{names} means {definition}")
    if definition.startswith("("):
        return with_full_stop(f"{domain}to {names}: {definition}")
    return with_full_stop(f"{domain}to {names} is to {definition.removeprefix('to ')}")


def _noun_sentence(
    synset: Synset, definition: str, synsets: Mapping[Key, Synset], counted: frozenset[str]
) -> str:
    names = synset.words[:2]
    if names[0].isupper() != names[-1].isupper() or names[0][0].isupper() != names[-1][0].isupper():
        names = names[:1]  # an abbreviation, a Latin name: another article, or none
    subject = " or ".join(names)
    first_word = definition.split(" ", 1)[0].lower()
    if first_word in VERBS:
        return f"{subject} {definition}"
    is_counted = takes_article(names[0], synset, counted)
    if first_word not in DETERMINERS and not first_word.endswith("ing"):
        noun = _noun_at_start(definition, synset, synsets)
        if noun is None or not (is_counted or noun in counted):
            return f"{subject}: {definition}"
        definition = with_article(definition)
    return f"{with_article(subject) if is_counted else subject} is {definition}"


def split_note(definition: str) -> tuple[str, str]:
    """Return what a definition says in parentheses first, as the beginning of a sentence, and its rest.

    Examples
    --------
    >>> split_note("(physics) a force"), split_note("(of clothing) very short")
    (('in physics, ', 'a force'), ('of clothing, ', 'very short'))
    >>> split_note("(usually plural) a thing"), split_note("a thing")
    (('', 'a thing'), ('', 'a thing'))
    """
    match = _NOTE.match(definition)
    if match is None:
        return "", definition
    note, rest = match.group(1), definition[match.end() :]
    words = re.findall(r"[\w-]+", note.lower())
    if not USAGE_NOTES.isdisjoint(words) or "`" in note or len(words) > 5:
        return "", rest
    if words[0] in ("of", "in", "for"):
        return f"{note}, ", rest
    return (f"in {note}, ", rest) if len(words) <= 3 else ("", rest)


def takes_article(name: str, synset: Synset, counted: frozenset[str]) -> bool:
    """Return whether "a" can stand before a noun: it is no name, and is counted rather than measured."""
    head = re.split(r" (?:of|in|for|to|on|at) ", name)[0].split(" ")[-1]
    if synset.is_instance or not head.islower():
        return False
    if synset.subject in COUNTED_SUBJECTS:
        return head in counted or not head.endswith(("s", "ae", "ing"))
    return head in counted and not head.endswith("ing")


def with_article(noun: str) -> str:
    """Return a noun with "a" or "an", as its first letters suggest.

    Examples
    --------
    >>> with_article("owl"), with_article("unit of time"), with_article("hour")
    ('an owl', 'a unit of time', 'an hour')
    """
    sounds_as_consonant = re.match(r"(?:uni|use|usu|eu|ewe|one\b|once)", noun, re.IGNORECASE)
    sounds_as_vowel = re.match(r"(?:[aeiou]|hour|honor|honest|heir)", noun, re.IGNORECASE)
    return f"an {noun}" if sounds_as_vowel and not sounds_as_consonant else f"a {noun}"


def _noun_at_start(definition: str, synset: Synset, synsets: Mapping[Key, Synset]) -> str | None:
    """Return the noun with which a definition begins: "tree" for "small tree of coastal regions".

    It is known to be the noun where the synset's hypernym, or that one's, is called so. None: not known.
    """
    nouns: set[str] = set()
    ancestor = synset.parent
    for _ in range(4):
        if ancestor is None or ancestor not in synsets:
            break
        nouns.update(word.split(" ")[-1] for word in synsets[ancestor].words)
        ancestor = synsets[ancestor].parent
    first_words: list[str] = re.findall(r"[\w-]+", definition)[:6]
    for word in first_words:
        if word in AFTER_THE_NOUN:
            return None
        if word in nouns:
            return word
    return None
