"""Many films at once: a list of prompts, or a table with a column for each field that differs. All of them or none; what is wrong is told
by line and column."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from errors import InputError, UnknownNameError
from jobs.job import Submission
from workflows.templates import Template

MOST_ROWS = 1000
_MOST_SAID = 5  # of the lines that are wrong
_LINE_END = re.compile(r"\r\n|\r|\n")  # str.splitlines cuts at signs that stand within a prompt, such as U+2028
_DELIMITERS = ",;\t"  # spreadsheets write semicolons where a comma stands in numbers
_UNREADABLE = "\ufffd"
_SAVE = "Save it as CSV, in UTF-8."


@dataclass(frozen=True)
class Row:
    """`where` it stands, such as "Line 3". `values`: the fields that are given; what is left open is not among them."""

    where: str
    values: Mapping[str, Any]


class BadRows(InputError):
    """`rows`: what is wrong, by where it stands."""

    def __init__(self, rows: Mapping[str, str], hint: str = "") -> None:
        super().__init__(" ".join(f"{where}: {text}" for where, text in rows.items()), hint)
        self.rows = dict(rows)


def decoded(data: bytes, name: str) -> str:
    """A file's text. Raises InputError if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}, line {line}: this is not UTF-8.", _SAVE) from error


def of_lines(text: str, shared: Mapping[str, Any] | None = None, *, most: int = MOST_ROWS) -> list[Row]:
    """A prompt a line; empty lines are passed over. `shared`: what all have. Raises InputError if there is none or are too many."""
    lines = enumerate(_LINE_END.split(text.removeprefix("\ufeff")), start=1)
    rows = [Row(f"Line {number}", {**(shared or {}), "prompt": line.strip()}) for number, line in lines if line.strip()]
    return _checked(rows, most, "Write one prompt on each line.")


def of_table(
    text: str, fields: Collection[str], shared: Mapping[str, Any] | None = None, *, most: int = MOST_ROWS, source: str = ""
) -> list[Row]:
    """CSV, whose first line names fields. An empty cell is left open; `shared`: what all have that do not say otherwise; `source`: where it
    is from. Raises InputError for a column that is no field, a row without a prompt, and what is no CSV."""
    text, start = text.removeprefix("\ufeff"), f"{source}, line" if source else "Line"
    if _UNREADABLE in text:
        line = text.count("\n", 0, text.index(_UNREADABLE)) + 1
        raise BadRows({f"{start} {line}": "it has characters that could not be read."}, _SAVE)
    records, rows = _records(text, start), []
    where, names = next(records, (f"{start} 1", []))
    names = [name.strip() for name in names]
    _check_columns(where, names, fields, shared or {})
    for where, cells in records:
        if len(cells) != len(names):
            hint = "Put texts that hold commas in quotes."
            raise BadRows({where: f"there are more or fewer columns than names ({len(cells)} and {len(names)})."}, hint)
        given = {name: cell for name, cell in zip(names, cells, strict=True) if cell.strip()}
        if not given:
            continue
        if "prompt" in fields and "prompt" not in {**(shared or {}), **given}:
            raise BadRows({where: "prompt is empty."}, "Write what the film shows.")
        rows.append(Row(where, {**(shared or {}), **given}))
        if len(rows) > most:
            break
    return _checked(rows, most, "Write one row for each film below the names of the columns.")


def repeated(rows: Iterable[Row], times: int, template: Template) -> list[Row]:
    """So many of each; a seed that is given is the first one's."""
    seeds = {name for name, one in template.fields().items() if one.seed}
    found = []
    for row in rows:
        others = {name: value for name, value in row.values.items() if name not in seeds}
        found += [row, *[Row(row.where, others)] * (times - 1)]
    return found


def prepared(
    rows: Iterable[Row], make: Callable[[Mapping[str, Any]], Submission], shared: Mapping[str, Any] | None = None
) -> list[Submission]:
    """What `make` gives for the values of each. Raises BadRows with what it raises of the first few rows; what is wrong with values that
    are `shared` by all is raised as it is."""
    made: list[Submission] = []
    wrong: dict[str, str] = {}
    for row in rows:
        try:
            made.append(make(row.values))
        except InputError as error:
            fields = getattr(error, "fields", {})
            if fields and all(shared and name in shared and row.values.get(name) == shared[name] for name in fields):
                raise
            wrong.setdefault(row.where, error.message)
        if len(wrong) == _MOST_SAID:
            break
    if wrong:
        raise BadRows(wrong, "Nothing was made; mend these and send all of them again.")
    return made


def _records(text: str, start: str) -> Iterator[tuple[str, list[str]]]:
    """Each with the line on which it begins. Raises BadRows."""
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=first.count), strict=True)
    while True:
        where = f"{start} {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BadRows({where: f"{error}."}, _SAVE) from error
        if cells is None:
            return
        if cells:
            yield where, cells


def _check_columns(where: str, names: Sequence[str], fields: Collection[str], shared: Mapping[str, Any]) -> None:
    if "prompt" in fields and "prompt" not in {*names, *shared}:
        raise BadRows({where: "there is no column `prompt`."}, "Name the columns in the first line.")
    for number, name in enumerate(names):
        if name not in fields:
            error = UnknownNameError("column", name, fields)
            raise BadRows({where: error.message}, error.hint)
        if name in names[:number]:
            raise BadRows({where: f"there are two columns {name!r}."}, "Take one of them away.")


def _checked(rows: list[Row], most: int, hint: str) -> list[Row]:
    if not rows:
        raise InputError("There is no film to make.", hint)
    if len(rows) > most:
        raise InputError(f"There are more than {most} rows.", "Cut it into several.")
    return rows
