"""What the form does: it begins, is filled from outside, says what a film will cost, and asks for it."""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from api import films
from api.asking import make_film
from api.job_context import JobApi
from api.job_models import FilmRequest
from api.opening import estimated
from api.users import User
from errors import StillmotionError
from ui.form import SOURCES, FormState, in_language, title_of
from ui.sentences import error_text, sentence
from ui.words import duration, known, say
from workflows.opening import open_workflow
from workflows.templates import Template, all_templates, find_template

_VERBS = {"text_to_still": "form.make_still", "stills_to_choose": "form.make_stills"}
OWN = ""  # instead of a template's id: the form is drawn from a workflow that was opened


@dataclass(frozen=True)
class Creator:
    api: JobApi

    def begin(self, language: str, draft: str, folds: str) -> FormState:
        """How the page opens: in the person's language, with what was being written when it was left."""
        return self._with_draft(FormState(language=known(language), folds=names_in(folds)), draft)

    def command(self, state: FormState | None, event: gr.EventData) -> tuple[FormState, str | None]:
        """What the rest of the page asks of the form; `draft` is what was typed until now."""
        data = event.data
        state = replace(self._with_draft(state or FormState(), event.draft), folds=names_in(event.folds))
        match event.name:
            case "language":
                return replace(state, language=known(data["language"])), None
            case "use":
                return replace(state, template=data["template"], values=data["values"], opened=None), None
            case "put":
                return replace(state, template=data["template"], values={**state.values, **data["values"]}, opened=None), None
            case "reset":
                return replace(state, values={}), None
            case "opened":
                return self._opened(state, json.loads(data["document"]))
            case _:
                return state, None

    def choices(self, state: FormState) -> list[tuple[str, str]]:
        own = [(say(state.language, "form.own"), OWN)] if state.opened else []
        return own + [(title_of({"title": one.title}, state.language), one.id) for one in all_templates(self.api.data_dir).values()]

    def document(self, state: FormState, user: User) -> Mapping[str, Any]:
        """The form as the job API tells it, its help in the person's language."""
        return films.document(self._template(state, user), self.api.catalog, self.api.folders(user), state.language)

    def choose(self, template: str, state: FormState, typed: Mapping[str, Any], folds: str) -> FormState:
        """Another template; what both have stays."""
        return replace(state, template=template, values={**state.values, **typed}, folds=names_in(folds))

    def verb(self, state: FormState) -> str:
        return _VERBS.get(state.template, "form.make")

    def missing_lines(self, state: FormState) -> str:
        """What an opened workflow needs that is not here, and what was changed in it, as HTML."""
        if state.template != OWN or not state.opened:
            return ""
        language = state.language
        lines = [lack_text(one, language) for one in state.opened["missing"]]
        parts = [f"<p>{html.escape(say(language, 'open.foreign'))}</p>"]
        parts += [f'<p class="sm-bad">{html.escape(say(language, "open.missing"))}</p>'] if lines else []
        parts += [f"<ul>{_items(lines)}</ul>"] if lines else []
        notes = [sentence(one, language) for one in state.opened["notes"]]
        parts += [f"<ul>{_items(notes)}</ul>"] if notes else []
        return f'<div class="sm-opened">{"".join(parts)}</div>'

    def estimate_line(self, state: FormState, user: User, values: Mapping[str, Any]) -> str:
        """One line, as HTML: seconds, length, size, memory; or why it cannot be made."""
        lacks, text = self._lacks(state, user, values)
        if lacks in SOURCES:
            return html.escape(text)
        try:
            found = estimated(self.api, self._request(state, {name: value for name, value in values.items() if name != lacks}), user)
        except StillmotionError as error:
            if state.template == OWN and state.opened and state.opened["missing"] and isinstance(error, films.BadFields):
                return html.escape(say(state.language, "form.lacks"))  # it stands above already
            return f'<span class="sm-bad">{html.escape(say(state.language, "form.cannot", reason=self._error(state, user, error)))}</span>'
        parts = list(cost_parts(found, state.language))
        warnings = "".join(f"<br>{html.escape(sentence(line, state.language))}" for line in found["warnings"])
        return html.escape(" · ".join(parts)) + warnings

    def submit(self, state: FormState, user: User, values: Mapping[str, Any]) -> str:
        lacks, text = self._lacks(state, user, values)
        if lacks:
            return message("lacks", field=lacks, text=text)
        try:
            job = make_film(self.api, self._request(state, values), user)
        except StillmotionError as error:
            fields = {name: sentence(text, state.language) for name, text in getattr(error, "fields", {}).items()}
            return message("failed", text=self._error(state, user, error), fields=fields)
        return message("submitted", jobs=[job.id])

    def _error(self, state: FormState, user: User, error: StillmotionError) -> str:
        """In the person's language, with the names of the form."""
        titles = {one.name: title_of({"title": one.title}, state.language) for one in self._template(state, user).fields().values()}
        return error_text(error, state.language, titles)

    def _lacks(self, state: FormState, user: User, values: Mapping[str, Any]) -> tuple[str, str]:
        """The first field that has to be given and is not, and what to say there; "" if there is none."""
        for one in self._template(state, user).fields().values():
            if one.required and not str(values.get(one.name) or "").strip():
                return one.name, in_language(one.required, state.language)
        return "", ""

    def _request(self, state: FormState, values: Mapping[str, Any]) -> FilmRequest:
        form = {"workflow": state.opened["workflow"]} if state.template == OWN and state.opened else {"template": state.template}
        return FilmRequest(**form, **values)

    def _opened(self, state: FormState, document: Mapping[str, Any]) -> tuple[FormState, str]:
        """`document`: what `/api/open` answered."""
        kept = {name: document[name] for name in ("workflow", "missing", "notes")}
        told = message("note", key="open.own" if document["template"] is None else "open.done")
        template = document["template"] or OWN
        return replace(state, template=template, values=document["values"], opened=kept if template == OWN else None), told

    def _template(self, state: FormState, user: User) -> Template:
        if state.template == OWN and state.opened:
            return open_workflow(state.opened["workflow"], self.api.catalog, self.api.folders(user)).template
        return all_templates(self.api.data_dir).get(state.template) or find_template("text_to_film")

    def _with_draft(self, state: FormState, draft: str) -> FormState:
        try:
            kept = json.loads(draft) if draft else {}
            template = kept["template"]
            values = {name: value for name, value in dict(kept["values"]).items() if value is not None}
            is_there = state.opened is not None if template == OWN else template in all_templates(self.api.data_dir)
        except (ValueError, KeyError, TypeError):
            return state
        return replace(state, template=template, values=values) if is_there else state


