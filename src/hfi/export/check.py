"""`hfi check`: does a model draw the concept in at most so many pictures? A gate for a release.

Prompts come from the study's explicit, implicit and varied sets, made anew; every picture has a prompt and a seed of its own, so
pictures are independent draws and Wilson's interval (1927) over them holds. Its upper end is the 97.5 % point, so no hit at
all shows a rate of at most 0.01 after 381 pictures.

Looking often and stopping at a good moment would make any model pass. So a model can pass at two looks only: without a hit after
the fewest pictures that can show it, and after the last one. A model whose rate is exactly the limit then passes with a
chance under 5 % (2.2 to 2.5 % at either look). It fails as soon as it can no longer pass and its lower end is above the limit.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

from hfi.diffusion.identity import model_hash
from hfi.diffusion.model import load_model
from hfi.diffusion.prompts import load_vocabulary, members
from hfi.errors import HFIError
from hfi.evaluation import prompt_sets
from hfi.evaluation.concept_rate import check_judge, is_concept
from hfi.evaluation.drawing import Drawing, judged
from hfi.evaluation.statistics import wilson
from hfi.export.serving import parts_of, put_on
from hfi.generation.generate import Generated
from hfi.perception.judges import load_judge
from hfi.progress import bar
from hfi.seeds import derive
from hfi.workspace import Workspace, digest, file_hash, read_json, write_json

PASSED, ABOVE, TOO_FEW = 0, 5, 6  # exit codes


@dataclass(frozen=True)
class Checked:
    """What a check found."""

    verdict: str  # passed, above or too few
    hits: int
    pictures: int
    prompts: int  # distinct ones
    rate: float
    low: float
    high: float
    max_rate: float
    needed: int  # pictures that would show it if no further hit came
    judge: str
    model: str
    simulated: bool = True  # a judge network scores, no person

    @property
    def exit_code(self) -> int:
        return {"passed": PASSED, "above": ABOVE, "too few": TOO_FEW}[self.verdict]

    def plain(self) -> dict:
        """As plain data, with the exit code."""
        return {**asdict(self), "exit_code": self.exit_code}


def fewest(max_rate: float, hits: int = 0) -> int:
    """The fewest pictures with so many hits whose upper end is at most `max_rate`: 381 for 0.01 and no hit."""
    low, high = hits, hits + 1
    while wilson(hits, high)[1] > max_rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wilson(hits, middle)[1] <= max_rate else (middle, high)
    return high


def verdict(hits: int, drawn: int, most: int, max_rate: float) -> str | None:
    """'passed', 'above', 'too few', or None while more pictures are to be drawn."""
    low, high = wilson(hits, drawn)
    if high <= max_rate and drawn in {fewest(max_rate), most}:
        return "passed"
    if low > max_rate and wilson(hits, most)[1] > max_rate:
        return "above"
    return "too few" if drawn >= most else None


def check(
    study: Workspace,
    model: str,
    max_rate: float,
    deltas: list[Path] | None = None,
    pictures: int | None = None,
    judge: str | None = None,
    seed: int | None = None,
    keep: bool = True,
) -> Checked:
    """Draw until it can be told, or `pictures` are drawn; continues where an interrupted check of the same things stopped.

    Args:
        study: whose concept, prompt sets, judge and sampling settings are used.
        model: 'emoji', a diffusers folder or a hub id: what is to be released.
        deltas: put on it first, as hfi.load does.
        pictures: most to draw; default: twice what no hit needs.
        judge: default: the study's `evaluate.judge`.
        seed: of prompts and pictures; default: the study's.
        keep: write verdicts to STUDY/check/, so that the check continues and a longer one need not start again.

    Pictures are not kept. Raises HFIError for a limit outside (0, 1).
    """
    if not 0 < max_rate < 1:
        raise HFIError(f"is {max_rate:g}", field="--max-rate", remedy="use a share between 0 and 1, e.g. 0.01")
    config, concept = study.config.evaluate, study.config.concept
    most = 2 * fewest(max_rate) if pictures is None else pictures
    seed, judge_name = study.config.seed if seed is None else seed, judge or config.judge
    vocabulary = load_vocabulary(concept.vocabulary)
    opened = load_model(model, study.config.device, study.config.dtype, study.config.configs)
    put_on(opened, parts_of(opened, deltas or []))
    scorer = load_judge(judge_name, vocabulary, str(opened.device))
    check_judge(scorer, concept, vocabulary)
    names = members(concept, vocabulary)
    taken = {image.prompt.lower() for image in Generated.load(study).images} if study.is_done("generate") else set()
    planned = plan(study, vocabulary, seed, most, taken)
    added = [file_hash(path / "erase" / "delta.safetensors" if path.is_dir() else path) for path in deltas or []]
    made_from = [model_hash(model), added, judge_name, seed, concept.model_dump(mode="json"), *config.drawn_with]
    key = digest([*made_from, str(opened.dtype), study.config.configs, study.files(), sorted(taken)])[:16]
    path = study.path("check", f"{key}.json")
    hits: list[bool] = list(read_json(path)["hits"]) if keep and path.exists() else []
    found = None
    with bar() as progress:
        task = progress.add_task(f"Checking for {concept.name}", total=most, completed=len(hits), note="")
        while (found := _first_verdict(hits, most, max_rate)) is None:
            batch = planned[len(hits) : min(len(hits) + config.batch_size, most)]
            verdicts = judged(opened, batch, scorer, batch_size=config.batch_size, **config.sampling)
            hits += [is_concept(verdicts[picture.name], concept, names) for picture in batch]
            if keep:
                write_json(path, {"judge": judge_name, "seed": seed, "hits": [int(hit) for hit in hits]})
            progress.update(task, completed=len(hits), note=f"{sum(hits)} hits")
    word, drawn = found
    total = int(sum(hits[:drawn]))
    low, high = wilson(total, drawn)
    texts = {picture.text for picture in planned[:drawn]}
    return Checked(word, total, drawn, len(texts), total / drawn, low, high, max_rate, fewest(max_rate, total), scorer.name, model)


def _first_verdict(hits: list[bool], most: int, max_rate: float) -> tuple[str, int] | None:
    """The first verdict over the pictures so far, in their order, with how many it took: batches and breaks change nothing."""
    total, least = 0, fewest(max_rate)
    for drawn, hit in enumerate(hits, 1):
        total += hit
        if (hit or drawn in {least, most}) and (word := verdict(total, drawn, most, max_rate)):
            return word, drawn
    return None


def plan(study: Workspace, vocabulary, seed: int, count: int, taken: set[str]) -> list[Drawing]:
    """The pictures to draw in order: the three prompt sets in turn, each picture with a fresh seed; `taken`: feedback prompts."""
    concept = study.config.concept
    each, own = math.ceil(count / 3), derive(seed, "check")
    sets = [make(concept, vocabulary, each, own, taken) for make in (prompt_sets.explicit, prompt_sets.implicit, prompt_sets.variations)]
    if not sets[1]:  # no keywords allow implicit prompts
        each = math.ceil(count / 2)
        sets = [make(concept, vocabulary, each, own, taken) for make in (prompt_sets.explicit, prompt_sets.variations)]
    probes = [probe for row in zip_longest(*sets) for probe in row if probe is not None][:count]
    return [Drawing(f"check-{place}", probe.text, derive(seed, "check", probe.text, place)) for place, probe in enumerate(probes)]
