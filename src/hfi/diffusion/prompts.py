"""What can be named: a vocabulary of objects and styles, and the prompts that feedback and preservation use.

The prompts that score an erased model live in evaluation/prompt_sets.py and use other wordings than these.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfi.config import Concept
from hfi.errors import HFIError
from hfi.seeds import numpy_generator

FEEDBACK_TEMPLATES = ("a {o} in the style of {s}", "{o} in the style of {s}", "{o}", "a picture of a {o}")
WORD_TEMPLATES = ("{o} in the style of {s}", "a {o} in the style of {s}", "{o}")
TAG_TEMPLATES = ("{o}", "{o} in the style of {s}")
OWN_WORDS = 'for another write a file that has it, {"styles": ["jane doe"], "objects": [{"name": "cat"}]}, and set concept.vocabulary to it'
OWN_PROMPTS = 64  # of a file of prompts, so many say what is near to the concept
PLAIN_TEMPLATES = ("{o}", "a {o}", "a picture of a {o}")  # for a vocabulary without styles


@dataclass(frozen=True)
class Entry:
    """One object that the model can draw by name."""

    name: str
    group: str = ""
    tags: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()  # keywords that do not give the name away; implicit prompts prefer them to tags


@dataclass(frozen=True)
class Vocabulary:
    """The objects and styles that prompts and judges know, and the concepts defined over them."""

    objects: dict[str, Entry]
    styles: tuple[str, ...]
    concepts: dict[str, dict]


@dataclass(frozen=True)
class Prompt:
    """A prompt and what it asks for, as far as that is known."""

    text: str
    object: str | None = None
    style: str | None = None
    purpose: str = "concept"  # concept or benign
    without: str = ""  # the same prompt with the concept's words dropped, as far as something remains


def load_vocabulary(source: str) -> Vocabulary:
    """Read 'emoji' or a JSON file in the layout of hfi/emoji/catalogue.json; raises HFIError when it is not one."""
    if source == "emoji":
        from hfi import emoji

        raw = emoji.catalogue()
    else:
        raw = _json(Path(source), "concept.vocabulary")
    try:
        objects = {item["name"]: _entry(item) for item in raw["objects"]}
        return Vocabulary(objects, tuple(raw.get("styles", ())), dict(raw.get("concepts", {})))
    except (KeyError, TypeError):
        raise HFIError(
            "lacks 'objects' with a 'name' each", file=source, field="concept.vocabulary", remedy="see docs/formats.md"
        ) from None


def load_translations(vocabulary: Vocabulary, source: str, file: Path | None) -> dict[str, dict[str, str]]:
    """{language: {object: its name there}} for objects of the vocabulary; 'emoji' (`source`) has its own where no file is given.

    Raises HFIError for a file that is not such a mapping.
    """
    if file is None:
        from hfi import emoji

        return emoji.translations() if source == "emoji" else {}
    found = _json(file, "measure.translations")
    if not isinstance(found, dict) or not all(
        language.isidentifier() and isinstance(words, dict) and all(isinstance(word, str) and word.strip() for word in words.values())
        for language, words in found.items()
    ):
        raise HFIError(
            "is not {language: {object: its name there}}",
            file=file,
            field="measure.translations",
            remedy='write {"de": {"cat": "Katze"}}',
        )
    known = {language: {name: word for name, word in words.items() if name in vocabulary.objects} for language, words in found.items()}
    if not any(known.values()):
        raise HFIError("names no object of the vocabulary", file=file, field="measure.translations", remedy="use the objects' exact names")
    return known


def _json(file: Path, field: str):
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HFIError("no such file", file=file, field=field, remedy="give a JSON file: docs/formats.md") from None
    except (OSError, ValueError):
        raise HFIError("not readable as JSON", file=file, field=field, remedy="see docs/formats.md") from None


def _entry(item: dict) -> Entry:
    tags, words = tuple(item.get("tags", ())), set(item["name"].split())
    hints = item.get("hints", [tag for tag in tags if not words & set(tag.split())])
    return Entry(item["name"], item.get("group", ""), tags, tuple(item.get("styles", ())), tuple(hints))


def members(concept: Concept, vocabulary: Vocabulary) -> tuple[str, ...]:
    """The objects that count as a harm, or the one style; raises HFIError for an unknown concept or name."""
    if concept.kind == "style":
        if concept.name not in vocabulary.styles:
            raise HFIError(
                f"unknown style {concept.name!r}",
                file="study.yaml",
                field="concept.name",
                remedy=f"the vocabulary has {', '.join(vocabulary.styles) or 'no styles'}; {OWN_WORDS}",
            )
        return (concept.name,)
    names = concept.members or tuple(vocabulary.concepts.get(concept.name, {}).get("members", ()))
    if not names:
        raise HFIError(
            f"unknown concept {concept.name!r}",
            file="study.yaml",
            field="concept.members",
            remedy=f"list its members; the vocabulary knows {', '.join(vocabulary.concepts) or 'no concepts of its own'}; {OWN_WORDS}",
        )
    for name in (*names, *concept.unlisted):
        if name not in vocabulary.objects:
            raise HFIError(
                f"{name!r} is not an object of the vocabulary",
                file="study.yaml",
                field="concept.members",
                remedy=f"use the object's exact name; {OWN_WORDS}",
            )
    return names


def concept_words(concept: Concept, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Words for the concept itself: the study's, else the vocabulary's, else its name."""
    return concept.words or tuple(vocabulary.concepts.get(concept.name, {}).get("words", ())) or (concept.name,)


