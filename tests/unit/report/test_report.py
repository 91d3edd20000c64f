"""The page as a reader meets it: whole, self-contained, escaped, blurred until asked, with sums that add up."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import fake_study
import pytest
from PIL import Image

from hfi.config import StudyConfig, with_overrides
from hfi.errors import HFIError
from hfi.report import gather
from hfi.report import words as advice_words
from hfi.report.report import before_after_picture, render, report
from hfi.report.settings import all_settings

VOID = {"meta", "img", "input", "br", "hr", "link"}
SVG = {"line", "circle", "path", "rect", "polyline"}


class Page(HTMLParser):
    """Elements with their attributes and text; fails on tags that do not close in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        words: list[str] = []
        self.elements.append((tag, dict(attributes), words))
        if tag not in VOID:
            self.open.append((tag, words))

    def handle_startendtag(self, tag, attributes):
        assert tag in SVG | VOID, tag
        self.elements.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop()[0] == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for _, words in self.open:
            words.append(data)

    def all(self, tag: str, **having: str) -> list[tuple[dict, str]]:
        found = ((a, " ".join("".join(w).split())) for t, a, w in self.elements if t == tag)
        return [
            (a, w)
            for a, w in found
            if all(value in (a.get(name.rstrip("_").replace("_", "-")) or "").split() for name, value in having.items())
        ]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A study in which all went well, with its page."""
    study, evaluated = fake_study.build(tmp_path_factory.mktemp("good") / "study")
    text = report(evaluated, study).read_text(encoding="utf-8")
    return study, text, Page(text)


def page_of(tmp_path, **how) -> tuple[str, Page]:
    study, evaluated = fake_study.build(tmp_path / "study", **{"pairs": 3, **how})
    text = report(evaluated, study).read_text(encoding="utf-8")
    return text, Page(text)


def test_loads_nothing_from_outside(good):
    _, text, page = good
    for _, attributes, _ in page.elements:
        for name in ("src", "href", "srcset", "poster", "action", "data", "data-clear", "data-blurred", "style"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (name, value)
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?://|//[a-z]+\.[a-z]", re.sub(r"data:image/[^\"]*", "", text))


def test_policy_lets_only_the_pages_own_script_and_looks_run(good):
    _, text, page = good
    policy = next(a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" in policy


def test_what_people_typed_is_escaped(tmp_path):
    nasty = '<script>alert("{o}")</script> & \'{s}\' " onload=x'
    text, page = page_of(tmp_path, prompt=nasty, settings={"name": "<img src=x onerror=alert(1)>", "label": {"guideline": "</style><b>"}})
    assert len(page.all("script")) == 1 and "<img src=x" not in text and "</style><b>" not in text
    assert any('<script>alert("' in words for _, words in page.all("span", class_="prompt"))


def test_flagged_pictures_are_blurred_until_asked_for(good):
    study, _, page = good
    flagged = [a for a, _ in page.all("img") if "data-clear" in a]
    assert len(flagged) > 20
    for attributes in flagged:
        assert attributes["src"] == attributes["data-blurred"] != attributes["data-clear"] and "blurred" in attributes["alt"]
        clear, soft = (Image.open(io.BytesIO(base64.b64decode(attributes[name].split(",")[1]))) for name in ("data-clear", "src"))
        assert clear.width >= 64 and soft.width <= 90
    # one of them, blown up to the clear one's size, keeps hardly any edge
    sharp, soft = (
        max(abs(row[i] - row[i + 1]) for row in _rows(picture.resize((64, 64))) for i in range(63))
        for picture in (_first(flagged, "data-clear"), _first(flagged, "src"))
    )
    assert soft < sharp / 3
    verdicts = [json.loads(line) for line in study.path("evaluate", "verdicts.jsonl").read_text().splitlines()]
    harmless = {row["prompt"] for row in verdicts if row["side"] != "reinversion"} - {row["prompt"] for row in verdicts if row["concept"]}
    shown = [a["alt"] for a, _ in page.all("img") if "data-clear" not in a]
    assert any(prompt in alt for prompt in harmless for alt in shown)
    assert not [alt for alt in shown if re.search(r"before erasing: (a (dagger|bomb|axe)|sharp|<weapon)", alt)]


def _first(flagged: list[dict], name: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(flagged[0][name].split(",")[1])))


def _rows(picture: Image.Image) -> list[list[int]]:
    data = list(picture.convert("L").tobytes())
    return [data[i : i + picture.width] for i in range(0, len(data), picture.width)]


def test_blur_can_be_turned_off(tmp_path, good):
    assert page_of(tmp_path, settings={"report": {"blur": False}})[1].all("button", class_="reveal-all")[0][0]["data-start"] == "clear"
    assert good[2].all("button", class_="reveal-all")[0][0]["data-start"] == "blurred"


def test_every_picture_has_words_and_every_flagged_one_is_a_button(good):
    _, _, page = good
    assert all(a.get("alt") for a, _ in page.all("img"))
    buttons = page.all("button", class_="flagged")
    assert len(buttons) == sum("data-clear" in a for a, _ in page.all("img"))
    assert all(a["aria-label"] and a["type"] == "button" and a["aria-pressed"] == "false" for a, _ in buttons)
    ((slider, _),) = [(a, w) for a, w in page.all("input") if a["type"] == "range"]
    assert slider["aria-label"]
    assert {"all", "explicit", "implicit", "variations", "tokens", "other", "neighbours"} <= {
        a["data-filter"] for a, _ in page.all("button") if "data-filter" in a
    }


def test_seconds_add_up_to_the_printed_total(good):
    study, text, _ = good
    table = text[text.index('<table class="cost"') :]
    rows = [float(value) for value in re.findall(r'<td class="n">(\d+\.\d)</td><td class="bar">', table)]
    total = float(re.search(r'<tfoot>.*?<td class="n">(\d+\.\d)</td>', table, re.S)[1])
    assert len(rows) == 7 and round(sum(rows), 1) == total
    metrics = json.loads(study.path("metrics.json").read_text())
    assert set(metrics["seconds"]) == {"generate", "label", "reward", "invert", "erase", "evaluate", "report", "total"}
    assert metrics["seconds"]["total"] == pytest.approx(sum(v for k, v in metrics["seconds"].items() if k != "total"), abs=0.006)
    assert set(metrics["peak_memory_mib"]) == set(metrics["seconds"]) - {"total"}
    assert metrics["concept_rate"] == json.loads(study.path("evaluate", "metrics.json").read_text())["concept_rate"]


def names(section: type, prefix: str = "") -> list[str]:
    """Every setting's dotted name, those of sections within sections among them."""
    found = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        found += names(inner, f"{prefix}{name}.") if hasattr(inner, "model_fields") else [f"{prefix}{name}"]
    return found


