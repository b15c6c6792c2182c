from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from api.films import BadFields
from errors import InputError
from jobs.batches import BadRows, Row, decoded, of_lines, of_table, prepared, repeated
from jobs.job import Submission
from workflows.templates import templates

FILM = templates()["text_to_film"]


def values(text: str, **options: object) -> list[dict[str, str]]:
    return [dict(row.values) for row in of_table(text, FILM.fields(), **options)]


def test_every_line_that_is_not_empty_is_a_prompt() -> None:
    rows = of_lines("\ufeffa boat\r\n\r\n  一艘船 \n\ta car, red\n", {"steps": "2"})
    assert rows[0] == Row("Line 1", {"steps": "2", "prompt": "a boat"})
    assert [(row.where, row.values["prompt"]) for row in rows[1:]] == [("Line 3", "一艘船"), ("Line 4", "a car, red")]


def test_only_line_ends_end_a_line() -> None:
    """As the page counts them."""
    text = "a\x0bboat\x85on\u2028the\x1csea\r\nb\rc"
    assert [(row.where, row.values["prompt"]) for row in of_lines(text)] == [
        ("Line 1", "a\x0bboat\x85on\u2028the\x1csea"), ("Line 2", "b"), ("Line 3", "c"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "\n \r\n"])
def test_no_line_is_no_film(text: str) -> None:
    with pytest.raises(InputError, match="no film to make"):
        of_lines(text)


def test_as_many_as_may_be_and_no_more() -> None:
    assert len(of_lines("a\n" * 3, most=3)) == 3
    with pytest.raises(InputError, match="more than 3 rows"):
        of_lines("a\n" * 4, most=3)
    with pytest.raises(InputError, match="more than 3 rows"):
        values("prompt\n" + "a\n" * 4, most=3)


@pytest.mark.parametrize(
    "text",
    [
        'prompt,seed,frames\n"a boat, red",7,\n"two\nlines",,5\n',
        '\ufeffprompt,seed,frames\r\n"a boat, red",7,\r\n\r\n"two\nlines",,5\r\n,,\r\n',
        'prompt ;seed;frames\n"a boat, red";7;\n"two\nlines";;5\n',
        'prompt\tseed\tframes\na boat, red\t7\t\n"two\nlines"\t\t5\n',
    ],
)
def test_a_table_as_spreadsheets_write_it(text: str) -> None:
    assert values(text) == [{"prompt": "a boat, red", "seed": "7"}, {"prompt": "two\nlines", "frames": "5"}]


def test_what_all_have_is_taken_where_a_cell_is_empty() -> None:
    assert values("seed,steps\n1,\n2,9\n", shared={"prompt": "a boat", "steps": "4"}) == [
        {"prompt": "a boat", "steps": "4", "seed": "1"},
        {"prompt": "a boat", "steps": "9", "seed": "2"},
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt,sed\na,7\n", r"^Line 1: Unknown column 'sed'. Did you mean 'seed'\?"),
        ("prompt,seed,seed\na,7,8\n", "^Line 1: there are two columns 'seed'"),
        ("seed\n7\n", "^Line 1: there is no column `prompt`"),
        ("\n\nprompt\n", "no film to make"),
        ('prompt,seed\n"a\nb",7\nc\n', r"^Line 4: there are more or fewer columns than names \(1 and 2\)"),
        ("prompt,seed\na,7\n,8\n", "^Line 3: prompt is empty"),
        ('prompt\na\n"b\n', "^Line 3: unexpected end of data"),
        ("prompt\na\nCaf\ufffd\n", "^Line 3: it has characters that could not be read"),
    ],
)
def test_what_is_wrong_names_the_line(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        values(text)


def test_a_file_in_another_encoding_is_refused_by_its_line() -> None:
    assert decoded("\ufeffprompt\n船\n".encode(), "films.csv") == "prompt\n船\n"
    with pytest.raises(InputError, match=r"^films.csv, line 2: this is not UTF-8"):
        decoded("prompt\nCafé\n".encode("latin-1"), "films.csv")
    with pytest.raises(InputError, match=r"^films.csv, line 2: there are more"):
        of_table("prompt\na,b\n", FILM.fields(), source="films.csv")


def test_several_of_each_have_seeds_of_their_own() -> None:
    rows = repeated([Row("Line 1", {"prompt": "a", "seed": "7"})], 3, FILM)
    assert [dict(row.values) for row in rows] == [{"prompt": "a", "seed": "7"}, {"prompt": "a"}, {"prompt": "a"}]


def test_the_first_rows_that_are_wrong_are_told_together() -> None:
    def make(given: dict[str, str]) -> Submission:
        if given["prompt"] == "bad":
            raise InputError("steps is 0.", "Use 1.")
        return Submission({})

    rows = of_lines("good\nbad\ngood\nbad\n")
    assert len(prepared([rows[0], rows[2]], make)) == 2
    with pytest.raises(BadRows) as caught:
        prepared(rows, make)
    assert caught.value.rows == {"Line 2": "steps is 0.", "Line 4": "steps is 0."}
    assert caught.value.message == "Line 2: steps is 0. Line 4: steps is 0."
    with pytest.raises(BadRows) as caught:
        prepared(of_lines("bad\n" * 20), make)
    assert len(caught.value.rows) == 5


def test_what_all_have_is_wrong_once_and_not_on_every_line() -> None:
    def make(values: Mapping[str, Any]) -> Submission:
        raise BadFields({"steps": f"{values['steps']} is less than 1"})

    with pytest.raises(BadFields) as caught:
        prepared(of_lines("a boat\na car", {"steps": 0}), make, {"steps": 0})
    assert caught.value.fields == {"steps": "0 is less than 1"}
    table = of_table("prompt,steps\na boat,-1\na car,-1", FILM.fields(), {"steps": 0})
    with pytest.raises(BadRows) as found:
        prepared(table, make, {"steps": 0})
    assert found.value.rows.keys() == {"Line 2", "Line 3"}
