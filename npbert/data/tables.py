"""Tables of labelled texts: CSV, TSV and JSON Lines.

CSV is as RFC 4180 has it: a field with a comma, a quote or a line break stands in quotes, and a quote in it
is written twice. In TSV a quote is a character like others, as in the files of GLUE. Of JSON Lines each line
is an object; its columns are the object's keys.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert.data.text_files import DECOMPRESSORS, has_lone_surrogate, read_text
from npbert.data.wording import listed, shown

MAX_FIELD: Final = 1 << 20  # characters; a longer field of a CSV file is nearly always a quote left open

Label = str | float | tuple[str, ...]
Row = tuple[int, dict[str, Any]]  # the line that it begins in, from 1; its fields by column


class Columns(NamedTuple):
    """Which columns hold what.

    Attributes
    ----------
    text : str
    pair : str or None
        A second text, for models that judge two.
    label : str or None
        None: labels are not read.
    """

    text: str
    pair: str | None = None
    label: str | None = None


class TextExample(NamedTuple):
    """One row of a table.

    Attributes
    ----------
    text : str
    pair : str or None
    label : str, float, tuple of str, or None
        By the problem: one name, a number, any number of names. None where labels are not read.
    line : int
        The line of the file in which the row begins, from 1.
    """

    text: str
    pair: str | None
    label: Label | None
    line: int


def read_table(
    path: Path | str,
    columns: Columns,
    problem_type: str = "single_label_classification",
    label_separator: str = ",",
) -> list[TextExample]:
    """Read the labelled texts of a file.

    Parameters
    ----------
    path : path
        A file .csv, .tsv or .jsonl, which may be compressed (.csv.gz, .csv.bz2, ...). CSV and TSV begin with
        a line of column names.
    columns : Columns
    problem_type : str
        As in `npbert.BertConfig`. "single_label_classification": a label is a name.
        "multi_label_classification": any number of names; in JSON Lines a list, in CSV and TSV one field,
        split at ``label_separator``. "regression": a number.
    label_separator : str

    Returns
    -------
    list of TextExample
        At least one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not such a table: names the file, the line, the column, the value and the limit.
    """
    path = Path(path)
    rows = read_rows(path, [name for name in columns if name is not None])
    return [_example(path, line, fields, columns, problem_type, label_separator) for line, fields in rows]


def read_rows(path: Path, wanted: Sequence[str]) -> list[Row]:
    """Read the rows of a table, and check that they have the columns ``wanted``.

    Returns
    -------
    list of (int, dict)
        At least one: the line, and the fields of all columns. In CSV and TSV each is a str.
    """
    kind = _kind(path)
    text = read_text(path)
    rows = list(_json_rows(path, text, wanted) if kind == ".jsonl" else _csv_rows(path, text, wanted, kind))
    if not rows:
        what = "no rows" if kind == ".jsonl" else "column names, but no rows below them"
        raise ValueError(f"{path}: {what}")
    return rows


def _kind(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in DECOMPRESSORS]
    kind = suffixes[-1] if suffixes else ""
    if kind not in (".csv", ".tsv", ".jsonl"):
        raise ValueError(f"{path}: the name must end in .csv, .tsv or .jsonl (then perhaps in .gz or .bz2)")
    return kind


# CSV and TSV --------------------------------------------------------------------------------------------


def _csv_rows(path: Path, text: str, wanted: Sequence[str], kind: str) -> Iterator[Row]:
    records = _records(path, text, kind)
    _, header = records[0]
    for number, name in enumerate(header):
        if name in header[:number]:
            raise ValueError(f"{path}: two columns are named {name!r}")
    _check_columns(f"{path}", wanted, header)
    for line, fields in records[1:]:
        if len(fields) != len(header):
            hint = " (a field with a comma in it must be quoted)" if kind == ".csv" else ""
            raise ValueError(
                f"{path}: the row in line {line} has {len(fields)} fields, not {len(header)} like the first "
                f"line{hint}"
            )
        yield line, dict(zip(header, fields, strict=True))


def _records(path: Path, text: str, kind: str) -> list[tuple[int, list[str]]]:
    """Split a file into records, the column names too, each with the line in which it begins."""
    lines = list(io.StringIO(text, newline=""))
    rules = _rules(kind)
    records: list[tuple[int, list[str]]] = []
    with _fields_of_any_length():
        reader = csv.reader(lines, strict=True, **rules)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                # Once more, less strictly, to see what there is.
                fields = next(csv.reader(lines[line - 1 :], strict=False, **rules))
                _check_lengths(path, line, fields, records)
                column = _column(len(fields) - 1, records)
                raise ValueError(
                    f"{path}: the row in line {line}, {column}: {error}; is a quote missing?"
                ) from None
            _check_lengths(path, line, fields, records)
            if fields:  # nothing: an empty line
                records.append((line, fields))
    if not records:
        raise ValueError(f"{path}: only empty lines; the first line must have the names of the columns")
    return records


def _rules(kind: str) -> dict[str, Any]:
    if kind == ".csv":
        return {"delimiter": ",", "quoting": csv.QUOTE_MINIMAL}
    return {"delimiter": "\t", "quoting": csv.QUOTE_NONE}


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lift the csv module's limit, which is the process's: its error does not say which field is too long."""
    usual = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


