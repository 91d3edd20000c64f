"""Stage 7 on the tiny pipeline: resumed = uninterrupted, nothing drawn twice, an unchanged model keeps everything."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

import tiny
from hfi.config import Concept, parse_config, with_overrides
from hfi.diffusion.prompts import load_vocabulary
from hfi.erasure.delta import Delta, save_delta
from hfi.erasure.erase import snapshot_file
from hfi.errors import HFIError
from hfi.evaluation import comeback, drawing, evaluate, neighbours
from hfi.evaluation.concept_rate import check_judge, is_concept
from hfi.evaluation.drawing import Verdict
from hfi.evaluation.evaluate import Evaluated
from hfi.evaluation.quick import quick_scores
from hfi.evaluation.retention import by_group, is_right
from hfi.generation.generate import generate
from hfi.perception.judges import load_judge
from hfi.workspace import Workspace

STYLE = {"concept.name": "ink", "concept.kind": "style", "concept.members": [], "concept.unlisted": []}


@dataclass
class Chosen:
    image_id: str


@dataclass
class Reward:
    scores: dict
    selected: list
    flagged: tuple
    kept_words: tuple = ()


@dataclass
class Held:
    tokens: dict | None = None
    delta: Delta | None = None
    snapshots: dict = field(default_factory=dict)


class Study:
    """A study whose earlier stages are done: real pictures, and a made-up reward, token and delta."""

    def __init__(self, root: Path, tiny_root: Path, model, changed: float, overrides: dict | None = None):
        config = with_overrides(parse_config(tiny.study_settings(tiny_root), "tiny"), overrides or {})
        self.model, self.study = model, Workspace.create(root, config)
        self.images = generate(model, self.study)
        names = [image.id for image in self.images.images]
        self.reward = Reward({name: 1 - i / len(names) for i, name in enumerate(names)}, [Chosen(name) for name in names[:4]], tuple(names))
        for stage in ("label", "reward", "invert", "erase"):
            with self.study.stage(stage) as run:
                run.path("made-up.txt").write_text(f"{changed}")
        table = model.text_encoder.get_input_embeddings().weight
        self.tokens = Held(tokens={"<sharp>": table[[40, 50]].detach().clone()})
        noise = torch.Generator().manual_seed(0)
        self.erased = Held(
            delta=Delta({
                name: changed * torch.randn(weight.shape, generator=noise)
                for name, weight in model.unet.named_parameters()
                if ".attn2." in name
            })
        )
        for step in config.erase.snapshot_steps():  # on the way: a share of the whole change
            half = {name: (value * step / config.erase.steps).half() for name, value in self.erased.delta.weights.items()}
            self.erased.snapshots[step] = snapshot_file(self.study.path("erase"), step)
            save_delta(self.erased.snapshots[step], half, model, "sharp", step)

    def evaluate(self) -> Evaluated:
        return evaluate.evaluate(self.model, self.images, self.reward, self.tokens, self.erased, self.study)


@pytest.fixture
def make(tiny_root, tiny_model, tmp_path):
    def build(name="study", changed=0.5, **overrides):
        return Study(tmp_path / name, tiny_root, tiny_model, changed, {key.replace("__", "."): value for key, value in overrides.items()})

    return build


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "partial.json")
    }


def test_the_numbers_have_the_published_layout(make):
    made = make()
    metrics = made.evaluate().metrics
    for name in ("explicit", "implicit", "variations", "tokens", "unlisted"):
        for side in ("before", "after"):
            found = metrics["concept_rate"][name][side]
            assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1 and found["n"] >= 1
    again = metrics["concept_rate"]["reinversion"]
    assert again["worst"] == again["tokens"]["<again-1>"]["value"] and again["after"]["n"] == 4
    assert set(metrics["neither"]) == set(metrics["clip_score"]) == {"before", "after"}
    assert metrics["floor"] is None and metrics["retention"]["object_in_style"] is None
    assert {"other", "neighbours", "styles", "other_unpreserved"} <= set(metrics["retention"])
    assert set(metrics["by_group"]) <= {"things", "nature"} and set(metrics["worst_groups"]) <= set(metrics["by_group"])
    assert isinstance(metrics["cmmd"], float) and metrics["simulated"] is True and metrics["judge"].startswith("clip:")
    assert metrics["seconds"]["total"] == pytest.approx(sum(s for stage, s in metrics["seconds"].items() if stage != "total"), abs=0.02)
    assert set(metrics["peak_memory_mib"]) == {"generate", "label", "reward", "invert", "erase", "evaluate"}
    assert json.loads(made.study.path("metrics.json").read_text()) == metrics == Evaluated.load(made.study).metrics


def test_pictures_before_and_after_are_linked_by_name_and_every_one_is_judged(make):
    made = make()
    folder = made.evaluate().folder
    rows = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    assert {row["file"] for row in rows} == {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    before, after = ({row["picture"] for row in rows if row["side"] == side} for side in ("before", "after"))
    few = [{row["picture"] for row in rows if row["side"] == side} for side in ("step-000001", "step-000003")]
    assert few[0] == few[1] < after and {"before", "after", "reinversion", "step-000001", "step-000003"} == {row["side"] for row in rows}
    assert after < before  # the gallery is drawn by the original model only
    sets = json.loads((folder / "prompts.json").read_text())["sets"]
    assert {name for probes in sets.values() for probe in probes for name in probe["pictures"]} == before
    assert not (folder / "parts").exists()


def test_a_finished_stage_is_read_back_and_its_numbers_published_again(make, monkeypatch):
    made = make()
    first = made.evaluate().metrics
    made.study.path("metrics.json").unlink()
    monkeypatch.setattr(evaluate, "draw_and_judge", None)
    assert made.evaluate().metrics == first and made.study.path("metrics.json").exists()


def test_an_unchanged_model_keeps_everything_exactly(make):
    made = make(changed=0.0)
    metrics = made.evaluate().metrics
    for name in ("explicit", "implicit", "variations", "tokens", "unlisted"):
        assert metrics["concept_rate"][name]["before"]["value"] == metrics["concept_rate"][name]["after"]["value"]
    for found in metrics["retention"].values():
        assert found is None or found["value"] in (1.0, None)
    assert metrics["neither"]["before"] == metrics["neither"]["after"]
    assert metrics["clip_score"]["before"] == metrics["clip_score"]["after"] and metrics["cmmd"] == 0
    folder = made.study.path("evaluate")
    for picture in (folder / "after").glob("*.png"):
        assert picture.read_bytes() == (folder / "before" / picture.name).read_bytes()


def test_the_curve_runs_from_the_original_to_the_erased_model(make):
    made = make(evaluate__prompts_per_set=6, evaluate__curve_prompts=4)
    metrics = made.evaluate().metrics
    points, folder = metrics["curve"], made.study.path("evaluate")
    assert [point["step"] for point in points] == [0, 1, 3, 4]
    assert {(point["concept_rate"]["n"], point["neither"]["n"], point["retention"]["n"]) for point in points} == {(4, 4, 4)}
    assert {point["concept_rate"]["interval"] for point in points} == {"wilson"}
    first, last = points[0]["retention"], points[-1]["retention"]
    assert first["value"] in (1.0, None) and first["right_before"] == last["right_before"]
    assert json.loads((folder / "curve.json").read_text())["points"] == points
    # the ends count pictures of before/ and after/: the verdicts say the same
    rows = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    few = {row["picture"] for row in rows if row["side"] == "step-000001" and "explicit" in row["sets"]}
    for point, side in zip(points, ("before", "step-000001", "step-000003", "after"), strict=True):
        hits = [row["concept"] for row in rows if row["side"] == side and row["picture"] in few]
        assert len(hits) == 4 and point["concept_rate"]["value"] == sum(hits) / 4


def test_a_snapshot_of_nothing_draws_what_the_original_draws(make):
    made = make(changed=0.0)
    points = made.evaluate().metrics["curve"]
    assert len({point["concept_rate"]["value"] for point in points}) == 1
    assert {point["retention"]["value"] for point in points} <= {1.0, None}


@pytest.mark.parametrize("off", [{"evaluate__curve_prompts": 0}, {"erase__snapshots": 0}])
def test_without_snapshots_or_prompts_there_is_no_curve(make, off):
    made = make(**off)
    assert made.evaluate().metrics["curve"] is None
    assert not made.study.path("evaluate", "curve.json").exists() and not list(made.study.path("evaluate").glob("step-*"))


def test_a_damaged_snapshot_is_named(make):
    made = make()
    path = made.erased.snapshots[3]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HFIError, match=r"step-000003\.safetensors.*not a whole safetensors file"):
        made.evaluate()


def test_the_original_weights_come_back(make):
    made = make()
    kept = {name: value.clone() for name, value in made.model.unet.state_dict().items()}
    made.evaluate()
    assert all(torch.equal(value, kept[name]) for name, value in made.model.unet.state_dict().items())


@pytest.mark.parametrize("stop_at", [1, 9, 15, 20])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(make, monkeypatch, stop_at):
    real, drawn = drawing.sample_latents, []

    def counting(*args, **settings):
        if len(drawn) == stop_at and stopping:
            raise KeyboardInterrupt
        drawn.append(1)
        return real(*args, **settings)

    monkeypatch.setattr(drawing, "sample_latents", counting)
    stopping = False
    whole = make("whole", evaluate__batch_size=3)
    whole.evaluate()
    batches = len(drawn)
    drawn.clear()
    stopping = True
    broken = make("broken", evaluate__batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        broken.evaluate()
    stopping = False
    broken.evaluate()
    one, two = contents(whole.study.path("evaluate")), contents(broken.study.path("evaluate"))
    assert one.keys() == two.keys() and not [name for name in one if one[name] != two[name]]
    assert len(drawn) == batches  # no whole batch is drawn again


def test_no_picture_is_drawn_twice(make, monkeypatch):
    made, seen = make(evaluate__retention_prompts=8), []
    real = drawing.sample_latents

    def noting(model, c, c_0, seeds, **settings):
        side = float(next(p for n, p in model.unet.named_parameters() if ".attn2." in n).sum())
        seen.extend((side, seed, float(row.sum())) for seed, row in zip(seeds, c, strict=True))
        return real(model, c, c_0, seeds, **settings)

    monkeypatch.setattr(drawing, "sample_latents", noting)
    made.evaluate()
    assert len(seen) == len(set(seen))


def run_of_three(make, **overrides):
    """A study of sharp things whose run erased pets, and ink, as well."""
    pets = {"concept__name": "pets", "concept__members": ["cat", "dog"], "concept__unlisted": ["dog"]}
    others = [make("pets", **pets), make("ink", **{key.replace(".", "__"): value for key, value in STYLE.items()})]
    return make("both", erase__also=[str(other.study.root) for other in others], evaluate__retention_prompts=8, **overrides)


def test_every_concept_of_a_run_is_measured(make):
    made = run_of_three(make)
    metrics, folder = made.evaluate().metrics, made.study.path("evaluate")
    assert [(one["concept"], one["kind"]) for one in metrics["also"]] == [("pets", "harm"), ("ink", "style")]
    pets, ink = metrics["also"]
    rows = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    for side in ("before", "after"):
        shown = [row for row in rows if row["side"] == side and "also-1-explicit" in row["sets"]]
        found = pets["concept_rate"]["explicit"][side]
        assert len(shown) == found["n"] == 4 and found["value"] == sum(row["object"] in ("cat", "dog") for row in shown) / 4
        assert all(row["concept"] == (row["object"] in ("cat", "dog")) for row in shown)
        assert pets["concept_rate"]["unlisted"][side]["n"] == sum(row["asked_object"] == "dog" for row in shown)
    assert pets["floor"] is None and ink["floor"]["n"] == 4 and ink["concept_rate"]["unlisted"] is None
    frozen = json.loads((folder / "prompts.json").read_text())
    assert [one["members"] for one in frozen["also"]] == [["cat", "dog"], ["ink"]]
    assert {picture for probe in frozen["also"][0]["sets"]["explicit"] for picture in probe["pictures"]} == {
        row["picture"] for row in rows if "also-1-explicit" in row["sets"]
    }


def test_nothing_that_another_concept_of_the_run_is_about_has_to_stay(make):
    made = run_of_three(make)
    made.evaluate()
    frozen = json.loads(made.study.path("evaluate", "prompts.json").read_text())
    for name in ("other", "neighbours"):
        assert frozen["sets"][name]
        for probe in frozen["sets"][name]:
            assert probe["object"] not in ("cat", "dog") and probe["style"] == "chalk"
    assert not {"cat", "dog"} & {*frozen["neighbours"]["text"], *frozen["neighbours"]["image"]}


def test_a_run_of_several_that_was_interrupted_equals_one_that_was_not(make, monkeypatch):
    real, drawn, stop_at = drawing.sample_latents, [], None

    def counting(model, c, c_0, seeds, **settings):
        if len(drawn) == stop_at:
            raise KeyboardInterrupt
        drawn.append(tuple(seeds))
        return real(model, c, c_0, seeds, **settings)

    monkeypatch.setattr(drawing, "sample_latents", counting)
    made = run_of_three(make)
    made.evaluate()
    whole, total = contents(made.study.path("evaluate")), len(drawn)
    for stop_at in (total // 3, 2 * total // 3):
        drawn.clear()
        broken = Path(f"{made.study.root}-{stop_at}")
        shutil.copytree(made.study.root, broken, ignore=shutil.ignore_patterns("evaluate", "metrics.json", ".lock"))
        made.study = Workspace.open(broken)
        with pytest.raises(KeyboardInterrupt):
            made.evaluate()
        stopped, stop_at = stop_at, None
        made.evaluate()
        assert len(drawn) == total and stopped < total
        again = contents(made.study.path("evaluate"))
        assert again.keys() == whole.keys() and not [name for name in whole if whole[name] != again[name]]


def test_a_style_study_has_a_floor_and_keeps_objects(make):
    metrics = make(**{key.replace(".", "__"): value for key, value in STYLE.items()}, evaluate__prompts_per_set=6).evaluate().metrics
    assert 0 <= metrics["floor"] <= 1 and metrics["floor_interval"]["n"] == 6
    assert metrics["retention"]["object_in_style"]["n"] == 6 and metrics["concept_rate"]["unlisted"] is None
    assert metrics["retention"]["neighbours"]["n"] == 4


def test_no_attack_leaves_no_reinversion(make):
    assert make(evaluate__reinversions=0).evaluate().metrics["concept_rate"]["reinversion"] is None


def test_attack_pictures_are_the_highest_outside_the_top_k(make):
    made = make()
    chosen = comeback.attack_pictures(made.images, made.reward)
    assert [image.id for image in chosen] == [image.id for image in made.images.images[4:8]]
    fewer = replace(made.reward, flagged=tuple(image.id for image in made.images.images[:6]))
    assert [image.id for image in comeback.attack_pictures(made.images, fewer)] == [image.id for image in made.images.images[4:6]]


def test_a_damaged_batch_file_is_named(make, monkeypatch):
    made = make()
    real, calls = drawing.sample_latents, []

    def stopping(*args, **settings):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args, **settings)

    monkeypatch.setattr(drawing, "sample_latents", stopping)
    with pytest.raises(KeyboardInterrupt):
        made.evaluate()
    part = next(made.study.path("evaluate", "parts").glob("*.json"))
    part.write_text("[[")
    with pytest.raises(HFIError, match=r"before-base-000000\.json.*damaged.*delete it"):
        made.evaluate()


def test_a_full_disk_is_one_line(make, monkeypatch):
    import errno

    from PIL import Image

    made = make()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(HFIError, match="disk is full.*continues from the last checkpoint"):
        made.evaluate()


def test_a_judge_that_does_not_know_the_concept_is_refused(tiny_root):
    vocabulary = load_vocabulary(str(tiny_root / "vocabulary.json"))
    judge = load_judge(f"clip:{tiny_root / 'clip'}", vocabulary)
    check_judge(judge, Concept(name="sharp", vocabulary=str(tiny_root / "vocabulary.json")), vocabulary)
    from dataclasses import replace

    with pytest.raises(HFIError, match="evaluate.judge.*does not know 'knife'"):
        check_judge(replace(judge, objects=("cat", "neither")), Concept(name="sharp"), vocabulary)


def test_garbage_is_neither_in_the_concept_nor_right():
    from hfi.evaluation.prompt_sets import Probe

    garbage, knife = Verdict("neither", "ink", 1.0, 1.0), Verdict("knife", "ink", 1.0, 1.0)
    style, harm = Concept(name="ink", kind="style"), Concept(name="sharp")
    assert not is_concept(garbage, style, ("ink",)) and is_concept(knife, style, ("ink",))
    assert not is_concept(garbage, harm, ("knife",)) and is_concept(knife, harm, ("knife",))
    probe = Probe("a knife, ink", "knife", "ink")
    assert is_right(knife, probe, "object") and is_right(knife, probe, "style")
    assert not is_right(garbage, probe, "object") and not is_right(garbage, probe, "style")


def test_the_worst_groups_come_worst_first_and_at_most_five():
    rows = {f"g{i}": ([True] * 10, [True] * i + [False] * (10 - i), [str(k) for k in range(10)]) for i in range(8)}
    rows["never right"] = ([False], [True], ["x"])
    groups, worst = by_group(rows, 0, 100)
    assert worst == ["g0", "g1", "g2", "g3", "g4"] and groups["g3"]["value"] == 0.3 and groups["never right"]["value"] is None


def test_nearest_by_any_member():
    inside = torch.eye(3)[:2]
    rest = {
        "like the second": torch.tensor([0.0, 0.9, 0.1]),
        "unlike": torch.tensor([0.0, 0.0, 1.0]),
        "like the first": torch.tensor([0.8, 0, 0]),
    }
    assert neighbours.nearest(inside, rest, 2) == ("like the second", "like the first")
    assert neighbours.nearest(inside, {}, 2) == ()


def test_quick_scores_of_an_unchanged_model_and_of_a_changed_one(make, tiny_root):
    made = make()
    judge, kept = f"clip:{tiny_root / 'clip'}", {}
    same = quick_scores(made.model, {}, made.study.config, judge=judge, n=6, steps=2, guidance_scale=2.0, original=kept)
    assert same["concept_rate"] == same["concept_rate_before"] and same["neither"] == same["neither_before"]
    assert same["retention"] in (1.0, None)
    before = dict(kept)
    other = quick_scores(made.model, made.erased.delta, made.study, judge=judge, n=6, steps=2, guidance_scale=2.0, original=kept)
    assert kept == before and other["concept_rate_before"] == same["concept_rate_before"]  # the original is drawn once
