"""``npbert search``."""

import json

import numpy as np
import pytest

import npbert
from npbert.cli.search import best_matches
from tests.cli.conftest import LINES
from tests.cli.running import assert_fails, run


def test_ranked_lines(capsys, corpus, encoder):
    code, output, error = run(capsys, "search", corpus, "the bird sings", "--model", encoder)
    assert (code, error) == (0, "")
    query, header, *rows = output.splitlines()
    assert query == "the bird sings"
    assert header.split() == ["score", "line", "text"]
    assert rows[0].split(maxsplit=2) == ["1.000", "4", "the bird sings"]
    assert len(rows) == 3  # the empty line is passed over
    assert len({row.index(text) for row, text in zip(rows, _texts(rows), strict=True)}) == 1  # aligned
    scores = [float(row.split()[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def _texts(rows):
    return [row.split(maxsplit=2)[2] for row in rows]


def test_json_has_the_cosines(capsys, corpus, encoder):
    queries = ["cat", "a dog ."]
    code, output, _ = run(capsys, "search", corpus, *queries, "--model", encoder, "--top-k", "2", "--json")
    found = json.loads(output)
    assert code == 0
    assert (found["corpus"], found["texts"]) == (str(corpus), 3)
    bert = npbert.load(encoder)
    for entry, query in zip(found["queries"], queries, strict=True):
        assert entry["query"] == query
        assert len(entry["results"]) == 2
        for result in entry["results"]:
            assert result["text"] == LINES[result["line"] - 1]
            cosine = float(bert.encode(query) @ bert.encode(result["text"]))  # the vectors are unit ones
            assert result["score"] == pytest.approx(cosine, abs=1e-5)


def test_best_matches_against_a_loop():
    rng = np.random.default_rng(3)
    queries, texts = rng.normal(size=(2, 5)), rng.normal(size=(7, 5))
    texts[4] = 0  # no direction: cosine 0
    for query, found in zip(queries, best_matches(queries, texts, top_k=10), strict=True):
        assert sorted(match.position for match in found) == list(range(7))
        for match in found:
            text = texts[match.position]
            length = np.sqrt(query @ query) * np.sqrt(text @ text)
            assert match.score == pytest.approx(query @ text / length if length else 0, abs=1e-14)
        assert [match.score for match in found] == sorted((match.score for match in found), reverse=True)


def test_equal_scores_keep_their_order():
    found = best_matches(np.ones((1, 2)), np.array([[2.0, 2.0], [1.0, -1.0], [2.0, 2.0]]), top_k=3)
    assert [match.position for match in found[0]] == [0, 2, 1]


@pytest.mark.parametrize("query", ["", "  "])
def test_empty_query(query, capsys, corpus, encoder):
    assert_fails(capsys, ["search", corpus, "cat", query, "--model", encoder], 2, "query 2")


def test_corpus_of_empty_lines(capsys, tmp_path, encoder):
    path = tmp_path / "blank.txt"
    path.write_text("\n \n\n")
    assert_fails(capsys, ["search", path, "cat", "--model", encoder], 1, str(path), "empty")


def test_missing_corpus(capsys, tmp_path, encoder):
    assert_fails(
        capsys, ["search", tmp_path / "no.txt", "cat", "--model", encoder], 1, "no.txt", "no such file"
    )


def test_broken_utf8_in_the_query(capsys, corpus, encoder):
    # What Python makes of an argument that is not UTF-8.
    assert_fails(capsys, ["search", corpus, "caf\udce9", "--model", encoder], 1, "surrogate")
