"""SQuAD files, and the windows through which texts are read."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.squad import Answer, Question, encode_questions, read_squad
from npbert.tokenizer import WordPieceTokenizer

WORDS = [
    "who",
    "what",
    "café",
    "is",
    "in",
    "par",
    "##is",
    "the",
    "(",
    ")",
    "x",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
]
TOKENIZER = WordPieceTokenizer(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS], strip_accents=False, do_lower_case=True
)
CLS, SEP = TOKENIZER.cls_id, TOKENIZER.sep_id


def squad(*records, context="The café is in (Paris)."):
    return {
        "version": "2.0",
        "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(records)}]}],
    }


def record(name="q", start=4, text="café", **more):
    return {"id": name, "question": "what?", "answers": [{"text": text, "answer_start": start}]} | more


@pytest.fixture
def write(tmp_path):
    def writing(value):
        path = tmp_path / "a.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return writing


class TestReading:
    def test_answers(self, write):
        impossible = record("c", is_impossible=True, answers=[], plausible_answers=[{"text": "x"}])
        found = read_squad(
            write(squad(record("a"), record("b", 16, "Paris", is_impossible=False), impossible))
        )
        context = "The café is in (Paris)."
        assert found == [
            Question("a", "what?", context, (Answer("café", 4),)),
            Question("b", "what?", context, (Answer("Paris", 16),)),
            Question("c", "what?", context, ()),
        ]

    def test_several_articles(self, write):
        both = {"data": squad(record("a"))["data"] + squad(record("b", 0, "x"), context="x")["data"]}
        assert [question.context[0] for question in read_squad(write(both))] == ["T", "x"]

    def test_without_answers(self, write):
        value = squad({"id": "a", "question": "q"})
        (question,) = read_squad(write(value), labelled=False)
        assert question.answers == ()
        (question,) = read_squad(write(squad(record(start=999))), labelled=False)
        assert question.answers == ()

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ('{"data": [}', "line 1, column 11: no JSON: Expecting"),
            ("[" * 100_000, "recursion"),
            ("[]", "the file is no JSON object"),
            ({"version": "2.0"}, "data is missing; there are: 'version'"),
            ({"data": {}}, r"data is \{\}; it must be a list"),
            ({"data": []}, "no questions"),
            ({"data": ["x"]}, r"data\[0\] is no JSON object"),
            ({"data": [{"paragraphs": [{"qas": []}]}]}, r"data\[0\]\.paragraphs\[0\]\.context is missing"),
            (squad("x"), r"data\[0\]\.paragraphs\[0\]\.qas\[0\] is no JSON object"),
            (squad({"question": "q"}), r"qas\[0\]\.id is missing; there are: 'question'"),
            (squad(record(7)), r"qas\[0\]\.id is 7; it must be a text"),
            (squad(record(question=None)), r"qas\[0\]\.question is None; it must be a text"),
            (squad(record(question="\ud83d")), r"qas\[0\]\.question is '\\ud83d': half a character"),
            (squad({"id": "a", "question": "q"}), r"qas\[0\]\.answers is missing"),
            (squad(record("a"), record("a")), r"qas\[1\]\.id: 'a' is the id of an earlier question"),
            (squad(record(start="4")), r"answers\[0\]\.answer_start is '4'; it must be an integer"),
            (squad(record(start=True)), r"answers\[0\]\.answer_start is True; it must be an integer"),
            (
                squad(record(start=5)),
                r"answer_start is 5, where the context has 'afé ', not the answer 'café'",
            ),
            (squad(record(start=-19)), r"answer_start is -19, where the context has '', not the answer"),
            (squad(record(start=99)), r"answer_start is 99, where the context has ''"),
            (squad(record(text="")), r"answers\[0\]\.text is empty"),
        ],
    )
    def test_bad_files(self, value, message, write):
        with pytest.raises(ValueError, match=message) as error:
            read_squad(write(value))
        assert "a.json: " in str(error.value)

    def test_broken_utf8_and_missing_file(self, tmp_path):
        (tmp_path / "a.json").write_bytes(b'{"data":\n\xff}')
        with pytest.raises(ValueError, match=r"a\.json: line 2, byte 1: 0xff"):
            read_squad(tmp_path / "a.json")
        with pytest.raises(FileNotFoundError, match=r"b\.json"):
            read_squad(tmp_path / "b.json")


def ids(text):
    return TOKENIZER.encode_ids([text], add_special_tokens=False)[0]


class TestWindows:
    def test_one_window(self):
        question = Question("a", "who is", "The café is in (Paris).", (Answer("(Paris)", 15), Answer("x", 0)))
        (example,), (window,) = encode_questions([question], TOKENIZER)
        assert example.input_ids.tolist() == [
            CLS,
            *ids("who is"),
            SEP,
            *ids("the café is in ( paris ) ."),
            SEP,
        ]
        assert example.token_type_ids.tolist() == [0] * 4 + [1] * 10
        assert {name: value.item() for name, value in example.labels.items()} == {
            "start_positions": 8,
            "end_positions": 11,
        }
        assert window == (
            0,
            4,
            ((0, 3), (4, 8), (9, 11), (12, 14), (15, 16), (16, 19), (19, 21), (21, 22), (22, 23)),
        )

    @pytest.mark.parametrize(
        ("answer", "places"),
        [
            (Answer("afé i", 5), (5, 6)),  # tokens that have a part of it
            (Answer("i", 9), (6, 6)),
            (Answer(" ", 8), (0, 0)),  # no token has any of it
            (None, (0, 0)),
        ],
    )
    def test_odd_answers(self, answer, places):
        question = Question("a", "who is", "The café is", () if answer is None else (answer,))
        (example,), _ = encode_questions([question], TOKENIZER)
        assert (example.labels["start_positions"], example.labels["end_positions"]) == places

    def test_long_questions_and_empty_texts(self):
        question = Question("a", "who is who is who", "", ())
        (example,), (window,) = encode_questions([question], TOKENIZER, max_question_length=2)
        assert example.input_ids.tolist() == [CLS, *ids("who is"), SEP, SEP]
        assert window.offsets == ()

    def test_without_labels(self):
        (example,), _ = encode_questions([Question("a", "who", "x", ())], TOKENIZER, labelled=False)
        assert example.labels == {}

    @given(
        counts=st.lists(st.integers(1, 30), min_size=1, max_size=3),
        room=st.integers(1, 12),
        stride=st.integers(1, 20),
        data=st.data(),
    )
    def test_windows_have_all_of_a_text(self, counts, room, stride, data):
        questions = []
        for index, count in enumerate(counts):
            context = " ".join(str(number % 7 + 1) for number in range(count))
            first = data.draw(st.integers(0, count - 1))
            last = data.draw(st.integers(first, count - 1))
            answer = Answer(context[2 * first : 2 * last + 1], 2 * first)
            questions.append(Question(str(index), "who is", context, (answer,)))
        max_length = room + 5
        examples, windows = encode_questions(questions, TOKENIZER, max_length=max_length, stride=stride)
        seen = [set() for _ in questions]
        for example, window in zip(examples, windows, strict=True):
            question = questions[window.question]
            assert len(example.input_ids) <= max_length
            assert len(example.input_ids) == 5 + len(window.offsets)
            for token, (start, stop) in enumerate(window.offsets):
                assert ids(question.context[start:stop]) == [example.input_ids[window.first_token + token]]
                seen[window.question].add(start)
            first, last = example.labels["start_positions"], example.labels["end_positions"]
            starts = [start for start, _ in window.offsets]
            (text, answer_start), answer_last = question.answers[0], question.answers[0].start
            answer_last += len(text) - 1
            if answer_start in starts and answer_last in starts:
                assert window.offsets[first - window.first_token][0] == answer_start
                assert window.offsets[last - window.first_token][1] == answer_start + len(text)
            else:
                assert first == last == 0
        assert [sorted(some) for some in seen] == [list(range(0, 2 * count, 2)) for count in counts]
        # Not one window more than that takes.
        step = min(stride, room)
        assert len(windows) == sum(1 + -(-max(count - room, 0) // step) for count in counts)

    def test_arrays_are_integers(self):
        (example,), _ = encode_questions([Question("a", "who", "x", (Answer("x", 0),))], TOKENIZER)
        assert example.labels["start_positions"].dtype.kind == "i"
        assert example.input_ids.dtype == np.int32

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_length": 5}, "max_length is 5; the question 'a' alone, with special tokens, has 5"),
            ({"stride": 0}, "stride is 0; it must be at least 1"),
        ],
    )
    def test_bad_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            encode_questions([Question("a", "who is", "x", ())], TOKENIZER, **options)