def preserved_objects(concept: Concept, vocabulary: Vocabulary) -> list[str]:
    """The half of the non-members that benign prompts may name; the other half tests what was never protected.

    The split depends on the object's name alone, so it is the same in every study.
    """
    from hfi.seeds import derive

    inside = set(members(concept, vocabulary)) if concept.kind == "harm" else set()
    return [name for name in vocabulary.objects if name not in inside and derive(0, "preserved", name) % 2 == 0]


def asked_for(concept: Concept, vocabulary: Vocabulary) -> list[str]:
    """What the feedback prompts of a harm name: its listed members and its words, or the first prompts of its own file."""
    if concept.prompts is not None:
        return list(dict.fromkeys(_prompt_lines(concept.prompts)))[:OWN_PROMPTS]
    return [*(name for name in members(concept, vocabulary) if name not in concept.unlisted), *concept_words(concept, vocabulary)]


def feedback_prompts(
    concept: Concept, vocabulary: Vocabulary, count: int, benign_share: float, seed: int, near: Sequence[str] = ()
) -> list[Prompt]:
    """Prompts for the pictures that people judge: `count` in all, `benign_share` of them without the concept.

    A harm is asked for by its words, its listed members and their keyword tags; no unlisted member is ever named.
    A style is asked for on every object.

    Args:
        near: objects that benign prompts name beside the preserved half.
    """
    rng = numpy_generator(seed, "feedback prompts")
    benign = round(count * benign_share)
    if concept.prompts is not None:
        lines = _prompt_lines(concept.prompts)
        concept_prompts = [Prompt(lines[i % len(lines)]) for i in range(count - benign)]
    elif concept.kind == "style":
        members(concept, vocabulary)
        names = list(vocabulary.objects)
        order = [names[i] for i in rng.permutation(len(names))]
        forms = ("a {o} in the style of {s}", "{o} in the style of {s}")
        concept_prompts = []
        for i in range(count - benign):
            name, form = order[i % len(order)], str(rng.choice(forms))
            plain = form.removesuffix(" in the style of {s}").format(o=name)
            concept_prompts.append(Prompt(form.format(o=name, s=concept.name), name, concept.name, without=plain))
    else:
        concept_prompts = _harm_prompts(concept, vocabulary, count - benign, rng)
    return concept_prompts + benign_prompts(concept, vocabulary, benign, seed, near)


def _harm_prompts(concept: Concept, vocabulary: Vocabulary, count: int, rng) -> list[Prompt]:
    listed = [name for name in members(concept, vocabulary) if name not in concept.unlisted]
    hidden = {word for name in concept.unlisted for word in name.split()}
    words = concept_words(concept, vocabulary)
    forms = FEEDBACK_TEMPLATES if vocabulary.styles else PLAIN_TEMPLATES
    prompts = []
    for i in range(count):
        style = str(rng.choice(vocabulary.styles)) if vocabulary.styles else None
        kind, name = i % 3, listed[(i // 3) % len(listed)]
        tags = [tag for tag in vocabulary.objects[name].hints if not hidden & set(tag.split())]
        if kind == 0:
            template, subject, name = str(rng.choice(WORD_TEMPLATES if style else PLAIN_TEMPLATES)), str(rng.choice(words)), None
        elif kind == 1 and len(tags) >= 2:
            template, subject = str(rng.choice(TAG_TEMPLATES if style else ("{o}",))), ", ".join(rng.permutation(tags)[:3])
        else:
            template, subject = str(rng.choice(forms)), name
        styled = "{s}" in template
        rest = f"in the style of {style}" if styled else ""
        prompts.append(Prompt(template.format(o=subject, s=style), name, style if styled else None, without=rest))
    return prompts


def benign_prompts(concept: Concept, vocabulary: Vocabulary, count: int, seed: int, near: Sequence[str] = ()) -> list[Prompt]:
    """Prompts that do not ask for the concept, over the preserved half of the objects, those of `near`, and every other style."""
    rng = numpy_generator(seed, "benign prompts", "benign")
    names = list(dict.fromkeys([*preserved_objects(concept, vocabulary), *near]))
    if not names:
        return [Prompt("", purpose="benign")] * count
    styles = [style for style in vocabulary.styles if not (concept.kind == "style" and style == concept.name)]
    order = [names[i] for i in rng.permutation(len(names))]
    prompts = []
    for i in range(count):
        name, style = order[i % len(order)], str(rng.choice(styles)) if styles else None
        template = str(rng.choice(FEEDBACK_TEMPLATES if style else PLAIN_TEMPLATES))
        prompts.append(Prompt(template.format(o=name, s=style), name, style if "{s}" in template else None, "benign"))
    return prompts


def _prompt_lines(path: Path) -> Sequence[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise HFIError(
            "cannot be read as text", file=path, field="concept.prompts", remedy="give a text file, one prompt per line"
        ) from None
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise HFIError("holds no prompt", file=path, field="concept.prompts", remedy="write one prompt per line")
    return lines
