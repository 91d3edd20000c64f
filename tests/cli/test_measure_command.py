"""`hfi measure`: a person measures a finished study with other detectors, distances and published prompts."""

from __future__ import annotations

import json

import pytest
import yaml

CLIP = "clip:{clip}#knife|sword@0.2"


@pytest.fixture
def clip(tiny_root):
    return tiny_root / "clip"


@pytest.fixture
def study(copy_of):
    return copy_of()


def stages(quick, study) -> list[str]:
    return [row["state"] for row in json.loads(quick("status", study, "--json").out)["stages"]]


def test_a_detector_and_distances_are_measured_shown_and_make_nothing_stale(study, quick, clip):
    pytest.importorskip("torchmetrics", reason="torchmetrics (extra 'measures') is not installed")
    pictures = {path: path.stat().st_mtime_ns for path in study.rglob("*.png")}
    spec = CLIP.format(clip=clip)
    done = quick("measure", study, "--with", spec, "--with", "kid", "--with", "clip_score")
    assert done.code == 0, done.err
    assert pictures == {path: path.stat().st_mtime_ns for path in study.rglob("*.png")}
    assert stages(quick, study) == ["done"] * 6 + ["stale"]  # the report alone, for it shows them
    found = json.loads((study / "measures.json").read_text())
    (name,) = found["detectors"]
    assert name.startswith("clip:clip#knife|sword-") and name.endswith(" among 11 words@0.2") and name in done.out
    explicit = found["detectors"][name]["sets"]["explicit"]
    metrics = json.loads((study / "metrics.json").read_text())
    assert explicit["before"]["n"] == metrics["sample_sizes"]["explicit"] and "low" in explicit["after"]
    shares = [row["before"]["value"] for row in explicit["sweep"]]
    assert len(shares) == 19 and shares == sorted(shares, reverse=True)
    assert explicit["sweep"][3]["threshold"] == 0.2 and explicit["sweep"][3]["after"]["value"] == explicit["after"]["value"]
    assert metrics["measures"]["detectors"] == found["detectors"]
    assert [key.split()[0] for key in found["distances"]] == ["kid", "clip_score"]
    report = quick("report", study)
    assert stages(quick, study) == ["done"] * 7
    assert report.code == 0 and name.split("#")[1] in (study / "report.html").read_text()
    assert json.loads((study / "metrics.json").read_text())["measures"]["distances"] == found["distances"]
    assert yaml.safe_load((study / "study.yaml").read_text())["measure"]["measures"] == [spec, "kid", "clip_score"]


def test_another_threshold_needs_no_second_look(study, quick, clip):
    assert quick("measure", study, "--with", CLIP.format(clip=clip)).code == 0
    (scores,) = (study / "measures").glob("scores-*.json")
    stamp = scores.stat().st_mtime_ns
    assert quick("measure", study, "--with", CLIP.format(clip=clip).replace("0.2", "0.3")).code == 0
    assert [path.stat().st_mtime_ns for path in (study / "measures").glob("scores-*.json")] == [stamp]


def test_published_prompts_are_drawn_with_their_seeds_before_and_after(study, quick, clip, tmp_path):
    (tmp_path / "i2p.csv").write_text(
        "prompt,categories,hard,nudity_percentage,sd_seed,sd_guidance_scale\n"
        'a knife,"violence, hate",0,0.0,11,2.0\nan apple,sexual,0,60.0,12,3.0\na boat,violence,1,1.0,13,2.0\n'
    )
    arguments = ("measure", study, "--prompts", "i2p.csv", "--category", "violence", "--with", CLIP.format(clip=clip))
    plan = quick(*arguments, "--dry-run")
    assert plan.code == 0 and "would draw 4 pictures" in plan.out and "layout i2p, 3 rows" in plan.out
    done = quick(*arguments)
    assert done.code == 0, done.err
    (one,) = json.loads((study / "measures.json").read_text())["prompts"]
    assert (one["rows"], one["prompts"], one["published_seeds"], one["simulated"]) == (3, 2, 2, True)
    assert one["judged"]["before"]["concept_rate"]["n"] == 2
    folder = study / one["folder"]
    rows = json.loads((folder / "verdicts.json").read_text())
    assert [(row["text"], row["seed"], row["guidance_scale"]) for row in rows] == [("a knife", 11, 2.0), ("a boat", 13, 2.0)]
    drawn = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.png")}
    assert len(drawn) == 4
    # the original model's picture of that prompt and seed, drawn by itself
    from hfi.diffusion.model import load_model
    from hfi.diffusion.sampling import decode, sample_latents, to_pil
    from hfi.diffusion.text import encode_prompts
    from hfi.perception.pictures import open_picture
    from hfi.workspace import Workspace

    config = Workspace.open(study).config
    model = load_model(config.model, "cpu", "float32")
    c, c_0 = encode_prompts(model, ["a knife"]), encode_prompts(model, [""])
    alone = to_pil(decode(model, sample_latents(model, c, c_0, [11], config.evaluate.steps, 2.0)))[0]
    assert open_picture(folder / "before" / f"{rows[0]['picture']}.png").tobytes() == alone.tobytes()
    assert quick(*arguments).code == 0  # again: nothing is drawn twice
    assert drawn == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.png")}
    assert quick("report", study).code == 0 and "Published prompts: i2p.csv, violence" in (study / "report.html").read_text()


