"""The form: drawn from a template's declaration, in the language of the person. There is no second list of fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ui.words import say

PACES = (("gentle", 40), ("lively", 90), ("wild", 200))  # motion bucket ids
SIZES = ((192, 192), (256, 192), (192, 256), (256, 256), (512, 512), (768, 512), (512, 768), (1024, 576), (576, 1024), (1024, 1024))
MOST_EXACT = 2**53  # browsers round what is beyond
WHOLE = re.compile(r"-?[0-9]{1,30}")
SOURCES = ("image", "film")  # what a person brings; the template names one only as an example
_TALL = ("prompt", "negative_prompt", "text")


@dataclass(frozen=True, eq=False)
class FormState:
    """What the form shows; each new one is drawn. `values` are those that were typed or filled in so far, by field name, `folds` the
    groups that are unfolded: Gradio keeps nothing of a form that it draws again."""

    template: str = "text_to_film"
    values: Mapping[str, Any] = field(default_factory=dict)
    language: str = "en"
    opened: Mapping[str, Any] | None = None
    folds: tuple[str, ...] = ()


@dataclass
class Drawn:
    """The components by field name; `paces`: motion in words, beside its number; `size`: usual sizes, beside width and height."""

    fields: dict[str, gr.components.Component] = field(default_factory=dict)
    paces: gr.Radio | None = None
    size: gr.Dropdown | None = None

    @property
    def at_once(self) -> list[gr.components.Component]:
        """What a change of them means is asked while it is made; of long texts when they are left."""
        return [one for one in self.fields.values() if one not in self.long_texts]

    @property
    def long_texts(self) -> list[gr.Textbox]:
        return [one for one in self.fields.values() if isinstance(one, gr.Textbox) and one.lines > 1]


def draw_fields(document: Mapping[str, Any], state: FormState, draw_examples: Callable[[gr.components.Component], None]) -> Drawn:
    """Main fields first, the others folded by group. `document` as the job API tells a template; `draw_examples` goes with the prompt."""
    drawn, groups = Drawn(), document["groups"]
    for one in [one for group in groups for one in group["fields"] if one["is_main"]]:
        if one["name"] == "motion_bucket_id":
            with gr.Row(elem_classes="sm-motion"):
                drawn.paces = draw_paces(one, state)
                drawn.fields[one["name"]] = draw_field(one, state)
        else:
            drawn.fields[one["name"]] = draw_field(one, state)
        if one["name"] == "prompt":
            draw_examples(drawn.fields["prompt"])
    for group in groups:
        if folded := [one for one in group["fields"] if not one["is_main"]]:
            name = f"sm-fold-{folded[0]['name']}"  # the same in every language
            with gr.Accordion(title_of(group, state.language), open=name in state.folds, elem_id=name, elem_classes="sm-fold"):
                draw_group(folded, state, drawn)
    return drawn


def draw_group(fields: Iterable[Mapping[str, Any]], state: FormState, drawn: Drawn) -> None:
    """Two in a row; long texts have a row of their own."""
    rows: list[list[Mapping[str, Any]]] = [[]]
    for one in fields:
        is_long = one["kind"] in ("text", "loras", "file")
        if is_long or len(rows[-1]) == 2:
            rows.append([])
        rows[-1].append(one)
        if is_long:
            rows.append([])
    for row in filter(None, rows):
        with gr.Row(equal_height=False):
            if row[0]["name"] == "width":
                drawn.size = draw_sizes(row, state)
            for one in row:
                drawn.fields[one["name"]] = draw_field(one, state)


def draw_field(one: Mapping[str, Any], state: FormState) -> gr.components.Component:
    """One component, with the value of the state or the template's."""
    name, value = one["name"], state.values.get(one["name"], None if one["follows"] else one["default"])
    is_open = one["kind"] == "integer" and (one["default"] is None or bool(one["follows"]))  # seeds are text: browsers round large numbers
    kind = "open" if is_open else one["kind"] if is_drawable(one["kind"], value) else "text"
    shared = {
        "label": label_of(one, state.language), "info": help_of(one),
        "elem_id": f"sm-field-{name}", "min_width": 140, "interactive": True,
    }  # fmt: skip
    match kind:
        case "open":
            empty = say(state.language, "form.same" if one["follows"] else "form.random")
            return gr.Textbox(text_of(value), placeholder=empty, max_lines=1, **shared)
        case "integer":
            return gr.Number(value, step=1, **shared)  # checked with all else: Gradio would round, or refuse without a word
        case "number":
            return gr.Number(value, step=0.1, **shared)
        case "switch":
            return gr.Checkbox(bool(value), **shared)
        case "choice":
            return gr.Dropdown(one["choices"], value=value, **shared)
        case "file":
            value = "" if one["name"] in SOURCES and value == one["default"] not in one["choices"] else text_of(value)
            choices = one["choices"] + ([value] if value and value not in one["choices"] else [])
            empty = [] if one["default"] and one["name"] not in SOURCES else [(say(state.language, "form.none"), "")]
            return gr.Dropdown([*empty, *choices], value=value, **shared)
        case _:
            lines = 3 if name.startswith(_TALL) else 1
            return gr.Textbox(text_of(value), lines=lines, max_lines=8 if lines > 1 else 1, **shared)