def names_in(text: str) -> tuple[str, ...]:
    """A list of names in JSON, as browsers keep it; of anything else none."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return ()
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, list) else ()


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{html.escape(line)}</li>" for line in lines)


def cost_parts(found: Mapping[str, Any], language: str) -> list[str]:
    """What is known of an estimate, in words; what is not known is not said."""
    parts = [say(language, "estimate.unknown") if found["seconds"] is None else f"≈ {duration(found['seconds'], language)}"]
    if found["is_held"]:
        parts.append(say(language, "estimate.held"))
    if found["queue_seconds"]:
        parts.append(say(language, "estimate.wait", time=duration(found["queue_seconds"], language)))
    if found["film_seconds"]:
        parts.append(say(language, "estimate.film", frames=found["frames"], seconds=f"{found['film_seconds']:.1f}"))
    if found["bytes"]:
        parts.append(f"{max(0.1, found['bytes'] / 1e6):.1f} MB")
    if found["memory_bytes"]:
        parts.append(say(language, "estimate.memory", gib=f"{found['memory_bytes'] / 2**30:.1f}"))
    return parts


def lack_text(lack: Mapping[str, str], language: str) -> str:
    """What is missing, where it belongs, and the nearest that is there."""
    if lack["kind"] not in ("node", "model", "picture") or not lack["name"]:
        return sentence(lack["text"], language)
    text = say(language, f"missing.{lack['kind']}", name=lack["name"], folder=lack["folder"])
    return text + (say(language, "missing.nearest", name=lack["nearest"]) if lack["nearest"] else "")


def message(kind: str, **data: Any) -> str:
    """To the browser; each is another text, so that the same one twice is heard twice."""
    return json.dumps({"kind": kind, "number": secrets.token_hex(8)} | data)
