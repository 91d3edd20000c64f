"""The model card: README.md in the Hugging Face format, from the manifests and the evaluation of a study.

It says what was removed, by whose judgement (numbers, never names), how far it is gone, whether it comes back, and what it cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

import hfi
from hfi.errors import HFIError
from hfi.export.files import public_name, without_paths
from hfi.report.figures import Rate
from hfi.report.gather import judged_by, manifests, simulated_annotators
from hfi.report.numbers import CONCEPT_SETS, KEPT_SETS, read_numbers
from hfi.workspace import Workspace, read_json

SIMULATED_JUDGE = "A judge network scored every picture in these tables; no person did."


def model_card(study: Workspace, files: Mapping[str, str] | None = None, strengths: Mapping[str, float] | None = None) -> str:
    """The card as text.

    Args:
        files: what lies beside it: name -> one sentence.
        strengths: of the deltas in the files, by concept, where they are not this study's alone at 1; the others' numbers stand in
            their own cards.

    Raises HFIError where erasing is not done, or metrics.json is damaged.
    """
    found = manifests(study)
    if not study.is_done("erase"):
        raise HFIError("has not been erased under its present settings", file=study.root, remedy=f"run 'hfi run {study.root}' first")
    concept, base = study.config.concept, public_name(study.config.model)
    parts = [
        f"---\n{yaml.safe_dump(front_matter(study), sort_keys=False, allow_unicode=True)}---\n",
        f"# {base} without {concept.name}\n",
        f"This is {base} fine-tuned so that it no longer draws what people flagged as **{concept.name}** (a {concept.kind}), by Human "
        "Feedback Inversion ([arXiv 2407.21032](https://arxiv.org/abs/2407.21032)) with the package `hfi` "
        f"{hfi.__version__}.\n" + _together(found) + _mixed(strengths or {concept.name: 1.0}, concept.name),
        "## What was removed, and by whose judgement\n\n" + _judgement(found) + "\n",
        "## How far it is gone\n\n" + _numbers(study) + "\n",
        "## Limits\n\n" + LIMITS + "\n",
    ]
    if files:
        parts.append("## Files\n\n" + _table(("file", "what it is"), [(f"`{name}`", words) for name, words in files.items()]) + "\n")
    parts.append(USE)
    parts.append("## How it was made\n\n" + _making(study, found) + "\n")
    return "\n".join(parts)


USE = """## Use

```python
import hfi  # pip install hfi

pipeline = hfi.load(MODEL, deltas=["hfi-...-delta.safetensors"], strengths=[1.0])  # a plain diffusers pipeline
pipeline.load_lora_weights("hfi-...-lora.safetensors")  # or, on a pipeline of your own, the LoRA alone
```
"""
LIMITS = """- The concept is what the annotators saw and flagged. What no feedback picture showed can stay.
- Erasing of this kind hides a concept rather than removing it: tokens learned afresh against the model can bring part of it back (see
  the attacks above). It is one layer of care, not a guarantee; keep your other filters.
- What looks like the concept suffers first (see the damage above).
- The numbers hold for the settings, prompts and judge named here, at strength 1. At another strength, with another sampler, after
  further fine-tuning or merged with other models nothing was measured; `hfi check` measures it.
- A negative strength would make the model draw the concept; `hfi` refuses it, other tools do not."""


def front_matter(study: Workspace) -> dict:
    """The card's YAML: what a hub reads."""
    model, concept = study.config.model, study.config.concept
    local = public_name(model) != model or "/" not in model
    return {
        **({} if local else {"base_model": model}),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["human-feedback-inversion", "concept-erasure", "unlearning", f"erased:{concept.name}"],
    }


def _together(found: Mapping[str, dict]) -> str:
    """Which other concepts the same run erased."""
    first, *others = found["erase"].get("facts", {}).get("concepts") or [""]
    words = ", ".join(f"**{name}**" for name in others)
    return f"\nThe same run erased {words} as well. Where no other name stands, what follows is of {first}.\n" if others else ""


def _mixed(strengths: Mapping[str, float], concept: str) -> str:
    """A warning where the files are not what was measured."""
    if dict(strengths) == {concept: 1.0}:
        return ""
    words = ", ".join(f"**{name}** at strength {value:g}" for name, value in strengths.items())
    return f"\nIts files hold what removes {words}. The numbers below are {concept}'s alone at strength 1; the mixture was not measured.\n"


