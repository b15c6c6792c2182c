"""What the form does: it begins, is filled from outside, says what a film will cost, and asks for it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from api import films
from api.film_jobs import make_film
from api.job_context import JobApi
from api.job_models import FilmRequest
from api.users import User
from errors import StillmotionError
from ui.form import PACES, FormState, title_of
from ui.words import known
from workflows.templates import all_templates, find_template


@dataclass(frozen=True)
class Creator:
    api: JobApi

    def begin(self, language: str, draft: str) -> FormState:
        """How the page opens: in the person's language, with what was being written when it was left."""
        return self._with_draft(FormState(language=known(language)), draft)

    def command(self, state: FormState | None, event: gr.EventData) -> tuple[FormState, str | None]:
        """What the rest of the page asks of the form; `draft` is what was typed until now."""
        data = event.data
        state = self._with_draft(state or FormState(), event.draft)
        match event.name:
            case "language":
                return replace(state, language=known(data["language"])), None
            case "use":
                return replace(state, template=data["template"], values=data["values"], opened=None), None
            case "put":
                return replace(state, template=data["template"], values={**state.values, **data["values"]}, opened=None), None
            case _:
                return state, None

    def _with_draft(self, state: FormState, draft: str) -> FormState:
        try:
            kept = json.loads(draft) if draft else {}
            template, values = kept["template"], dict(kept["values"])
        except (ValueError, KeyError, TypeError):
            return state
        return replace(state, template=template, values=values) if template in self._templates() else state

    def choices(self, state: FormState) -> list[tuple[str, str]]:
        return [(title_of({"title": one.title}, state.language), one.id) for one in self._templates().values()]

    def document(self, state: FormState, user: User) -> Mapping[str, Any]:
        """The template as the job API tells it, its help in the person's language."""
        template = self._templates().get(state.template) or find_template("text_to_film")
        return films.document(template, self.api.catalog, self.api.folders(user), state.language)

    def choose(self, template: str, state: FormState, typed: Mapping[str, Any]) -> FormState:
        """Another template; what both have stays."""
        return replace(state, template=template, values={**state.values, **typed}, opened=None)

    def pace(self, bucket: Any) -> Any:
        """The word for a number, if it has one."""
        return bucket if bucket in dict(PACES).values() else None

    def verb(self, state: FormState) -> str:
        return {"text_to_still": "form.make_still", "stills_to_choose": "form.make_stills"}.get(state.template, "form.make")

    def estimate_line(self, document: Mapping[str, Any], state: FormState, user: User, values: Mapping[str, Any]) -> str:
        return ""

    def submit(self, document: Mapping[str, Any], state: FormState, user: User, values: Mapping[str, Any]) -> str:
        try:
            job = make_film(self.api, FilmRequest(template=state.template, **values), user)
        except StillmotionError as error:
            return message("failed", code=error.code, message=error.message, hint=error.hint)
        return message("submitted", jobs=[job.id])

    def _templates(self) -> Mapping[str, Any]:
        return all_templates(self.api.data_dir)


def message(kind: str, **data: Any) -> str:
    """To the browser; each is another text, so that the same one twice is heard twice."""
    return json.dumps({"kind": kind, "number": secrets.token_hex(8)} | data)