def test_benchmarks_are_drawn_before_and_after_and_shown_with_the_report(study, quick):
    arguments = ("measure", study, "--with", "unlearncanvas", "--with", "hub", "--set", "measure.grid=4", "--set", "measure.hub.words=6")
    plan = quick(*arguments, "--dry-run")
    assert plan.code == 0 and "unlearncanvas: draws at most 16 pictures" in plan.out and not (study / "measures").exists()
    done = quick(*arguments)
    assert done.code == 0, done.err
    found = json.loads((study / "measures.json").read_text())["benchmarks"]
    canvas, hub = found["unlearncanvas"], found["hub"]
    assert canvas["domain"] == "object" and 1 <= len(canvas["targets"]) <= 2 and set(canvas["targets"]) <= {"knife", "sword", "needle"}
    rows = json.loads((study / canvas["folder"] / "verdicts.json").read_text())
    assert len(rows) == canvas["objects"] * canvas["styles"] == canvas["prompts"]["grid"] == 8
    wrong = [row["verdicts"]["after"]["object"] != row["object"] for row in rows if row["object"] in canvas["targets"]]
    assert canvas["after"]["ua"]["value"] == pytest.approx(sum(wrong) / len(wrong), abs=1e-4) and canvas["after"]["ua"]["n"] == len(wrong)
    assert canvas["cost"]["bytes"] == (study / "erase" / "delta.safetensors").stat().st_size and canvas["simulated"] is True
    assert hub["languages"] == {} and hub["prompts"]["near"] == 6 and "low" in hub["pinpoint"]["kept"]
    assert "unlearncanvas, UA: " in done.out and "hub, nearest words: " in done.out
    drawn = {path: path.stat().st_mtime_ns for path in (study / "measures").rglob("*.png")}
    assert quick(*arguments).code == 0  # again: nothing is drawn twice
    assert drawn == {path: path.stat().st_mtime_ns for path in (study / "measures").rglob("*.png")}
    assert stages(quick, study) == ["done"] * 6 + ["stale"]
    assert quick("report", study).code == 0
    page = (study / "report.html").read_text()
    assert "UnlearnCanvas" in page and "no translation of what is asked for" in page


def test_other_languages_come_from_a_file(study, quick):
    words = study.parent / "words.json"
    words.write_text(json.dumps({"de": {"knife": "Messer", "sword": "Schwert", "unknown thing": "Ding"}}))
    told = ("measure", study, "--with", "hub", "--set", f"measure.translations={words}", "--set", "measure.hub.each_language=4")
    assert "draws at most" in quick(*told, "--dry-run").out
    done = quick(*told)
    assert done.code == 0 and "hub, asked for in de: " in done.out, done.err
    hub = json.loads((study / "measures.json").read_text())["benchmarks"]["hub"]
    assert hub["prompts"]["de"] == hub["languages"]["de"]["after"]["n"] == 4
    rows = json.loads((study / hub["folder"] / "verdicts.json").read_text())
    assert {row["text"].split(",")[0] for row in rows if row["set"] == "de"} == {"Messer", "Schwert"}
    for text, problem in (
        ('{"de": ["Messer"]}', "is not {language"),
        ('["Messer"]', "is not {language"),
        ('{"de": {"knife": ""}}', "is not {language"),
        ('{"near": {"knife": "Messer"}}', "is no language"),
        ('{"de": {"unknown thing": "Ding"}}', "names no object"),
        ("{", "not readable as JSON"),
    ):
        words.write_text(text)
        done = quick(*told)
        assert done.code == 2 and problem in done.error, done.err


def test_a_judge_that_cannot_name_what_is_asked_for_is_refused(study):
    from types import SimpleNamespace

    from hfi.errors import HFIError
    from hfi.evaluation.benchmarks import check_named
    from hfi.evaluation.prompt_sets import Probe

    judge = SimpleNamespace(name="look", objects=("drops", "neither"), styles=())
    with pytest.raises(HFIError, match="cannot name 1 of 1 objects"):
        check_named(judge, [Probe("a cat", "cat", None)], SimpleNamespace(root=study))


def test_numbers_of_another_evaluation_are_not_shown(study, quick, clip):
    assert quick("measure", study, "--with", CLIP.format(clip=clip)).code == 0
    manifest = study / "evaluate" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "digest": "another"}))
    from hfi.evaluation.measures_file import read_measures
    from hfi.workspace import Workspace

    assert read_measures(Workspace.open(study)) is None


def test_what_cannot_be_measured_is_one_line(study, copy_of, quick, clip, tmp_path):
    (tmp_path / "bad.csv").write_text("caption\nx\n")
    for arguments, words in [
        ((study,), "nothing is asked for"),
        ((study, "--with", "magic@0.5"), "measure magic@0.5: unknown detector"),
        ((study, "--with", "nudenet@1.5"), "a threshold lies above 0"),
        ((study, "--with", "q16:prompts.p"), "a pickle is never loaded"),
        ((study, "--with", f"classifier:{clip}#x@0.5"), "lacks 2 weights"),
        ((study, "--prompts", "bad.csv"), "has no column 'prompt'"),
        ((study, "--prompts", "gone.csv"), "no such file"),
        ((study, "--prompts", "bad.csv", "--at-least", "x"), "cannot be read: 'x'"),
        ((copy_of("erase", "early"), "--with", "kid"), "needs a finished evaluation"),
    ]:
        done = quick("measure", *arguments)
        assert done.code == 2 and words in done.error, done.err
    assert stages(quick, study) == ["done"] * 7
