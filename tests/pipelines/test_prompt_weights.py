from __future__ import annotations

import time

import pytest

from errors import InputError
from pipelines.prompt_weights import check_weights, parse_weights

WEIGHTS = {
    "": [],
    "a cat": [("a cat", 1.0)],
    "a (big) cat": [("a ", 1.0), ("big", 1.1), (" cat", 1.0)],
    "((x))": [("x", 1.1 * 1.1)],
    "(x (y) z)": [("x ", 1.1), ("y", 1.1 * 1.1), (" z", 1.1)],
    "(x:1.3)": [("x", 1.3)],
    "(x: 1.3 )": [("x", 1.3)],
    "(x:.5)(y:2)(z:-1)(v:1e-1)": [("x", 0.5), ("y", 2.0), ("z", -1.0), ("v", 0.1)],
    "(x:0)": [("x", 0.0)],
    # a number replaces what surrounds it; brackets inside of it multiply it
    "((x:1.3))": [("x", 1.3)],
    "((x):1.3)": [("x", 1.3 * 1.1)],
    "(a (b:2) c:0.5)": [("a ", 0.5), ("b", 2.0), (" c", 0.5)],
    "(a (b) c:0.5)": [("a ", 0.5), ("b", 0.5 * 1.1), (" c", 0.5)],
    # no number: a word
    "(x:y)": [("x:y", 1.1)],
    "(x:)": [("x:", 1.1)],
    "(:1.3)": [(":1.3", 1.1)],
    "(a:b:1.2)": [("a:b", 1.2)],
    "(x:nan)(y:inf)": [("x:nan", 1.1), ("y:inf", 1.1)],
    "x:1.3": [("x:1.3", 1.0)],
    # escapes and other brackets
    r"\(x\)": [("(x)", 1.0)],
    r"(a \(b\):1.2)": [("a (b)", 1.2)],
    r"(a\)": [("(a)", 1.0)],
    r"a\b": [(r"a\b", 1.0)],
    "[x] {y}": [("[x] {y}", 1.0)],
    "()": [],
    # brackets that do not pair up
    "(x": [("(x", 1.0)],
    "a (b c": [("a ", 1.0), ("(b c", 1.0)],
    "x)": [("x)", 1.0)],
    "((x)": [("(x", 1.1)],
    "((x) (y)": [("x", 1.1 * 1.1), (" ", 1.1), ("(y", 1.1)],
    "x) (y)": [("x) (y)", 1.0)],
    "x) (y) (z)": [("x) (y) (z)", 1.0)],
    "x) (y (z))": [("x) (y ", 1.0), ("z", 1.1), (")", 1.0)],
}


@pytest.mark.parametrize("text", WEIGHTS)
def test_parse_weights(text):
    assert parse_weights(text) == WEIGHTS[text]


@pytest.mark.parametrize(
    "text",
    ["(" * 10_000 + ")" * 10_000, "(" * 20_000, ")" * 20_000, "(" * 19_999 + ")", "(" * 6000 + "x:" + "1" * 8000 + ")" * 6000],
    ids=["nested", "opened", "closed", "closed once", "digits"],
)
def test_any_nesting_is_parsed_quickly(text):
    begin = time.perf_counter()
    parse_weights(text)
    assert time.perf_counter() - begin < 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a (big:1e308) cat", "1e+308 of 'big'"), ("(x:1e999)", "inf of 'x'"), ("(a:-1001)", "1001 of 'a'"),
        ("(" * 99 + "deep" + ")" * 99, "of 'deep'"),
    ],
)  # fmt: skip
def test_a_weight_that_leaves_nothing_to_compute_with_is_named(text, shown):
    with pytest.raises(InputError, match="is too large to compute with") as caught:
        check_weights(text)
    assert shown in caught.value.message


@pytest.mark.parametrize("text", ["", "a cat", "(a:1000) (b:-3)", "(a:inf)"])
def test_other_weights_are_let_through(text):
    check_weights(text)