def test_every_setting_is_listed_with_value_and_source(good):
    study, _, page = good
    shown = {words for _, words in page.all("code")}
    assert set(names(StudyConfig)) <= shown
    settings = {s.name: s for group in all_settings(study.config) for s in group.settings}
    assert settings["erase.steps"].changed and settings["erase.steps"].default == "1500" and settings["erase.steps"].source == "SDD (2023)"
    assert settings["generate.images"].source == "the paper does not say" and not settings["generate.images"].changed
    assert all(setting.meaning and setting.source for setting in settings.values())


def test_simulated_judges_are_called_so(good):
    _, text, _ = good
    assert "learned from judgements by 3 simulated annotators" in text and "not by people" in text and ">simulated</strong>" in text


def test_the_page_says_who_judged():
    for counts, words in (
        ({"human": 1, "machine": 0, "simulated": 0}, "1 person"),
        ({"human": 5, "machine": 1}, "5 people and 1 machine"),
        ({"machine": 2}, "2 machines"),
        ({}, "nobody on record"),
    ):
        assert gather.judged_by({"label": {"facts": {"annotators": counts}}}) == words
    assert gather.judged_by({}) == "nobody on record"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, set()),
        ({"rate_after": 0.2}, {"drawn"}),
        ({"rate_after": 0.05}, set()),
        ({"kept": 0.85}, {"damage"}),
        ({"neither_after": 0.2}, {"damage"}),
        ({"back": 0.6}, {"back"}),
        ({"rate_after": 0.2, "kept": 0.7, "back": 0.6}, {"drawn", "damage", "back"}),
        ({"kind": "style", "floor": 0.12, "rate_after": 0.16}, set()),
        ({"kind": "style", "floor": 0.02, "rate_after": 0.16}, {"drawn"}),
        ({"bare": True}, set()),
        ({"also": 0.04}, set()),
        ({"also": 0.4}, {"also"}),
        ({"also": 0.4, "rate_after": 0.2}, {"drawn", "also"}),
    ],
)
def test_a_warning_appears_exactly_when_its_signature_holds(tmp_path, how, expected):
    text, page = page_of(tmp_path, **how)
    articles = {a["data-warning"]: words for a, words in page.all("article") if "data-warning" in a}
    assert set(articles) == expected
    assert all("Try next" in words for words in articles.values())
    assert ("Garbage is not success" in text) == (how.get("neither_after", 0) > 0.07)
    state = page.all("p", class_="state")[0][1]
    assert state.startswith("Passes") != bool(expected)


