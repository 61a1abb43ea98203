"""CSV, TSV and JSON Lines."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.tables import MAX_FIELD, Columns, TextExample, read_table

COLUMNS = Columns("text", label="label")
PAIRS = Columns("text", "pair", "label")


@pytest.fixture
def write(tmp_path):
    """Write a file, and return its path."""

    def writing(name: str, contents: str):
        path = tmp_path / name
        path.write_bytes(contents.encode())
        return path

    return writing


class TestReading:
    def test_csv(self, write):
        path = write("a.csv", 'label,other,text\r\ngood,1,"a, ""b""\nc"\r\n\r\nbad,2, d \r\n')
        assert read_table(path, COLUMNS) == [
            TextExample('a, "b"\nc', None, "good", 2),
            TextExample(" d ", None, "bad", 5),
        ]

    def test_tsv_has_no_quotes(self, write):
        path = write("a.tsv", 'text\tpair\tlabel\n"open\tb,c\t0\n')
        assert read_table(path, PAIRS) == [TextExample('"open', "b,c", "0", 2)]

    def test_jsonl(self, write):
        lines = [
            '{"text": "a\\nb\u2028c", "label": 3, "x": null}',
            "",
            '{"label": "\u00e9", "text": ""}',
            "",
        ]
        path = write("a.jsonl", "\ufeff" + "\r\n".join(lines))
        assert read_table(path, COLUMNS) == [
            TextExample("a\nb\u2028c", None, "3", 1),
            TextExample("", None, "\u00e9", 3),
        ]

    def test_without_labels(self, write):
        path = write("a.csv", "text\nfine\n")
        assert read_table(path, Columns("text")) == [TextExample("fine", None, None, 2)]

    def test_byte_order_mark_is_not_part_of_a_name(self, write):
        path = write("a.csv", "\ufefftext,label\na,b\n")
        assert read_table(path, COLUMNS)[0].text == "a"

    @pytest.mark.parametrize(
        ("name", "contents"),
        [
            ("a.csv", "text,label\na,-1.5e1\n"),
            ("a.jsonl", '{"text": "a", "label": -15}'),
            ("b.jsonl", '{"text": "a", "label": "-15"}'),
        ],
    )
    def test_regression(self, name, contents, write):
        (example,) = read_table(write(name, contents), COLUMNS, "regression")
        assert example.label == -15.0 and isinstance(example.label, float)

    @pytest.mark.parametrize(
        ("name", "contents"),
        [
            ("a.csv", 'text,label\na,"x, y"\nb,\n'),
            ("a.tsv", "text\tlabel\na\tx,y\nb\t \n"),
            ("a.jsonl", '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}'),
        ],
    )
    def test_several_labels(self, name, contents, write):
        examples = read_table(write(name, contents), COLUMNS, "multi_label_classification")
        assert [example.label for example in examples] == [("x", "y"), ()]

    def test_separator_of_labels(self, write):
        path = write("a.csv", "text,label\na,x;y\n")
        (example,) = read_table(path, COLUMNS, "multi_label_classification", label_separator=";")
        assert example.label == ("x", "y")

    def test_the_longest_field_there_may_be(self, write):
        path = write("a.csv", f"text,label\n{'a' * MAX_FIELD},b\n")
        assert len(read_table(path, COLUMNS)[0].text) == MAX_FIELD

    @given(st.lists(st.tuples(st.text(), st.text().filter(str.strip)), min_size=1))
    def test_what_the_csv_module_writes(self, tmp_path_factory, rows):
        # Not with surrogates and NULs, which no file of text has.
        clean = [
            tuple(field.encode("utf-8", "ignore").decode().replace("\0", "") or "x" for field in row)
            for row in rows
        ]
        clean = [row for row in clean if row[1].strip()] or [("a", "b")]
        file = io.StringIO(newline="")
        csv.writer(file).writerows([("text", "label"), *clean])
        path = tmp_path_factory.mktemp("csv") / "a.csv"
        path.write_bytes(file.getvalue().encode())
        assert [(example.text, example.label) for example in read_table(path, COLUMNS)] == clean

    def test_the_limit_of_the_csv_module_is_as_before(self, write):
        before = csv.field_size_limit()
        read_table(write("a.csv", "text,label\na,b\n"), COLUMNS)
        with pytest.raises(ValueError, match="missing"):
            read_table(write("b.csv", 'text,label\n"a,b\n'), COLUMNS)
        assert csv.field_size_limit() == before


LONG = "x" * (10 << 20)


class TestBadTables:
    @pytest.mark.parametrize(
        ("name", "contents", "message"),
        [
            ("a.csv", "txt,label\na,b\n", r"no column 'text'; there are: 'txt', 'label'$"),
            ("a.tsv", "text,label\na,b\n", r"no column 'text'; there are: 'text,label'$"),
            ("a.jsonl", '{"text": "a"}', r"line 1: no column 'label'; there are: 'text'$"),
            ("a.jsonl", "{}", r"line 1: no column 'text'; there are: none$"),
            ("a.csv", "text,label,text\na,b,c\n", "two columns are named 'text'"),
            ("a.csv", "text,label\na,b\nc\n", "line 3 has 1 fields, not 2 like the first line"),
            ("a.csv", "text,label\na,b\nc,d,e\n", r"line 3 has 3 fields, not 2 .*must be quoted"),
            ("a.tsv", "text\tlabel\n\na\n", r"line 3 has 1 fields, not 2 like the first line$"),
            ("a.csv", "text,label\n", "column names, but no rows"),
            ("a.csv", "\n\n", "only empty lines"),
            ("a.jsonl", "\n \n", "no rows"),
            ("a.csv", "text,label\na,b\nc, \n", "line 3: 'label' is empty; every row needs a label"),
            ("a.csv", 'text,label\na,b\n"c\nd",b\n"e,f\n', r"line 5, column 'text': unexpected end.*quote"),
            ("a.csv", 'text,label\n"a"b,c\n', r"line 2, column 'label': .*expected after.*quote"),
            ("a.csv", f'text,label\na,"{LONG}"\n', r"line 2, column 'label': .*10,485,760 .*1,048,576"),
            ("a.csv", f'text,label\na,b\nc,"{LONG}\n', r"line 3, column 'label': .*10,485,76\d .*1,048,576"),
            ("a.csv", f'"{LONG}\n', r"line 1, field 1: .*10,485,76\d .*1,048,576"),
            ("a.tsv", f"text\tlabel\na\t{LONG}\n", r"line 2, column 'label': .*10,485,760 .*1,048,576"),
            ("a.jsonl", '{"text": "a", "label": "b"}\n{"text" "a"}', r"line 2, column 9: no JSON: Expecting"),
            ("a.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}", "line 1: .*digits"),
            ("a.jsonl", "[" * 100_000, "line 1: .*recursion"),
            ("a.jsonl", '["text", "label"]', r"line 1: \['text', 'label'\] is not a JSON object"),
            ("a.jsonl", '{"text": 5, "label": "b"}', "line 1: 'text' is 5; it must be a text"),
            ("a.jsonl", '{"text": null, "label": "b"}', "line 1: 'text' is None; it must be a text"),
            ("a.jsonl", '{"text": "\\ud83d", "label": "b"}', r"line 1: 'text' is '\\ud83d': half a char"),
            ("a.jsonl", '{"text": "a", "label": true}', "line 1: 'label' is True; a label must be"),
            ("a.jsonl", '{"text": "a", "label": 0.5}', "line 1: 'label' is 0.5; a label must be"),
            ("a.jsonl", '{"text": "a", "label": ["b"]}', r"line 1: 'label' is \['b'\]; a label must be"),
            ("a.jsonl", '{"text": "a", "label": ""}', "line 1: 'label' is empty"),
            ("a.txt", "text,label\na,b\n", r"must end in \.csv, \.tsv or \.jsonl"),
            ("gz", "text,label\na,b\n", r"must end in \.csv"),
            ("a.csv", "a\0b", "line 1, byte 2: a NUL"),
            ("a.csv", "", "empty"),
        ],
    )
    def test_names_the_place(self, name, contents, message, write):
        with pytest.raises(ValueError, match=message) as error:
            read_table(write(name, contents), COLUMNS)
        assert name in str(error.value)
        assert len(str(error.value)) < 400

    def test_many_columns_are_not_all_named(self, write):
        header = ",".join(f"c{number}" for number in range(100))
        with pytest.raises(ValueError, match="'c19' and 80 more"):
            read_table(write("a.csv", f"{header}\n{header}\n"), COLUMNS)

    @pytest.mark.parametrize("value", ["", "many", "nan", "inf", "1,5", True, [1], None, 10**400])
    def test_no_number(self, value, write):
        path = write("a.jsonl", json.dumps({"text": "a", "label": value}))
        with pytest.raises(ValueError, match=r"line 1: 'label' is .*; it must be a finite number"):
            read_table(path, COLUMNS, "regression")

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (5, "it must be a list of labels"),
            (["a", ""], "is empty"),
            (["a", None], "None; a label must be"),
            ("a,b,a", "has a label twice"),
            ("a,,b", "is empty"),
        ],
    )
    def test_no_list_of_labels(self, value, message, write):
        path = write("a.jsonl", json.dumps({"text": "a", "label": value}))
        with pytest.raises(ValueError, match=f"line 1: 'label'.*{message}"):
            read_table(path, COLUMNS, "multi_label_classification")
