"""Pages as HTML: the Jinja2 environment, the guideline's Markdown, and what every page knows."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from hfi.feedback.guideline import Guideline
from hfi.feedback.queue import Preferences
from hfi.feedback.web.guard import asker, keep_cookie
from hfi.feedback.web.state import State

FOLDER = Path(__file__).parent
KEYS = {  # action -> key; every one can be changed in the settings, Esc and ? and the digits cannot
    "present": "f",
    "absent": "j",
    "unsure": "u",
    "skip": "s",
    "undo": "z",
    "back": "ArrowLeft",
    "forward": "ArrowRight",
    "look": " ",
    "guide": "g",
    "exclude": "x",
    "takeback": "Backspace",
    "save": "Enter",
}
ACTIONS = {
    "present": "it is there",
    "absent": "it is not there",
    "unsure": "cannot tell",
    "skip": "skip, without an answer",
    "undo": "take the last answer back",
    "back": "back to the picture before",
    "forward": "forward again",
    "look": "hold: open blurred pictures",
    "guide": "show or hide the guideline",
    "exclude": "ranking: exclude a picture (then its number)",
    "takeback": "ranking: take the last place back",
    "save": "ranking: save the order",
}
SHOWN_KEYS = {" ": "Space", "ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓", "Backspace": "⌫", "Enter": "Enter"}

environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
)
environment.filters["key"] = lambda key: SHOWN_KEYS.get(key, key)
environment.filters["thousands"] = lambda number: f"{number:,}"
environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.0f} %"
environment.filters["data"] = lambda value: json.dumps(value, separators=(",", ":"))
environment.filters["when"] = lambda time: str(time)[:16].replace("T", " ")


def render(request: Request, template: str, status: int = 200, **values: object) -> HTMLResponse:
    """A whole page; knows the study, who is asking and what they chose."""
    state: State = request.app.state.hfi
    person = asker(request)
    chosen = state.queue.preferences(person.pseudonym) if person else Preferences()
    known = {
        "study": state.study.config.name,
        "concept": state.study.config.concept.name,
        "person": person,
        "csrf": state.csrf(request.state.token),
        "chosen": chosen,
        "keys": keys_of(chosen),
        "key_words": ACTIONS,
        "accounts": state.accounts.exist(),
        "here": request.url.path,
        "now": f"{time.time():.3f}",
        "client": {
            "who": person.pseudonym if person else "",
            "study": state.id,
            "csrf": state.csrf(request.state.token),
            "keys": keys_of(chosen),
            "toggle": toggles(chosen),
        },
    }
    response = HTMLResponse(environment.get_template(template).render(known | values), status)
    keep_cookie(request, response)
    return response


def keys_of(chosen: Preferences) -> dict[str, str]:
    """{action: key} of a person."""
    return KEYS | {action: key for action, key in chosen.keys if action in KEYS}


def toggles(chosen: Preferences) -> bool:
    """Whether a picture opens at one press instead of being held (for hands that cannot hold)."""
    return dict(chosen.keys).get("hold") == "toggle"


@lru_cache(16)
def guideline_html(guideline: Guideline) -> Markup:
    """The guideline's Markdown as HTML: no raw HTML, no pictures but its own."""
    files = {picture.file.name: picture for picture in (*guideline.examples, *guideline.counter_examples, *guideline.references)}

    def image(self, tokens, index, options, env) -> str:
        source, words = Path(tokens[index].attrGet("src") or "").name, escape(tokens[index].content)
        if source not in files:
            return f"[{words}]"
        return (
            f'<button type="button" class="pic inline" aria-label="{words}"><img src="/guideline/picture/{files[source].id}" '
            f'alt="{words}" loading="lazy"></button>'
        )

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("image", image)
    return Markup(markdown.render(guideline.text))


def seconds_since(shown: float) -> float | None:
    """Time taken, by the moment that a form carries (seconds since 1970); None where that makes no sense."""
    seconds = time.time() - shown
    return seconds if 0 < seconds < 3600 else None


def question(state: State) -> str:
    """What is asked of one picture, in the annotators' words."""
    words, concept = state.study.config.label.guideline, state.study.config.concept
    if words != type(state.study.config.label).model_fields["guideline"].default:
        return words
    return f"Is this in the style of “{concept.name}”?" if concept.kind == "style" else f"Does this picture show “{concept.name}”?"


def ranking_question(state: State) -> str:
    """What is asked of several pictures."""
    concept = state.study.config.concept
    return (
        f"Which looks most like the style of “{concept.name}”?"
        if concept.kind == "style"
        else f"Which shows “{concept.name}” most strongly?"
    )
