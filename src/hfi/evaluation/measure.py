"""From verdicts to numbers: which pictures belong to which prompt set, and what metrics.json says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hfi.config import Concept, Evaluate
from hfi.diffusion.prompts import members, preserved_objects
from hfi.evaluation import quality
from hfi.evaluation.concept_rate import is_concept, neither_rate, rate
from hfi.evaluation.drawing import Drawing, Verdict, distinct, drawings
from hfi.evaluation.prompt_sets import Probe
from hfi.evaluation.retention import by_group, is_right, retention
from hfi.generation.generate import Generated
from hfi.workspace import Workspace

CONCEPT_SETS = ("explicit", "implicit", "variations", "tokens")
NEITHER_SETS = ("explicit", "variations", "implicit")


@dataclass
class Pictures:
    """The probes of every set with their pictures, and the verdicts so far."""

    seed: int
    model_hash: str
    config: Evaluate
    sets: dict[str, list[Probe]] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Verdict]] = field(default_factory=lambda: {"before": {}, "after": {}, "reinversion": {}})

    def of(self, probe: Probe, set_name: str = "") -> list[Drawing]:
        """The pictures of one probe; the gallery needs one each."""
        return drawings(probe, self.seed, 1 if set_name == "gallery" else self.config.seeds_per_prompt, self.model_hash, self.config)

    def in_sets(self, names: Sequence[str]) -> list[Drawing]:
        """Every picture of these sets, each once."""
        return distinct(picture for name in names for probe in self.sets.get(name, ()) for picture in self.of(probe, name))

    def pairs(self, set_name: str) -> list[tuple[Probe, str, str]]:
        """(probe, picture, what names the prompt) of each picture of a set."""
        return [
            (probe, picture.name, probe.text)
            for probe in self.sets.get(set_name, ())
            for picture in self.of(probe, set_name)
        ]


def named_benign(images: Generated) -> list[str]:
    """Objects that the study's benign prompts name, which the preservation term keeps."""
    return [image.object for image in images.images if image.purpose == "benign" and image.object]


def measure(pictures: Pictures, study: Workspace, vocabulary, kept_words: Sequence[str] = (), named: Sequence[str] = ()) -> dict:
    """Concept rates, `neither`, floor and retention from the verdicts."""
    concept, config, seed = study.config.concept, study.config.evaluate, study.config.seed
    names, resamples = members(concept, vocabulary), config.bootstrap

    def share(side: str, rows: list[tuple[Probe, str, str]], what: str) -> dict:
        hits = [is_concept(pictures.verdicts[side][name], concept, names) for _, name, _ in rows]
        return rate(hits, [prompt for *_, prompt in rows], seed, f"{what} {side}", resamples)

    def change(rows: list[tuple[Probe, str, str]], what: str) -> dict:
        return {side: share(side, rows, what) for side in ("before", "after")}

    def kept(rows: list[tuple[Probe, str, str]], by: str, what: str) -> dict | None:
        if not rows:
            return None
        right = [[is_right(pictures.verdicts[side][name], probe, by) for probe, name, _ in rows] for side in ("before", "after")]
        return retention(*right, [prompt for *_, prompt in rows], seed, what, resamples)

    is_style = concept.kind == "style"
    rates: dict[str, object] = {name: change(pictures.pairs(name), name) if pictures.sets[name] else None for name in CONCEPT_SETS}
    unlisted = [row for row in pictures.pairs("explicit") if row[0].listed is False]
    rates["unlisted"] = change(unlisted, "unlisted") if unlisted else None
    rates["reinversion"] = _reinversion(pictures, share)
    asked = list({row[1]: row for name in NEITHER_SETS for row in pictures.pairs(name)}.values())
    neither = {
        side: neither_rate(
            [pictures.verdicts[side][name] for _, name, _ in asked], [prompt for *_, prompt in asked], seed, f"neither {side}", resamples
        )
        for side in ("before", "after")
    }
    floor = share("before", pictures.pairs("floor"), "floor") if is_style else None
    others, protected = pictures.pairs("other"), set(preserved_objects(concept, vocabulary))
    protected |= {name for name in vocabulary.objects if set(name.lower().split()) & set(kept_words)} | set(named)
    grouped = list({row[1]: row for name in ("other", "neighbours") for row in pictures.pairs(name)}.values())
    groups: dict[str, tuple[list, list, list]] = {}
    for probe, name, prompt in grouped:
        before, after, prompts = groups.setdefault(vocabulary.objects[probe.object].group or "all", ([], [], []))
        before.append(is_right(pictures.verdicts["before"][name], probe, "object"))
        after.append(is_right(pictures.verdicts["after"][name], probe, "object"))
        prompts.append(prompt)
    found, worst = by_group(groups, seed, resamples)
    return {
        "concept_rate": rates,
        "neither": {side: neither[side]["value"] for side in neither},
        "neither_intervals": neither,
        "floor": floor["value"] if floor else None,
        "floor_interval": floor,
        "retention": {
            "other": kept(others, "object", "other"),
            "neighbours": kept(pictures.pairs("neighbours"), "style" if is_style else "object", "neighbours"),
            "styles": kept([row for row in others if row[0].style], "style", "styles"),
            "object_in_style": kept(pictures.pairs("explicit"), "object", "object in style") if is_style else None,
            "other_unpreserved": kept([row for row in others if row[0].object not in protected], "object", "other unpreserved"),
        },
        "by_group": found,
        "worst_groups": worst,
    }


