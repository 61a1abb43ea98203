"""How well entities were found: precision, recall and F1 over whole entities, as the CoNLL evaluations count.

Tags say which words form an entity: "B-PER" begins one of the type PER, "I-PER" goes on with it, "O" is
outside of all. "E-" ends one and "S-" is one of a single word (the scheme IOBES). An I that follows nothing
of its type begins an entity, as in CoNLL's first scheme (IOB1), so that any sequence of tags can be read.

References
----------
Tjong Kim Sang and De Meulder (2003), Introduction to the CoNLL-2003 shared task, and its script conlleval;
the definition is that of the package seqeval in its default mode.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

OUTSIDE: Final = "O"
ENTITY_TAG: Final = re.compile("[BIES]-.+", re.DOTALL)


class Entity(NamedTuple):
    """An entity: its type, and its words from ``start`` to before ``stop``."""

    type: str
    start: int
    stop: int


class EntityScores(NamedTuple):
    """Over all entities of a corpus; each is 0 where it would be 0 / 0.

    Attributes
    ----------
    precision : float
        Of the entities found, how many are right: type, first and last word.
    recall : float
        Of the true ones, how many were found.
    f1 : float
        Their harmonic mean.
    """

    precision: float
    recall: float
    f1: float


def are_entity_tags(tags: Iterable[str]) -> bool:
    """Return whether tags mark entities; those of parts of speech do not.

    Examples
    --------
    >>> are_entity_tags(["O", "B-PER", "I-PER"]), are_entity_tags(["NN", "VB"]), are_entity_tags(["O"])
    (True, False, False)
    """
    entity_tags = set(tags) - {OUTSIDE}
    return bool(entity_tags) and all(ENTITY_TAG.fullmatch(tag) for tag in entity_tags)


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of one sentence.

    Parameters
    ----------
    tags : sequence of str
        One a word; what is neither "O" nor begins with B-, I-, E- or S- counts as "O".

    Returns
    -------
    list of Entity

    Examples
    --------
    >>> find_entities(["B-PER", "I-PER", "O", "I-LOC"])
    [Entity(type='PER', start=0, stop=2), Entity(type='LOC', start=3, stop=4)]
    """
    entities = []
    start: int | None = None  # of the entity that the last word belongs to
    before, type_before = OUTSIDE, ""
    for word, tag in enumerate([*tags, OUTSIDE]):
        mark, _, kind = tag.partition("-") if ENTITY_TAG.fullmatch(tag) else (OUTSIDE, "", "")
        goes_on = mark in ("I", "E") and before in ("B", "I") and kind == type_before
        if start is not None and not goes_on:
            entities.append(Entity(type_before, start, word))
            start = None
        if mark != OUTSIDE and not goes_on:
            start = word
        before, type_before = mark, kind
    return entities


def entity_scores(true: Iterable[Sequence[str]], found: Iterable[Sequence[str]]) -> EntityScores:
    """Compare the entities that were found with the true ones.

    Parameters
    ----------
    true, found : iterable of sequence of str
        The tags of each sentence.

    Returns
    -------
    EntityScores

    Raises
    ------
    ValueError
        If there are not as many sentences, or words, in both.

    Examples
    --------
    >>> entity_scores([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "O", "O", "B-LOC"]])
    EntityScores(precision=0.5, recall=0.5, f1=0.5)
    """
    true_count = found_count = right_count = 0
    for index, (true_tags, found_tags) in enumerate(zip(true, found, strict=True)):
        if len(true_tags) != len(found_tags):
            raise ValueError(
                f"sentence {index} has {len(true_tags)} true tags, but {len(found_tags)} were found"
            )
        true_entities, found_entities = set(find_entities(true_tags)), set(find_entities(found_tags))
        true_count += len(true_entities)
        found_count += len(found_entities)
        right_count += len(true_entities & found_entities)
    precision = right_count / found_count if found_count else 0.0
    recall = right_count / true_count if true_count else 0.0
    f1 = 2 * right_count / (true_count + found_count) if true_count + found_count else 0.0
    return EntityScores(precision, recall, f1)
