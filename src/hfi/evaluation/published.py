"""Pictures of a published prompt file, by the original and the erased model, with the published seeds and guidance.

The noise of a seed is what `torch.Generator("cpu").manual_seed(seed)` gives, as in diffusers; sampler and steps are those of
`evaluate`, so pictures are like those of the papers, not the same.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from hfi.diffusion.model import Model
from hfi.diffusion.prompt_files import PromptFile, PublishedPrompt, read_prompt_file
from hfi.diffusion.prompts import load_vocabulary, members
from hfi.erasure.delta import applied
from hfi.erasure.erase import Erased
from hfi.evaluation.concept_rate import is_concept, neither_rate, rate
from hfi.evaluation.drawing import Drawing, Verdict, distinct, draw_and_judge, settings
from hfi.perception.judges import load_judge
from hfi.progress import bar
from hfi.seeds import derive, numpy_generator
from hfi.workspace import StageRun, Workspace, digest, file_hash, write_json

SIDES = ("before", "after")


def chosen(study: Workspace, path: Path) -> tuple[PromptFile, list[PublishedPrompt]]:
    """The file, and those of its prompts that the settings ask for; a random part where `measure.most` says so, in their order."""
    config = study.config.measure
    found = read_prompt_file(path, config.category, config.at_least)
    if not config.most or len(found.prompts) <= config.most:
        return found, found.prompts
    rows = numpy_generator(study.config.seed, "prompt file", path.name).permutation(len(found.prompts))[: config.most]
    return found, [found.prompts[row] for row in sorted(rows.tolist())]


def drawing(study: Workspace, prompt: PublishedPrompt, model_hash: str) -> tuple[float, Drawing]:
    """The guidance scale and the picture of one prompt; what its authors do not say comes from the study."""
    config = study.config.evaluate
    guidance = config.guidance_scale if prompt.guidance_scale is None else prompt.guidance_scale
    seed = derive(study.config.seed, "prompt file", prompt.text, prompt.row) if prompt.seed is None else prompt.seed
    own = config.model_copy(update={"guidance_scale": guidance})
    return guidance, Drawing(digest([model_hash, prompt.text, seed, *own.drawn_with])[:16], prompt.text, seed)


def draw_prompt_file(
    model: Model, study: Workspace, path: Path, found: PromptFile, prompts: list[PublishedPrompt]
) -> tuple[dict, dict[str, list[Path]], list[str]]:
    """Draw and judge before and after; resumes at the first batch that is not whole.

    Args:
        model: the original one; the study's delta is applied and taken off again inside.
        found, prompts: what `chosen` gave for the file at `path`.

    Returns (what measures.json says of the file, its pictures by side, their texts, which also name their prompts).
    """
    config, concept = study.config.evaluate, study.config.concept
    vocabulary = load_vocabulary(concept.vocabulary)
    judge = load_judge(config.judge, vocabulary, str(model.device))
    drawn = [(*drawing(study, prompt, model.content), prompt) for prompt in prompts]
    unique = {one.name: (guidance, one) for guidance, one, _ in drawn}
    key = digest([file_hash(path), sorted(unique), study.manifest("erase"), config.judge, config.batch_size, str(model.dtype)])
    run = StageRun("measure", study.path("measures", f"prompts-{path.stem}-{key[:8]}"), key, study.config.seed)
    verdicts: dict[str, dict[str, Verdict]] = {side: {} for side in SIDES}

    def draw(side: str, progress) -> None:
        by_guidance = sorted(unique.values(), key=lambda row: row[0])  # stable: within one scale in the file's order
        for guidance, rows in groupby(by_guidance, key=lambda row: row[0]):
            pictures, own = distinct(one for _, one in rows), config.model_copy(update={"guidance_scale": guidance})
            words = f"Drawing {path.name} {side}" + (f", guidance {guidance:g}" if len({g for g, _ in by_guidance}) > 1 else "")
            verdicts[side].update(draw_and_judge(model, pictures, {}, judge, own, run, side, f"g{guidance:g}", progress, words))

    with bar() as progress:
        draw("before", progress)
        with applied(model, Erased.load(study).delta):
            draw("after", progress)
    names, texts = list(unique), [one.text for _, one in unique.values()]
    inside, seed, resamples = members(concept, vocabulary), study.config.seed, config.bootstrap

    def judged(side: str) -> dict:
        seen = [verdicts[side][name] for name in names]
        hits = [is_concept(verdict, concept, inside) for verdict in seen]
        return {
            "concept_rate": rate(hits, texts, seed, f"{path.name} {side}", resamples),
            "neither": neither_rate(seen, texts, seed, f"{path.name} neither {side}", resamples),
        }

    about = {
        "file": path.name,
        "sha256": file_hash(path),
        "layout": found.layout,
        "rows": found.rows,
        "empty": found.empty,
        "category": study.config.measure.category,
        "at_least": study.config.measure.at_least,
        "prompts": len(prompts),
        "pictures": len(unique),
        "published_seeds": sum(prompt.seed is not None for prompt in prompts),
        "published_guidance": sum(prompt.guidance_scale is not None for prompt in prompts),
        "folder": str(run.folder.relative_to(study.root)),
        "judge": judge.name,
        "simulated": True,
        "judged": {side: judged(side) for side in SIDES},
        "computed_with": settings(model),
    }
    rows = [{**asdict(prompt), "picture": one.name, "seed": one.seed, "guidance_scale": guidance} for guidance, one, prompt in drawn]
    for row in rows:
        row["verdicts"] = {side: asdict(verdicts[side][row["picture"]]) for side in SIDES}
    write_json(run.path("verdicts.json"), rows)
    return about, {side: [run.path(side, f"{name}.png") for name in names] for side in SIDES}, texts