def test_the_other_concepts_of_a_run_have_their_numbers_and_pictures(tmp_path, good):
    text, page = page_of(tmp_path, also=0.4, pairs=5)
    assert "Also erased in this run" in text and "pets: asked for by name" in text and "“pets” is drawn most, 40\u202f%" in text
    ((button, words),) = [(a, w) for a, w in page.all("button") if a.get("data-filter") == "also-1"]
    assert words.startswith("Also erased: pets") and not words.endswith(" 0")
    asked = [words for a, words in page.all("li", class_="pair") if "also-1" in a["data-sets"].split()]
    assert asked and all("a cat in ink" in words for words in asked)
    assert not any("lost" in words for words in asked)  # what was to go is no loss
    blurred = [a for a, _ in page.all("img") if "before erasing: a cat in ink" in a["alt"]]
    assert blurred and all(a["src"] == a["data-blurred"] for a in blurred)
    assert "Also erased" not in good[1] and "other concepts of the run" not in good[1]


def test_advice_names_only_what_is_not_done_already():
    def advice(**changes) -> str:
        return " ".join(advice_words._back_tries(with_overrides(StudyConfig(name="s"), changes)))

    plain = advice()
    assert all(part in plain for part in ("--method hardened", "erase.flagged_prompts", "invert.tokens: per_cluster"))
    done = advice(**{"erase.method": "hardened", "erase.flagged_prompts": 0.5, "invert.tokens": "per_cluster"})
    assert not any(part in done for part in ("--method hardened", "erase.flagged_prompts", "per_cluster"))
    assert "invert.vectors" in done
    assert "per_cluster" not in advice(**{"concept.kind": "style", "concept.name": "noto"})


def test_the_rounds_of_hardening_are_drawn_with_their_strongest_attack():
    figures = zip((0.9, 0.1, 0.1), (0.04, 0.05, 0.2), (1.0, 0.75, 0.5), strict=True)
    rounds = [{"erasure": a, "damage": b, "worst": c} for a, b, c in figures]
    drawn = gather.rounds_chart({"rounds": rounds, "kept_round": 1})
    assert "under the strongest attack from 100\u202f% to 50\u202f%" in drawn["rounds_chart"]
    assert "Round 1 was kept" in drawn["rounds_words"]
    assert "<span>0</span><span>1</span><span>2</span>" in drawn["rounds_chart"] and gather.rounds_chart({})["rounds_chart"] == ""


@pytest.mark.parametrize("method", ["sdd", "esd", "ca", "uce", "sld", "negative_prompt", "hardened"])
def test_advice_is_about_what_the_eraser_looks_at(method):
    config = with_overrides(StudyConfig(name="s"), {"erase.method": method})
    advice = " ".join([*advice_words._gentler(config.erase), advice_words._harder(config.erase), *advice_words._also_tries(config)])
    named = set(re.findall(r"erase\.([a-z_]+(?:\.[a-z_]+)?)", advice)) - {"flagged_prompts"}
    for name in named:
        section, _, setting = name.rpartition(".")
        found = config.erase.decisive() if method in ("sdd", "hardened") else config.erase.decisive()[method]
        assert section == ("" if method in ("sdd", "hardened") else method) and setting in found, name
    assert bool(named) == (method != "negative_prompt")


def test_the_curve_over_the_steps_is_drawn_with_its_sample_size(good, tmp_path):
    _, text, page = good
    ((figure, _),) = [(a, w) for a, w in page.all("svg") if "share of pictures over step" in (a.get("aria-label") or "")]
    assert "draws the concept from 91\u202f%" in figure["aria-label"] and "keeps the rest from 100\u202f%" in figure["aria-label"]
    assert "24 pictures by name and 24 of other things" in text and text.count('class="spread c0"') == 6
    assert "what it draws on the way" not in page_of(tmp_path, bare=True)[0]


def test_pictures_of_snapshots_are_no_pairs_and_no_reinversion(tmp_path):
    study, evaluated = fake_study.build(tmp_path / "study", pairs=2)
    path = study.path("evaluate", "verdicts.jsonl")
    lines = path.read_text().splitlines()
    before = render(study, evaluated.folder, lambda: 1.0)
    moved = json.dumps({**json.loads(lines[0]), "side": "step-000060", "file": "step-000060/explicit0000.png"})
    path.write_text("\n".join([*lines, moved]) + "\n")
    assert render(study, evaluated.folder, lambda: 1.0).count("<img") == before.count("<img")