def is_drawable(kind: str, value: Any) -> bool:
    """Whether a component of this kind can show it. What an opened workflow holds may be anything, and is refused only when it is run."""
    if kind in ("integer", "number") and value is not None:
        return isinstance(value, int | float) and abs(value) < MOST_EXACT
    return True


def draw_paces(one: Mapping[str, Any], state: FormState) -> gr.Radio:
    """The motion bucket in words."""
    choices = [(say(state.language, f"pace.{name}"), bucket) for name, bucket in PACES]
    given = state.values.get(one["name"], one["default"])
    return gr.Radio(
        choices, value=given if given in dict(PACES).values() else None, label=say(state.language, "pace.label"),
        elem_id="sm-paces", elem_classes="sm-chips", interactive=True,
    )  # fmt: skip


def draw_sizes(sides: Iterable[Mapping[str, Any]], state: FormState) -> gr.Dropdown:
    """Usual sizes; the one that is set, if it is one of them."""
    names = size_names()
    now = " x ".join(str(state.values.get(one["name"], one["default"])) for one in sides)
    said = {"label": say(state.language, "form.size"), "info": say(state.language, "size.help")}
    return gr.Dropdown(names, value=now if now in names else None, **said, min_width=140, interactive=True, elem_id="sm-sizes")


def size_names() -> list[str]:
    return [f"{width} x {height}" for width, height in SIZES]


def title_of(thing: Mapping[str, Any], language: str) -> str:
    return in_language(thing["title"], language)


def in_language(texts: Mapping[str, str], language: str) -> str:
    """The nearest there is."""
    return texts.get(language) or texts.get("en") or next(iter(texts.values()), "")


def label_of(one: Mapping[str, Any], language: str) -> str:
    """The plain name, and beside it the one that experts know."""
    title, name = title_of(one, language), one["name"]
    is_same = title.lower().replace(" ", "_") == name or name in ("prompt", "image", "film", "count")
    return title if is_same else f"{title} · {name}"


def help_of(one: Mapping[str, Any]) -> str | None:
    """With the bounds, where they are near enough to say something."""
    low, high = one.get("min"), one.get("max")
    bounds = f" ({low:g}–{high:g})" if high is not None and high <= 16384 and one["default"] is not None else ""
    return f"{one['help']}{bounds}".strip() or None


def text_of(value: Any) -> str:
    return "" if value is None else str(value)


def given_values(document: Mapping[str, Any], names: Iterable[str], values: Iterable[Any], *, is_own: bool = False) -> dict[str, Any]:
    """What was typed, as the job API takes it: what is left open is left out, seeds are whole numbers again. In the form of an opened
    workflow an open seed is said, since left out it would be the workflow's."""
    declared = {one["name"]: one for group in document["groups"] for one in group["fields"]}
    found = {}
    for name, value in zip(names, values, strict=True):
        one = declared.get(name)
        if one is None or value is None:
            continue
        if one["kind"] == "integer" and isinstance(value, str):
            text = value.strip()
            value = int(text) if WHOLE.fullmatch(text) else text
        is_open = value == "" and not (one["default"] is None and is_own)
        if not is_open or (one["default"] and one["kind"] in ("text", "loras")):
            found[name] = value
    return found
