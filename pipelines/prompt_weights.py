"""Weights in a prompt, "(word:1.3)", with the meaning that ComfyUI 0.3.64 gives to them. No torch here: they are checked before work
starts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from errors import InputError

EMPHASIS = 1.1  # what a pair of brackets without a number multiplies by
MAX_WEIGHT = 1000  # vectors that are moved further leave no number to compute with

_BRACKET = re.compile(r"\\[()]|[()]")
_ESCAPED = re.compile(r"\\([()])")
_NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*")


@dataclass(frozen=True, slots=True)
class _Group:
    """An open bracket: its text ends at `stop`, before the number if there is one; `close` is its closing bracket."""

    stop: int
    close: int
    weight: float


def parse_weights(text: str) -> list[tuple[str, float]]:
    r"""Splits a prompt where its weight changes: "a (big) cat" -> [("a ", 1.0), ("big", 1.1), (" cat", 1.0)].

    "(x)" multiplies by 1.1 and nests, "(x:1.3)" sets 1.3 whatever surrounds it, "\(" and "\)" are plain brackets, "[x]" means
    nothing. Brackets that do not pair up never fail; as in ComfyUI,
    - one that is never closed is plain text to the end, unless the text ends with a bracket: then that one closes it;
    - one that closes nothing is plain text, and so is the next bracket that opens.
    Unlike ComfyUI, "nan" and "inf" are words and not numbers.
    """
    brackets = [match.start() for match in _BRACKET.finditer(text) if match[0] in "()"]
    closings = {position for position in brackets if text[position] == ")"}
    partner = _pair(text, brackets)
    pieces: list[tuple[str, float]] = []
    groups: list[_Group] = []  # innermost last
    surplus = 0  # closing brackets outside of any group that closed nothing
    start = 0  # of the text not yet in `pieces`

    def take(stop: int, weight: float) -> None:
        if stop > start:
            pieces.append((_ESCAPED.sub(r"\1", text[start:stop]), weight))

    for position in brackets:
        if position < start:
            continue
        weight = groups[-1].weight if groups else 1.0
        stop = groups[-1].stop if groups else len(text)
        if text[position] == ")":
            if not groups:
                surplus += 1
            elif position == groups[-1].close:
                take(stop, weight)
                start = position + 1
                groups.pop()
        elif surplus and not groups:
            surplus -= 1
        else:
            take(position, weight)
            start = position
            close = partner.get(position, stop)
            if close >= stop:
                close = stop - 1
            if close in closings:
                start = position + 1
                groups.append(_open(text, start, close, weight))
            else:  # never closed: plain text up to the end of what surrounds it
                take(stop, weight)
                start = stop
    take(len(text), 1.0)
    return pieces


def _pair(text: str, brackets: list[int]) -> dict[int, int]:
    """Opening bracket -> its closing one."""
    opened, partner = [], {}
    for position in brackets:
        if text[position] == "(":
            opened.append(position)
        elif opened:
            partner[opened.pop()] = position
    return partner


def _open(text: str, start: int, close: int, weight: float) -> _Group:
    """The group whose text begins at `start`. A colon that comes first introduces no number, and no number is 40 characters long:
    without that limit, thousands of nested brackets would each read the same digits again."""
    colon = text.rfind(":", start + 1, close)
    number = _NUMBER.fullmatch(text, colon + 1, close) if colon > 0 and close - colon <= 40 else None
    if number:
        return _Group(stop=colon, close=close, weight=float(number[0]))
    return _Group(stop=close, close=close, weight=weight * EMPHASIS)


def check_weights(text: str) -> None:
    """Raises InputError for one that nobody can compute with."""
    weight, piece = max(((abs(weight), piece.strip()) for piece, weight in parse_weights(text)), default=(0.0, ""))
    if weight > MAX_WEIGHT:
        raise InputError(f"The weight {weight:g} of {piece[:40]!r} is too large to compute with.", "Use 0 to 2.")
