"""Values that are written in a workflow: converted to what the input takes, and held against its bounds."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from typing import Any

from errors import InputError
from pipelines.parameters import Choice, LoraNames, Number, Text
from workflows.declare import FileChoice, Input
from workflows.folders import Folders
from workflows.object_info import input_config

MAX_OPTIONS_SAID = 20
_FALSE, _TRUE = ("false", "no", "off", "0", ""), ("true", "yes", "on", "1")

Problem = dict[str, Any]


def error_entry(type_: str, message: str, details: str, **extra: Any) -> Problem:
    """One of a node's errors, as ComfyUI tells it."""
    return {"type": type_, "message": message, "details": details, "extra_info": extra}


def said(declared: Input, folders: Folders) -> dict[str, Any]:
    """What an error tells of the input itself."""
    return {"input_name": declared.name, "input_config": input_config(declared, folders)}


def literal(declared: Input, value: Any, folders: Folders) -> tuple[Any, list[Problem]]:
    """The value as the input takes it, and what is wrong with it."""
    try:
        converted = convert(declared, value)
    except (TypeError, ValueError, OverflowError) as error:
        message, details = f"Failed to convert an input value to a {declared.type} value", f"{declared.name}, {value}, {error}"
        extra = {"received_value": value, "exception_message": str(error)}
        return None, [error_entry("invalid_input_type", message, details, **said(declared, folders), **extra)]
    return converted, list(_out_of_bounds(declared, converted, folders))


def convert(declared: Input, value: Any) -> Any:
    """As Python converts it: "2" is 2, 2.9 is 2. But "false" is false. Raises TypeError, ValueError or OverflowError."""
    match declared.type:
        case "INT":
            if isinstance(value, str) and len(value) > 100:
                raise ValueError("a number of more than 100 digits")
            return int(value)
        case "FLOAT":
            number = float(value)
            if not math.isfinite(number):
                raise ValueError("the number is not finite")
            return number
        case "BOOLEAN":
            return truth(value)
        case _:
            if not isinstance(value, (str, int, float)):
                raise TypeError(f"a text is wanted, not {type(value).__name__}")
            return str(value)


def truth(value: Any) -> bool:
    """Raises TypeError, ValueError."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word not in _TRUE + _FALSE:
            raise ValueError("a switch is true or false")
        return word in _TRUE
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"a switch is true or false, not {type(value).__name__}")
    return bool(value)


def _out_of_bounds(declared: Input, value: Any, folders: Folders) -> Iterator[Problem]:
    declaration = declared.declaration
    extra = {**said(declared, folders), "received_value": value}
    if isinstance(declaration, Number):
        low, high = (float(bound) if declared.type == "FLOAT" else int(bound) for bound in (declaration.low, declaration.high))
        if value < low:
            yield error_entry("value_smaller_than_min", f"Value {value} smaller than min of {low}", declared.name, **extra)
        if value > high:
            yield error_entry("value_bigger_than_max", f"Value {value} bigger than max of {high}", declared.name, **extra)
    elif isinstance(declaration, FileChoice) and declaration.folder == "input":
        yield from _no_picture(declared, value, folders)
    elif isinstance(declaration, (Choice, FileChoice)):
        names = declaration.names if isinstance(declaration, Choice) else folders.names(declaration.folder)
        if value not in names:
            yield _not_in_list(declared, value, list(names), extra)
    elif isinstance(declaration, (Text, LoraNames)):
        try:
            declaration.check(declared.name, value, str)
        except InputError as error:
            yield error_entry("invalid_input_type", error.message, declared.name, **extra)


def _no_picture(declared: Input, value: str, folders: Folders) -> Iterator[Problem]:
    try:
        folders.picture(value)
    except InputError as error:
        details = f"{declared.name} - {error}"
        yield error_entry("custom_validation_failed", "Custom validation failed for node", details, input_name=declared.name)


def _not_in_list(declared: Input, value: str, names: list[str], extra: dict[str, Any]) -> Problem:
    is_long = len(names) > MAX_OPTIONS_SAID
    near = difflib.get_close_matches(value, names, 1)
    nearest = f". Did you mean {near[0]!r}?" if near else ""
    details = f"{declared.name}: {value!r} not in {f'(list of length {len(names)})' if is_long else names}{nearest}"
    return error_entry("value_not_in_list", "Value not in list", details, **extra | ({"input_config": None} if is_long else {}))