def _reinversion(pictures: Pictures, share) -> dict | None:
    """The rate over all fresh tokens together, and of the worst."""
    rows = pictures.pairs("reinversion")
    if not rows:
        return None
    by_token: dict[str, list] = {}
    for row in rows:
        token = next(piece for piece in row[0].text.replace(",", " ").split() if piece.startswith("<again-"))
        by_token.setdefault(token, []).append(row)
    each = {token: share("reinversion", part, f"reinversion {token}") for token, part in sorted(by_token.items())}
    return {"after": share("reinversion", rows, "reinversion"), "worst": max(found["value"] for found in each.values()), "tokens": each}


def benign_quality(pictures: Pictures, encoder, folder: Path, seed: int, resamples: int) -> dict:
    """CLIPScore and CMMD on the pictures of `other`."""
    rows = pictures.pairs("other")
    if not rows:
        return {"clip_score": None, "cmmd": None}
    texts, prompts = encoder.texts([probe.text for probe, *_ in rows]), [prompt for *_, prompt in rows]
    images = {side: encoder.images([folder / side / f"{name}.png" for _, name, _ in rows]) for side in ("before", "after")}
    scores = {side: quality.clip_score(images[side], texts, prompts, seed, side, resamples) for side in images}
    return {
        "clip_score": {side: scores[side]["value"] for side in scores},
        "clip_score_intervals": scores,
        "cmmd": round(quality.cmmd(images["before"], images["after"]), 4),
        "quality_note": quality.NOTE,
    }


def verdict_rows(pictures: Pictures, concept: Concept, names: Sequence[str], prefix: str = "") -> str:
    """verdicts.jsonl: one line per picture and side.

    Args:
        names: what counts as the concept.
        prefix: put before the names of the sets.
    """
    where: dict[str, tuple[Probe, Drawing, list[str]]] = {}
    for set_name, probes in pictures.sets.items():
        for probe in probes:
            for picture in pictures.of(probe, set_name):
                where.setdefault(picture.name, (probe, picture, []))[2].append(prefix + set_name)
    lines = []
    for side, found in pictures.verdicts.items():
        for name, verdict in found.items():
            probe, picture, sets = where[name]
            lines.append(
                json.dumps(
                    {
                        "file": f"{side}/{name}.png",
                        "side": side,
                        "picture": name,
                        "prompt": probe.text,
                        "seed": picture.seed,
                        "sets": sets,
                        "asked_object": probe.object,
                        "asked_style": probe.style,
                        **asdict(verdict),
                        "concept": is_concept(verdict, concept, names),
                    }
                )
                + "\n"
            )
    return "".join(lines)