def test_a_style_says_its_floor(tmp_path):
    text, _ = page_of(tmp_path, kind="style", floor=0.12, rate_after=0.16)
    assert "the style “noto” appears in 16\u202f%" in text and "without the style words: 12\u202f%" in text


def test_nothing_to_erase_is_no_success(tmp_path):
    study, evaluated = fake_study.build(tmp_path / "study", pairs=2)
    path = study.path("evaluate", "metrics.json")
    metrics = json.loads(path.read_text())
    metrics["concept_rate"]["explicit"]["before"]["value"] = 0.01
    metrics["retention"] = dict.fromkeys(metrics["retention"])
    path.write_text(json.dumps(metrics))
    page = Page(render(study, evaluated.folder, lambda: 1.0))
    assert page.all("p", class_="state")[0][1].startswith("Needs a look")
    assert "there was little to erase" in page.all("aside")[0][1]


def test_parts_that_a_study_may_lack_are_left_out(tmp_path):
    text, page = page_of(tmp_path, bare=True)
    assert "nobody attacked it" in text and "None" not in re.sub(r"data:image/[^\"]*", "", text)
    assert not page.all("button", class_="sheet")


@pytest.mark.parametrize(
    ("file", "damage", "named"),
    [
        ("evaluate/metrics.json", lambda b: b[: len(b) // 2], "metrics.json"),
        ("evaluate/metrics.json", lambda b: b.replace(b'"value": 0.02', b'"value": NaN', 1), "concept_rate.explicit.after"),
        ("evaluate/metrics.json", lambda b: b.replace(b'"explicit"', b'"else"', 1), "concept_rate.explicit.after"),
        ("evaluate/metrics.json", lambda b: b.replace(b'"step": 60', b'"step": "sixty"', 1), "curve.1.step"),
        ("evaluate/verdicts.jsonl", lambda b: b[:-20], "line"),
        ("evaluate/verdicts.jsonl", lambda b: b.replace(b'"file": "before/', b'"file": "../../', 1), "line 1"),
        ("evaluate/before/explicit0000.png", lambda b: b[:60], "explicit0000.png"),
        ("erase/log.jsonl", lambda b: b.replace(b'"loss": ', b'"loss": "x', 1), "log.jsonl"),
        ("invert/losses.json", lambda b: b"[1, 2]", "losses.json"),
        ("reward/calibration.json", lambda b: b.replace(b'"predicted"', b'"foretold"', 1), "calibration.json: binary.bins.0.predicted"),
        ("label/manifest.json", lambda b: b"{}", "manifest.json"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path, file, damage, named):
    study, evaluated = fake_study.build(tmp_path / "study", pairs=2)
    path = study.path(*file.split("/"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(HFIError) as caught:
        render(study, evaluated.folder, lambda: 1.0)
    assert named in str(caught.value) and "\n" not in str(caught.value) and caught.value.remedy


def test_a_page_of_large_pictures_stays_small(tmp_path, good):
    assert len(good[1]) < 1_000_000
    text, _ = page_of(tmp_path, side=512, pairs=4)  # half of what a page shows by default
    assert len(text) < 3_000_000


def test_a_finished_report_is_kept_and_a_lost_one_written_again(tmp_path):
    study, evaluated = fake_study.build(tmp_path / "study", pairs=2)
    page = report(evaluated, study)
    page.write_text("kept")
    assert report(evaluated, study).read_text() == "kept"
    page.unlink()
    assert "<!doctype html>" in report(evaluated, study).read_text()
    study.path("metrics.json").unlink()
    report(evaluated, study)
    assert "report" in json.loads(study.path("metrics.json").read_text())["seconds"]


def test_before_after_strip(tmp_path, good):
    study = good[0]
    clear, soft = (
        before_after_picture(study, tmp_path / "a.png", pairs=6),
        before_after_picture(study, tmp_path / "b.png", pairs=6, blur=True),
    )
    with Image.open(clear) as one, Image.open(soft) as two:
        assert one.size == two.size and one.width > 6 * 128 and one.tobytes() != two.tobytes()
    again = before_after_picture(study, tmp_path / "c.png", pairs=6)
    assert again.read_bytes() == clear.read_bytes()