def _check_lengths(
    path: Path, line: int, fields: list[str], records: Sequence[tuple[int, list[str]]]
) -> None:
    for number, field in enumerate(fields):
        if len(field) > MAX_FIELD:
            raise ValueError(
                f"{path}: the row in line {line}, {_column(number, records)}: a field of {len(field):,} "
                f"characters; the limit is {MAX_FIELD:,}. Is a closing quote missing?"
            )


def _column(number: int, records: Sequence[tuple[int, list[str]]]) -> str:
    """Name a column by what stands above it, as far as the names have been read."""
    header = records[0][1] if records else []
    return f"column {shown(header[number])}" if number < len(header) else f"field {number + 1}"


def _check_columns(where: str, wanted: Sequence[str], present: Sequence[str]) -> None:
    for name in wanted:
        if name not in present:
            raise ValueError(f"{where}: no column {name!r}; there are: {listed(present)}")


# JSON Lines ---------------------------------------------------------------------------------------------


def _json_rows(path: Path, text: str, wanted: Sequence[str]) -> Iterator[Row]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            value = json.loads(content)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {line}, column {error.colno}: no JSON: {error.msg}") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists
            raise ValueError(f"{path}: line {line}: {error}") from None
        if not isinstance(value, dict):
            raise ValueError(f"{path}: line {line}: {shown(value)} is not a JSON object")
        _check_columns(f"{path}: line {line}", wanted, list(value))
        yield line, value


# One row ------------------------------------------------------------------------------------------------


def _example(
    path: Path, line: int, fields: dict[str, Any], columns: Columns, problem_type: str, separator: str
) -> TextExample:
    def text(column: str) -> str:
        value = fields[column]
        if not isinstance(value, str):
            raise ValueError(f"{path}: line {line}: {column!r} is {shown(value)}; it must be a text")
        if has_lone_surrogate(value):
            raise ValueError(f"{path}: line {line}: {column!r} is {shown(value)}: half a character")
        return value

    label: Label | None = None
    if columns.label is not None:
        where = f"{path}: line {line}: {columns.label!r}"
        value = fields[columns.label]
        if problem_type == "regression":
            label = _number(where, value)
        elif problem_type == "multi_label_classification":
            label = _names(where, value, separator)
        else:
            label = _name(where, value)
    pair = None if columns.pair is None else text(columns.pair)
    return TextExample(text(columns.text), pair, label, line)


def _name(where: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{where} is {shown(value)}; a label must be a text or an integer")
    if not value.strip():
        raise ValueError(f"{where} is empty; every row needs a label")
    return value


def _names(where: str, value: Any, separator: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [name.strip() for name in value.split(separator)] if value.strip() else []
    if not isinstance(value, list):
        raise ValueError(f"{where} is {shown(value)}; it must be a list of labels")
    names = tuple(_name(where, name) for name in value)
    if len(set(names)) < len(names):
        raise ValueError(f"{where} is {shown(value)}; it has a label twice")
    return names


def _number(where: str, value: Any) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise ValueError(f"{where} is {shown(value)}; it must be a finite number")
