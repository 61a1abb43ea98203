"""Entities and their scores, counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.entities import EntityScores, are_entity_tags, entity_scores, find_entities


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("O O", []),
        ("B-A I-A O", [("A", 0, 2)]),
        ("B-A B-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),  # another type begins another entity
        ("O I-A I-A", [("A", 1, 3)]),  # IOB1
        ("I-A B-A", [("A", 0, 1), ("A", 1, 2)]),
        ("I-A O I-A", [("A", 0, 1), ("A", 2, 3)]),
        ("B-A I-A E-A S-B", [("A", 0, 3), ("B", 3, 4)]),  # IOBES
        ("S-A I-A", [("A", 0, 1), ("A", 1, 2)]),
        ("S-A E-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A E-A I-A", [("A", 0, 2), ("A", 2, 3)]),
        ("E-A E-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A-B I-A-B", [("A-B", 0, 2)]),
        ("NN B-A", [("A", 1, 2)]),  # what is no tag of an entity is outside
        ("", []),
    ],
)
def test_entities(tags, entities):
    assert find_entities(tags.split()) == entities


@pytest.mark.parametrize(
    ("true", "found", "scores"),
    [
        # The example of seqeval's documentation: one of two entities, one of two found.
        (
            ["O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O"],
            ["O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O"],
            (1 / 2, 1 / 2, 1 / 2),
        ),
        (["B-A I-A B-B O"], ["B-A I-A O O"], (1, 1 / 2, 2 / 3)),
        (["B-A O O O"], ["B-A B-B B-B O"], (1 / 3, 1, 1 / 2)),
        (["B-A I-A"], ["B-B I-B"], (0, 0, 0)),  # the type counts
        (["B-A I-A"], ["I-A I-A"], (1, 1, 1)),  # how the beginning is marked does not
        (["B-A I-A"], ["B-A O"], (0, 0, 0)),  # half an entity is none
        (["O"], ["O"], (0, 0, 0)),
        (["O"], ["B-A"], (0, 0, 0)),
        # Entities do not reach over the end of a sentence.
        (["B-A", "I-A"], ["B-A", "O"], (1, 1 / 2, 2 / 3)),
    ],
)
def test_scores(true, found, scores):
    result = entity_scores([tags.split() for tags in true], [tags.split() for tags in found])
    assert result == EntityScores(*map(pytest.approx, scores))


@given(st.lists(st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B", "E-A", "S-B"]))))
def test_what_is_right_scores_one(sentences):
    any_entity = any(tag != "O" for tags in sentences for tag in tags)
    assert entity_scores(sentences, sentences) == EntityScores(*[float(any_entity)] * 3)


def test_other_sizes():
    with pytest.raises(ValueError, match="sentence 1 has 1 true tags, but 2"):
        entity_scores([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(ValueError, match=r"longer|shorter"):
        entity_scores([["O"]], [])


@pytest.mark.parametrize(
    ("tags", "answer"),
    [
        ("O B-A", True),
        ("B-A O I-A S-B E-B", True),
        ("O", False),
        ("", False),
        ("O B-A X", False),
        ("B O", False),
    ],
)
def test_which_tags_mark_entities(tags, answer):
    assert are_entity_tags(tags.split()) is answer