def _judgement(found: dict[str, dict]) -> str:
    label, reward = (found.get(stage, {}).get("facts", {}) for stage in ("label", "reward"))
    lines = [f"- judged by: {judged_by(found)}"]
    if label.get("judgements") is not None:
        lines.append(f"- judgements: {label['judgements']} on {label.get('images_judged', '?')} pictures")
    agreement = label.get("agreement") or {}
    for kind in ("binary", "ranking"):
        if isinstance(agreement.get(kind), (int, float)):
            lines.append(f"- agreement ({kind}): {agreement[kind]:.2f} ({agreement.get('measure', '')})")
    for name, words in (("auc", "held-out AUC"), ("pairwise_accuracy", "held-out pairwise accuracy")):
        if isinstance(reward.get(name), dict):
            value = reward[name]
            lines.append(f"- reward model: {words} {value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f}, n {value['n']})")
    if simulated_annotators(found):
        lines.append("- **simulated**: a judge network played annotators; their judgements are no person's")
    return "\n".join(lines)


def _numbers(study: Workspace) -> str:
    """The tables: rates, attacks, damage; or that nothing was measured."""
    path = study.path("metrics.json")
    if not study.is_done("evaluate") or not path.exists():
        return "**Not measured** under the study's present settings."
    raw = read_json(path)
    numbers = read_numbers(raw, path)
    rows = [
        (CONCEPT_SETS.get(name, (name,))[0], rate_words(change.before), rate_words(change.after)) for name, change in numbers.rates.items()
    ]
    rows += [
        (f"{one.name}, erased in the same run: {CONCEPT_SETS[name][0].lower()}", rate_words(change.before), rate_words(change.after))
        for one in numbers.also
        for name, change in one.rates.items()
    ]
    rows.append(("Nothing recognisable (`neither`)", rate_words(numbers.neither.before), rate_words(numbers.neither.after)))
    if numbers.floor is not None:
        rows.append(("Floor: the style with no style asked for", f"{numbers.floor:.2f}", ""))
    parts = [_table(("share of pictures with the concept", "before", "after"), rows)]
    attacks = attack_rows(raw, numbers)
    parts.append("**Attacks** (does it come back?)\n\n" + (_table(("attack", "rate after"), attacks) if attacks else "None was tried."))
    damage = [(KEPT_SETS.get(name, (name,))[0], rate_words(rate)) for name, rate in numbers.retention.items()]
    if numbers.clip_score.after is not None:
        before, after = numbers.clip_score.before, numbers.clip_score.after
        damage.append(("CLIPScore on other prompts", f"{'' if before is None else f'{before.value:.3f} before, '}{after.value:.3f} after"))
    if numbers.cmmd is not None:
        damage.append(("CMMD on other prompts", f"{numbers.cmmd:.3f}"))
    parts.append("**Damage** (of what it drew right before, the share that it still draws right)\n\n" + _table(("on", "kept"), damage))
    words = f"Brackets hold 95 % intervals over prompts and n, the pictures. Judge: `{raw.get('judge', 'not named')}`."
    if numbers.worst_groups:
        words += f" Groups that lost most: {', '.join(numbers.worst_groups)}."
    parts.append(f"{words} {'**Simulated**: ' + SIMULATED_JUDGE if numbers.simulated else ''}".strip())
    return "\n\n".join(parts)


def attack_rows(raw: Mapping, numbers) -> list[tuple[str, str]]:
    """The attacks of metrics.json: re-inversion, and whatever stands under `attacks` as name -> {"after": rate}."""
    rows = []
    if numbers.reinversion is not None:
        worst = "" if numbers.reinversion_worst is None else f"; the worst token {numbers.reinversion_worst:.2f}"
        rows.append(("Re-inversion: tokens learned afresh against the erased model", rate_words(numbers.reinversion) + worst))
    more = raw.get("attacks")
    for name, value in more.items() if isinstance(more, Mapping) else ():
        rate = value.get("after", value) if isinstance(value, Mapping) else value
        if isinstance(rate, Mapping) and isinstance(rate.get("value"), (int, float)):
            rows.append((str(name), rate_words(Rate(rate["value"], rate.get("low"), rate.get("high"), int(rate.get("n") or 0)))))
    return rows


def rate_words(rate: Rate | None) -> str:
    """'0.02 (0.00 to 0.05, n 150)'."""
    if rate is None:
        return "not measured"
    if rate.low is None or rate.high is None:
        return f"{rate.value:.2f}"
    return f"{rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f}, n {rate.n})"


def _making(study: Workspace, found: dict[str, dict]) -> str:
    """Settings that differ from the defaults, versions and hashes."""
    lines = []
    for stage in ("invert", "erase"):
        section = getattr(study.config, stage)
        plain, default = without_paths(section.decisive()), type(section)().decisive()
        own = ", ".join(f"{name} {value}" for name, value in plain.items() if value != default.get(name))
        lines.append(f"- {stage}: {own or 'the default settings'}")
    lines.append(f"- seed: {study.config.seed}")
    versions = found["erase"].get("versions", {})
    lines.append(f"- versions: {', '.join(f'{name} {value}' for name, value in versions.items() if name != 'platform')}")
    lines += [f"- {stage}: `{manifest['digest']}`" for stage, manifest in found.items() if "digest" in manifest]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines)
