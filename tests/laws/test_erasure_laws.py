"""Laws of SDD: the averages, the sources of states, the gradient, and that resuming changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch

import tiny
from hfi.config import Erase, parse_config
from hfi.diffusion.model import predict_noise
from hfi.diffusion.perturbed import second_half_perturbed
from hfi.diffusion.sampling import trajectory
from hfi.diffusion.text import encode_prompts, last_states
from hfi.erasure import erase as erase_stage
from hfi.erasure.closed_form import closed_form
from hfi.erasure.conditions import Flagged, build_conditions, in_context, of_several
from hfi.erasure.delta import applied
from hfi.erasure.ema import ConstantEMA
from hfi.erasure.erase import erase
from hfi.erasure.latents import Batch, Source, timestep_grid
from hfi.erasure.loop import Benign, learning_rate
from hfi.erasure.objective import beta_fractions, drift, sdd_loss
from hfi.erasure.preserved import Preserved
from hfi.erasure.sdd import own_prediction, train_sdd
from hfi.erasure.trainable import cross_attention, swapped
from hfi.errors import Diverged, HFIError
from hfi.evaluation import prompt_sets
from hfi.generation.generate import generate
from hfi.workspace import Workspace, read_tensors

SMALL = {"steps": 6, "sampling_steps": 4, "batch_size": 2, "ema_decay": 0.5, "learning_rate": 1e-3, "replay_runs": 2}


@pytest.fixture
def parts(tiny_model):
    """Conditions, c_0, stored latents and benign material on the tiny pipeline."""
    draw = torch.Generator().manual_seed(0)
    tokens = {"<a>": torch.randn(2, 16, generator=draw), "<b>": torch.randn(1, 16, generator=draw)}
    conditions = build_conditions(tiny_model, tokens, ("{}", "a {}"), [Flagged("a knife"), Flagged("a sword")], 0.5)
    latents = torch.randn(5, 4, 4, 4, generator=draw)
    benign = Benign(latents, encode_prompts(tiny_model, ["cat", "dog", "sun", "moon", "tree"]))
    return conditions, encode_prompts(tiny_model, [""]), latents, benign


def run(model, parts, **changes):
    return train_sdd(model, *parts, Erase(**{**SMALL, **changes}), seed=1).weights


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def test_a_decay_of_one_never_moves_the_teacher():
    weights = {"w": torch.randn(100)}
    teacher = ConstantEMA(weights, 1.0)
    for _ in range(50):
        teacher.update({"w": torch.randn(100) * 1e3})
    assert torch.equal(teacher.values["w"], weights["w"])


def test_the_average_is_the_closed_form_of_a_constant_decay():
    history = torch.randn(30, 4, dtype=torch.float64)
    teacher = ConstantEMA({"w": history[0]}, 0.9)
    for row in history[1:]:
        teacher.update({"w": row})
    expected = 0.9**29 * history[0] + sum(0.1 * 0.9 ** (29 - k) * history[k] for k in range(1, 30))
    torch.testing.assert_close(teacher.values["w"], expected)


def test_one_gradient_step_equals_the_one_derived_by_hand():
    # eps_theta(c) = a c + b; L = mean (a c_s + b - sg(a c_0 + b))^2, so dL/da = 2 c_s a (c_s - c_0), dL/db = 2 a (c_s - c_0)
    a, b = torch.tensor(0.7, requires_grad=True), torch.tensor(-0.2, requires_grad=True)
    c_s, c_0 = 1.5, 0.5
    sdd_loss(a * torch.tensor([c_s]) + b, a * torch.tensor([c_0]) + b).backward()
    assert float(a.grad) == pytest.approx(2 * c_s * 0.7 * (c_s - c_0))
    assert float(b.grad) == pytest.approx(2 * 0.7 * (c_s - c_0))


def test_timesteps_follow_the_beta_law():
    draws = beta_fractions(200_000, (3.0, 3.0), numpy.random.default_rng(0)).numpy()
    assert draws.min() >= 0 and draws.max() < 1
    assert draws.mean() == pytest.approx(0.5, abs=0.003)
    assert draws.var() == pytest.approx(9 / (36 * 7), abs=0.001)  # ab / ((a+b)^2 (a+b+1))


@pytest.mark.parametrize("latents", ["teacher", "replay", "forward", "mix"])
def test_resuming_equals_not_stopping_bit_for_bit(tiny_model, parts, latents):
    settings = {"latents": latents, "redraw": 0.5, "preservation": 1.0, "preservation_runs": 0.5, "warmup": 4}
    settings |= {"start": "closed_form", "negative_guidance": 0.3, "pag_scale": 0.5}
    whole = run(tiny_model, parts, **settings)
    saved = {}

    def keep(done, checkpoint):
        if done == 3:
            saved.update({name: value.clone() for name, value in checkpoint().items()})
            raise KeyboardInterrupt

    config = Erase(**{**SMALL, **settings})
    with pytest.raises(KeyboardInterrupt):
        train_sdd(tiny_model, *parts, config, seed=1, on_step=keep)
    assert int(saved["done"]) == 3
    assert equal(train_sdd(tiny_model, *parts, config, seed=1, resume=saved).weights, whole)


def test_resumed_snapshots_equal_uninterrupted_ones_bit_for_bit(tiny_model, parts):
    config, whole, broken, saved = Erase(**{**SMALL, "snapshots": 2}), {}, {}, {}
    train_sdd(tiny_model, *parts, config, seed=1, on_snapshot=whole.__setitem__)

    def stop(done, checkpoint):
        if done == 3:  # the checkpoint is older than the last snapshot, which is therefore made again
            saved.update({name: value.clone() for name, value in checkpoint().items()})
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sdd(tiny_model, *parts, config, seed=1, on_step=stop, on_snapshot=broken.__setitem__)
    first = dict(broken)
    train_sdd(tiny_model, *parts, config, seed=1, resume=saved, on_snapshot=broken.__setitem__)
    assert list(whole) == list(broken) == [2, 4] and all(equal(whole[step], broken[step]) for step in whole)
    assert equal(first[4], broken[4])


def test_a_snapshot_is_the_delta_of_a_shorter_run_and_changes_nothing(tiny_model, parts):
    kept = {}
    delta = train_sdd(tiny_model, *parts, Erase(**{**SMALL, "snapshots": 2}), seed=1, on_snapshot=kept.__setitem__).weights
    assert equal(delta, run(tiny_model, parts, snapshots=0))
    assert equal(kept[4], run(tiny_model, parts, steps=4)) and not equal(kept[2], kept[4])


@pytest.mark.parametrize("stop_at", [0, 1, 2])
def test_a_stopped_stage_leaves_the_same_files(tiny_root, tiny_model, tmp_path, monkeypatch, stop_at):
    """Stopped just before it writes a snapshot or the delta, and continued from its checkpoint: every tensor file is the same."""
    settings = tiny.study_settings(tiny_root)
    settings["erase"] |= {"steps": 6, "checkpoint_seconds": 1e-6}

    def erased(name: str) -> Path:
        study = Workspace.create(tmp_path / name, parse_config(settings, "tiny"))
        images = generate(tiny_model, study)
        for stage in ("label", "reward", "invert"):
            if not study.is_done(stage):
                with study.stage(stage) as run:
                    run.path("made-up.txt").write_text("made up")
        chosen = [SimpleNamespace(image_id=image.id) for image in images.images[:4]]
        flagged, scores = [one.image_id for one in chosen], {image.id: 0.1 for image in images.images}
        reward = SimpleNamespace(selected=chosen, flagged=flagged, scores=scores, words=("cat",), kept_words=("dog",))
        tokens = SimpleNamespace(tokens={"<sharp>": tiny_model.text_encoder.get_input_embeddings().weight[[40, 50]].detach().clone()})
        assert list(erase(tiny_model, images, reward, tokens, study).snapshots) == [2, 4]
        return study.path("erase")

    whole, real, calls = erased("whole"), erase_stage.save_delta, []

    def stopping(*arguments):
        calls.append(arguments[0].name)
        if len(calls) == stop_at + 1:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(erase_stage, "save_delta", stopping)
    with pytest.raises(KeyboardInterrupt):
        erased("broken")
    broken = erased("broken")
    assert calls[stop_at] == calls[stop_at + 1] and len(calls) == 4  # it went on where it was stopped
    one, other = ({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")} for folder in (whole, broken))
    assert one == other and len(one) == 3
    snapshot = read_tensors(whole / "snapshots" / "step-000004.safetensors")
    assert {value.dtype for value in snapshot.values()} == {torch.float16}


def test_what_is_kept_is_what_nobody_flagged_and_most_of_all_what_comes_near(tiny_model):
    """Eight benign pictures, one of them flagged: seven are kept, and the quarter (one) of the highest reward counts thrice."""
    kept = [SimpleNamespace(id=f"im{k}", index=k, purpose="benign", prompt=["cat", "dog"][k % 2], style=None) for k in range(8)]
    concept = SimpleNamespace(id="im8", index=8, purpose="concept", prompt="axe", style=None)
    latents = torch.arange(9.0).view(9, 1, 1, 1)
    images = SimpleNamespace(images=[*kept, concept], latents=lambda: latents)
    reward = SimpleNamespace(flagged=("im8", "im3"), scores={f"im{k}": k / 10 for k in range(9)}, kept_words=())
    found = erase_stage.benign_material(tiny_model, images, reward, Erase(near_copies=2), seed=1)
    assert found.latents.flatten().tolist() == [0, 1, 2, 4, 5, 6, 7, 7, 7]
    assert torch.equal(found.c, encode_prompts(tiny_model, [["cat", "dog"][int(k) % 2] for k in found.latents.flatten()]))


def test_benign_prompts_are_kept_in_other_styles_too(tiny_model):
    """Each picture's prompt in styles that other benign prompts name, never its own, on its own latent; without styles nothing is added."""
    styles = ["ink", None, "oil", "ink"]
    told = ["cat" + (f" in the style of {style}" if style else "") for style in styles]
    kept = [SimpleNamespace(id=f"im{k}", index=k, purpose="benign", style=styles[k], prompt=told[k]) for k in range(4)]
    images = SimpleNamespace(images=kept, latents=lambda: torch.arange(4.0).view(4, 1, 1, 1))
    reward = SimpleNamespace(flagged=(), scores={f"im{k}": 0.0 for k in range(4)}, kept_words=())
    found = erase_stage.benign_material(tiny_model, images, reward, Erase(benign_styles=2, near_copies=1), seed=1)
    rest = found.latents.flatten().tolist()[5:]  # four, and the nearest once more
    assert rest == [0, 1, 1, 2, 3]
    other = {0: "oil", 2: "ink", 3: "oil"}
    for place, c in zip(rest, found.c[5:], strict=True):
        texts = [way.format("cat", style) for style in ([other[place]] if place in other else ["ink", "oil"]) for way in erase_stage.STYLED]
        assert any(torch.equal(c, one) for one in encode_prompts(tiny_model, texts))
    for one in kept:
        one.style, one.prompt = None, "cat"
    assert len(erase_stage.benign_material(tiny_model, images, reward, Erase(benign_styles=2), seed=1).c) == 4


def test_no_wording_in_which_styles_are_kept_is_one_that_scores():
    """What is kept in training must not be asked for in the words of the evaluation, or they would measure what was drilled."""
    ways = [*prompt_sets.STYLED, *(way for styled, _ in prompt_sets.VARIATIONS.values() for way in styled)]
    scoring = {way.format(a="a cat", o="cat", s="ink").lower() for way in ways}
    told = ("cat", "a cat", "a picture of a cat", "a cat in the style of oil")
    benign = [SimpleNamespace(prompt=prompt, style="oil" if "oil" in prompt else None) for prompt in told for _ in erase_stage.STYLED]
    found = {text for _, text in erase_stage.in_other_styles(benign, ["ink", "oil"], 1, seed=0)}
    assert len(found) > len(erase_stage.STYLED) and not found & scoring


def test_of_several_studies_each_keeps_what_no_other_one_flags(tiny_model, monkeypatch, tmp_path):
    """Two studies of four benign pictures: what the other's reward flags is kept by neither, nor are words read in its flagged pictures or
    flagged by its people; what they were asked about and let pass is kept."""

    @dataclass(frozen=True)
    class Reward:
        flagged: tuple
        kept_words: tuple
        words: tuple
        scores: dict

    def part(name: str, first: int, words: tuple, asked: str, kept: tuple):
        rows = [SimpleNamespace(id=f"{name}{k}", index=k, purpose="benign", prompt="cat", style=None, object="cat") for k in range(4)]
        rows.append(SimpleNamespace(id=f"{name}w", index=4, purpose="word", prompt=asked, style=None, object=asked))
        images = SimpleNamespace(images=rows, latents=lambda: torch.arange(first, first + 5.0).view(5, 1, 1, 1))
        return images, Reward((f"{name}w",) if asked == "pill" else (), kept, words, {row.id: 0.0 for row in rows}), None, "harm"

    studies = [Workspace(tmp_path / name, None) for name in "ab"]
    seen = {"a": {"a1", "b9"}, "b": {"b0", "b3"}}
    monkeypatch.setattr(erase_stage, "flagged_elsewhere", lambda images, shown, cache, others: seen[cache.parent.name])
    parts = [part("a", 0, ("knife",), "bow", ("dog", "sun", "pill")), part("b", 10, ("dog",), "pill", ("knife", "bow"))]
    found = erase_stage.benign_of_all(tiny_model, studies, parts, Erase(), 1)
    assert found.latents.flatten().tolist() == [0, 2, 3, 0, 11, 12, 11] and len(found.c) == 7  # a word stands on a picture once more
    assert torch.equal(found.c[[3, 6]], encode_prompts(tiny_model, ["a picture of a sun", "a picture of a bow"]))
    alone = erase_stage.benign_of_all(tiny_model, studies[:1], parts[:1], Erase(), 1)
    assert alone.latents.flatten().tolist()[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize(("kind", "kept"), [("style", [0, 1, 3, 4]), ("harm", [0, 1, 2])])
def test_what_another_study_erases_is_kept_in_no_wording(tiny_model, monkeypatch, tmp_path, kind, kept):
    """Study b's people flagged two of three pictures in ink, all of axes: study a keeps neither a style nor an object that b erases, and
    asks for no benign prompt in that style."""
    told = [("cat", "oil"), ("dog", "lino"), ("dog", "ink"), ("axe", "oil"), ("axe", None)]
    rows = [
        SimpleNamespace(id=f"a{k}", index=k, purpose="benign", object=o, style=s, prompt=f"{o} in the style of {s}")
        for k, (o, s) in enumerate(told)
    ]
    flagged = [("axe", "ink"), ("axe", "ink"), ("cat", "ink"), ("cat", "lino"), ("sun", None)]
    theirs = [SimpleNamespace(id=f"b{k}", index=k, purpose="concept", object=o, style=s, prompt=o) for k, (o, s) in enumerate(flagged)]
    theirs.append(SimpleNamespace(id="b9", index=5, purpose="word", object="dog", style=None, prompt="dog"))  # one word, one picture

    @dataclass(frozen=True)
    class Reward:
        flagged: tuple
        scores: dict
        kept_words: tuple = ()
        words: tuple = ()

    def part(images: list, *names: str):
        pictures = SimpleNamespace(images=images, latents=lambda: torch.arange(float(len(images))).view(-1, 1, 1, 1))
        return pictures, Reward(names, {row.id: 0.0 for row in images}), None, kind

    studies = [Workspace(tmp_path / name, None) for name in "ab"]
    monkeypatch.setattr(erase_stage, "flagged_elsewhere", lambda *_: set())
    asked = []
    monkeypatch.setattr(erase_stage, "encode_prompts", lambda model, texts: asked.extend(texts) or encode_prompts(model, texts))
    parts = [part(rows), part(theirs, "b0", "b1", "b9")]
    found = erase_stage.benign_of_all(tiny_model, studies, parts, Erase(benign_styles=5), 1)
    assert found.latents.flatten().tolist()[: len(kept)] == kept
    assert asked and (kind == "harm" or not any("ink" in text for text in asked))


def test_what_another_study_flags_is_what_its_reward_holds_for_its_concept(monkeypatch, tmp_path):
    """Its own flagged pictures have rewards 1 to 10: the bar is 2, above the lowest tenth."""
    from hfi.reward import elsewhere
    from hfi.reward.model import RewardModel

    network = RewardModel(1, ())
    with torch.no_grad():
        network.layers[0].weight.fill_(1.0)
    network.save(tmp_path, {})
    result = SimpleNamespace(folder=tmp_path, flagged=[f"f{k}" for k in range(10)], scores={f"f{k}": k + 1.0 for k in range(10)})
    monkeypatch.setattr(elsewhere.RewardResult, "load", classmethod(lambda cls, study: result))
    encoder = SimpleNamespace(images=lambda paths, cache: torch.tensor([[float(path)] for path in paths]))
    monkeypatch.setattr(elsewhere, "load_encoder", lambda source, device: encoder)
    other = SimpleNamespace(config=SimpleNamespace(reward=SimpleNamespace(encoder="x"), device="cpu"))
    images = SimpleNamespace(path=lambda image: image.id)
    shown = [SimpleNamespace(id=name) for name in ("0", "1.9", "2", "7")]
    assert elsewhere.flagged_elsewhere(images, shown, tmp_path, [other]) == {"2", "7"}
    assert elsewhere.flagged_elsewhere(images, [], tmp_path, [other]) == set() == elsewhere.flagged_elsewhere(images, shown, tmp_path, [])


@pytest.mark.parametrize(
    ("steps", "snapshots", "expected"),
    [(250, 4, (50, 100, 150, 200)), (1500, 4, (300, 600, 900, 1200)), (4, 2, (1, 3)), (2, 4, (1,)), (1, 4, ()), (250, 0, ())],
)
def test_snapshots_lie_evenly_between_the_ends(steps, snapshots, expected):
    assert Erase(steps=steps, snapshots=snapshots).snapshot_steps() == expected


def test_training_leaves_the_original_model_as_it_was(tiny_model, parts):
    before = {name: value.clone() for name, value in tiny_model.unet.state_dict().items()}
    delta = run(tiny_model, parts)
    assert max(float(value.abs().max()) for value in delta.values()) > 0
    assert equal(dict(tiny_model.unet.state_dict()), before)
    with applied(tiny_model, delta):
        changed = {name for name, value in tiny_model.unet.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(".attn2." in name for name in changed)
    assert equal(dict(tiny_model.unet.state_dict()), before)


def test_the_rate_rises_over_the_warm_up_to_where_it_would_be_without():
    plain, warm = Erase(steps=8, learning_rate=2.0, schedule="cosine"), Erase(steps=8, learning_rate=2.0, schedule="cosine", warmup=4)
    at = [learning_rate(warm, step) / learning_rate(plain, step) for step in range(8)]
    assert at == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_tensors_with_a_rate_of_their_own_move_by_it_and_the_others_as_before(tiny_model, parts):
    config = Erase(**{**SMALL, "steps": 1, "ema_decay": 0.0, "weight_decay": 0.0})
    names = sorted(cross_attention(tiny_model.network))
    plain, slower = (train_sdd(tiny_model, *parts, config, seed=1, rates=rates).weights for rates in ({}, {names[0]: 0.25}))
    torch.testing.assert_close(slower[names[0]], 0.25 * plain[names[0]])
    assert float(plain[names[0]].abs().max()) > 0 and all(torch.equal(slower[name], plain[name]) for name in names[1:])


def test_a_zero_learning_rate_in_the_limit_changes_nothing(tiny_model, parts):
    delta = run(tiny_model, parts, ema_decay=1.0)
    assert all(torch.equal(value, torch.zeros_like(value)) for value in delta.values())


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tiny_model, parts):
    """Two micro-batches of one: the loss reported is their mean, and the step is one step."""
    rows = []
    train_sdd(tiny_model, *parts, Erase(**{**SMALL, "accumulate": 2, "batch_size": 1}), seed=1, on_log=rows.append)
    assert rows[-1]["step"] == SMALL["steps"]


@pytest.mark.parametrize("latents", ["teacher", "replay", "forward"])
def test_states_lie_on_the_schedule_and_are_the_same_for_the_same_step(tiny_model, parts, latents):
    conditions, c_0, stored, _ = parts
    config = Erase(**{**SMALL, "latents": latents, "batch_size": 4})
    first, again = (Source(tiny_model, config, conditions, c_0, stored, 5).next(2) for _ in range(2))
    assert torch.equal(first.z_t, again.z_t) and torch.equal(first.t, again.t)
    assert torch.isfinite(first.z_t).all() and first.z_t.shape == (4, 4, 4, 4)
    if latents != "forward":
        assert set(first.t.tolist()) <= set(timestep_grid(tiny_model, config).tolist())


def test_replay_makes_one_set_of_runs_for_as_many_draws_as_it_has_states(tiny_model, parts, monkeypatch):
    conditions, c_0, stored, _ = parts
    source = Source(tiny_model, Erase(**{**SMALL, "latents": "replay"}), conditions, c_0, stored, 5)
    refills, refill = [], source._refill
    monkeypatch.setattr(source, "_refill", lambda *at: (refills.append(at), refill(*at)))
    for step in range(12):  # 2 runs x 4 states = 8 states = 4 batches of 2
        source.next(step)
    assert [step for step, _ in refills] == [0, 4, 8]


def test_redrawn_conditions_meet_the_same_states_and_follow_the_law_of_the_runs(tiny_model, parts):
    """Every state is the one that it would be; its condition is any, by their shares, not the one that its run served."""
    conditions, c_0, stored, _ = parts
    config = Erase(**{**SMALL, "latents": "replay", "batch_size": 2, "replay_runs": 2})

    def drawn(redraw):
        source = Source(tiny_model, config.model_copy(update={"redraw": redraw}), conditions, c_0, stored, 5)
        return [source.next(step) for step in range(400)]

    plain, half, every = drawn(0.0), drawn(0.5), drawn(1.0)
    assert all(torch.equal(a.z_t, b.z_t) and torch.equal(a.t, b.t) for a, b in zip(plain, every, strict=True))
    numbers = [torch.cat([batch.condition for batch in some]) for some in (plain, half, every)]
    assert all((one < len(conditions.texts)).all() for one in numbers)
    tokens = (numbers[2] < conditions.tokens).float().mean()
    assert float(tokens) == pytest.approx(1 - conditions.flagged_share, abs=0.06)
    same = [float((numbers[0] == one).float().mean()) for one in numbers]
    assert same[0] == 1 and same[1] > same[2] + 0.2, "half of the states keep the condition of their run"


def test_predictions_are_kept_on_states_of_benign_runs_under_the_prompt_of_each(tiny_model, parts):
    """As many as asked for, each a state of a guided run that the model of now makes; the other states are what they would be."""
    c_0, benign = parts[1], parts[3]
    config = Erase(**{**SMALL, "batch_size": 4, "preservation": 1.0})

    def kept(share):
        return Preserved(tiny_model, config.model_copy(update={"preservation_runs": share}), benign, c_0, 5)

    with torch.no_grad():
        plain, half, source = kept(0.0).next(0), kept(0.5).next(0), kept(1.0)
        assert all(torch.equal(a[2:], b[2:]) for a, b in zip(plain, half, strict=True)) and not torch.equal(half[0][:2], plain[0][:2])
        drawn = [source.next(step) for step in range(2)]  # 2 runs x 4 states = 8 states = 2 batches of 4
        first = dict(source.buffer)
        source.next(2)
    assert not torch.equal(source.buffer["z_t"], first["z_t"]), "new runs, when as many were drawn as there are states"
    alone = config.model_copy(update={"batch_size": 1, "preservation_runs": 0.5})
    with torch.no_grad():
        one, noised = (Preserved(tiny_model, more, benign, c_0, 5) for more in (alone, alone.model_copy(update={"preservation_runs": 0.0})))
        differ = [not torch.equal(one.next(step)[0], noised.next(step)[0]) for step in range(6)]
    assert differ == [False, True] * 3, "the share holds over steps where a batch is one state"
    own = first["own"][:2]
    with torch.no_grad():
        c = benign.c[own]
        runs = list(trajectory(tiny_model, first["z_t"][:2], c, c_0.expand_as(c), config.sampling_steps, config.guidance_scale))
    for z_t, t, c in drawn:
        for state, time, under in zip(z_t, t, c, strict=True):
            place = int((first["z_t"] == state).flatten(1).all(1).nonzero()[0])
            assert int(time) == runs[place // 2][0] == int(first["t"][place])
            torch.testing.assert_close(state, runs[place // 2][1][place % 2])
            assert torch.equal(under, benign.c[own[place % 2]]) or torch.equal(under, c_0[0])


def test_the_target_moves_away_from_what_the_concept_adds_to_the_rest_of_its_prompt(tiny_model):
    """eps_theta(c_0) - eta (eps(c_s) - eps(rest)), where the rest is read under the original weights: by hand, from three passes."""
    flagged = [Flagged("a cat in the style of oil", "in the style of oil")]
    conditions = build_conditions(tiny_model, {"<a>": torch.randn(1, 16)}, ("{}",), flagged, 1.0)
    trained = cross_attention(tiny_model.network)
    original = {name: parameter.data for name, parameter in trained.items()}
    student = {name: value + 0.05 * torch.randn_like(value) for name, value in original.items()}
    last = torch.tensor([len(conditions.texts) - 1])
    batch = Batch(torch.randn(1, *tiny_model.latent_shape), torch.tensor([500]), last)

    def predicted(text, weights):
        with swapped(trained, weights), torch.no_grad():
            return predict_noise(tiny_model, batch.z_t, batch.t, encode_prompts(tiny_model, [text]))

    with swapped(trained, student), torch.no_grad():
        plain = tiny.wanted(tiny_model, own_prediction(tiny_model, conditions), batch, trained, original)
        steered = tiny.wanted(tiny_model, own_prediction(tiny_model, conditions, 0.5), batch, trained, original)
    torch.testing.assert_close(plain, predicted("", student))
    added = predicted("a cat in the style of oil", original) - predicted("in the style of oil", original)
    torch.testing.assert_close(steered, plain - 0.5 * added)
    assert not torch.allclose(steered, plain)


def test_the_sharpened_target_moves_away_from_the_prediction_without_self_attention(tiny_model, parts):
    """eps_theta(c_0) + s (eps_theta(c_0) - eps^_theta(c_0)), eps^ with every self-attention returning its values as they are."""
    conditions, c_0, *_ = parts
    batch = Batch(torch.randn(2, *tiny_model.latent_shape), torch.tensor([300, 700]), torch.tensor([0, 1]))
    mine = [module for name, module in tiny_model.network.named_modules() if name.endswith("attn1")]
    assert mine
    at = batch.z_t, batch.t, c_0.expand(2, -1, -1)
    with torch.no_grad():
        plain = tiny.wanted(tiny_model, own_prediction(tiny_model, conditions), batch)
        hooks = [  # by hand: whatever attention computed, its output is what its value projection says of each place
            module.register_forward_hook(lambda self, given, _: self.to_out[0](self.to_v(given[0]))) for module in mine
        ]
        perturbed = predict_noise(tiny_model, *at)
        for hook in hooks:
            hook.remove()
        sharp = tiny.wanted(tiny_model, own_prediction(tiny_model, conditions, pag_scale=0.5), batch)
        torch.testing.assert_close(sharp, plain + 0.5 * (plain - perturbed))
        assert not torch.allclose(perturbed, plain)
        assert torch.equal(predict_noise(tiny_model, *at), plain), "attention is what it was"


def test_switching_self_attention_off_ends_with_the_block_whatever_happens(tiny_model):
    before = dict(tiny_model.network.attn_processors)
    with pytest.raises(KeyboardInterrupt), second_half_perturbed(tiny_model.network):
        changed = {name for name, one in tiny_model.network.attn_processors.items() if one is not before[name]}
        raise KeyboardInterrupt
    assert changed and all("attn1" in name for name in changed)
    assert tiny_model.network.attn_processors == before


def test_no_redrawing_and_no_steering_is_the_data_of_before_they_could_be_asked_for():
    assert "negative_guidance" not in Erase().decisive() and Erase(negative_guidance=0.5).decisive()["negative_guidance"] == 0.5
    assert "keep_rest" not in Erase().decisive() and Erase(keep_rest=True).decisive()["keep_rest"] is True
    assert "pag_scale" not in Erase().decisive() and Erase(pag_scale=0.5).decisive()["pag_scale"] == 0.5
    assert "redraw" not in Erase().decisive() and Erase(redraw=0.5).decisive()["redraw"] == 0.5
    assert "redraw" not in Erase(method="esd").decisive()["esd"]
    for name, value in {"preservation_runs": 0.5, "warmup": 30}.items():
        assert name not in Erase().decisive() and Erase(**{name: value}).decisive()[name] == value


def test_the_drift_of_an_unchanged_model_is_zero():
    same = torch.randn(3, 4)
    assert drift(same, same) == 0.0


def test_nan_stops_the_run_and_restores_the_model(tiny_model, parts):
    conditions, c_0, stored, benign = parts
    before = {name: value.clone() for name, value in tiny_model.unet.state_dict().items()}
    with pytest.raises(Diverged, match="learning_rate.*NaN"):
        train_sdd(tiny_model, conditions, c_0, stored * float("nan"), benign, Erase(**{**SMALL, "latents": "forward"}), seed=1)
    assert equal(dict(tiny_model.unet.state_dict()), before)


def test_a_delta_of_another_model_is_refused_by_name(tiny_model):
    name = next(iter(cross_attention(tiny_model.unet)))
    with pytest.raises(HFIError, match=name), applied(tiny_model, {name: torch.zeros(3, 3)}):
        pass
    with pytest.raises(HFIError, match="elsewhere"), applied(tiny_model, {"elsewhere": torch.zeros(1)}):
        pass


def test_erasing_several_concepts_draws_from_all_of_them(parts):
    conditions = parts[0]
    drawn = set(conditions.draw(500, numpy.random.default_rng(0)).tolist())
    assert drawn == set(range(len(conditions.texts)))
    assert conditions.texts[:4] == ("<a>", "a <a>", "<b>", "a <b>")


@pytest.fixture
def of_two(tiny_model):
    """A harm of three tokens and twenty flagged prompts, and a style of one token and two."""
    harm = {f"<{name}>": torch.randn(1, 16) for name in "abc"}
    flagged = [Flagged("a knife in the style of noto", "in the style of noto")] * 20
    style = [Flagged("a cat in the style of ink", "a cat", "style")] * 2
    alone = [
        build_conditions(tiny_model, harm, ("{}", "a {}"), flagged, 0.5),
        build_conditions(tiny_model, {"<ink>": torch.randn(1, 16)}, ("{}",), style, 0.5),
    ]
    return alone, of_several(alone, alone[0].together)


def test_of_several_concepts_each_is_met_as_often_as_any_other(of_two):
    (harm, style), both = of_two
    assert both.texts == (*harm.texts[:9], "<ink>", *harm.texts[9:], "a cat in the style of ink", "a cat in the style of ink",
                          "a cat in the style of <ink>", "a cat in the style of <ink>")  # fmt: skip
    for name in ("c", "target", "reading", "end", "reading_end"):
        mine = [getattr(one, name) for one in (harm, style)]
        assert torch.equal(getattr(both, name), torch.cat([mine[0][:9], mine[1][:1], mine[0][9:], mine[1][1:]]))
    drawn = both.draw(8000, numpy.random.default_rng(0))
    counts = torch.bincount(drawn, minlength=len(both.texts)) / 8000
    assert counts[:9].sum() == pytest.approx(0.25, abs=0.02) and counts[10:30].sum() == pytest.approx(0.25, abs=0.02)
    assert counts[9] == pytest.approx(0.25, abs=0.02) and counts[30:].sum() == pytest.approx(0.25, abs=0.02)
    assert (counts > 0).all()
    found = both.joined_by(torch.randn(4, *both.c.shape[1:]), found_share=0.5)
    of_found = found.draw(4000, numpy.random.default_rng(1)) >= len(both.texts)
    assert float(of_found.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert found.weights()[-4:].tolist() == [1.0] * 4 and len(found.weights()) == len(found.texts)


def test_what_an_attack_found_is_steered_off_a_token_of_its_own_concept(of_two):
    """Eight pictures of the harm, then three of the style: what brought a picture of the style meets the style's token alone."""
    alone, _ = of_two
    both = of_several(alone, alone[0].together, pictures=(8, 3))
    brought = (torch.tensor([0, 3]), torch.tensor([7]), torch.tensor([8]), torch.tensor([10, 9]))
    told = both.joined_by(torch.randn(4, *both.c.shape[1:]), found_share=0.5, brought=brought)
    first = len(both.texts)
    of_harm, of_style = torch.tensor([first, first + 1] * 300), torch.tensor([first + 2, first + 3] * 300)
    assert set(told.token_of(of_harm, numpy.random.default_rng(0)).tolist()) == set(range(9))
    assert set(told.token_of(of_style, numpy.random.default_rng(0)).tolist()) == {9}


@pytest.mark.parametrize("places", [(), (5,)])
def test_a_closed_form_in_parts_is_the_whole(monkeypatch, places):
    """Numbers of any size: no sum depends on how many conditions are held at a time."""
    draw = torch.Generator().manual_seed(0)
    c_s, target, kept = (torch.randn(count, *places, 16, generator=draw) for count in (9, 9, 7))
    weights, importance = {"x.to_v.weight": torch.randn(3, 16, generator=draw)}, torch.rand(9, generator=draw)
    whole = closed_form(weights, c_s, target, kept, importance=importance)["x.to_v.weight"]
    monkeypatch.setattr("hfi.erasure.closed_form.PART", 2 * c_s[0].numel())
    torch.testing.assert_close(closed_form(weights, c_s, target, kept, importance=importance)["x.to_v.weight"], whole)


def test_of_several_concepts_each_weighs_as_much_in_a_closed_form(of_two):
    """As a harm would whose conditions came as often as those of the style: 29 times five and 5 times 29."""
    (harm, style), both = of_two
    assert harm.weights() is None
    draw = torch.Generator().manual_seed(0)
    weights = {"x.to_k.weight": torch.randn(5, both.c.shape[-1], generator=draw)}
    kept = torch.randn(7, *both.c.shape[1:], generator=draw)
    once = closed_form(weights, both.c, both.target, kept, importance=both.weights())
    often = [torch.cat([getattr(harm, name)] * 5 + [getattr(style, name)] * 29) for name in ("c", "target")]
    repeated = closed_form(weights, *often, kept, ridge=1e-3 * float(both.c.double().square().mean()))
    torch.testing.assert_close(once["x.to_k.weight"], repeated["x.to_k.weight"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(once["x.to_k.weight"], closed_form(weights, both.c, both.target, kept)["x.to_k.weight"], rtol=1e-4)


def test_the_conditions_of_two_studies_stay_apart(tiny_model, tmp_path):
    """No harm's token in a style's prompt, no style's token in a harm's, nothing left of a knife in ink, and words by study."""

    def part(kind: str, *told: tuple[str, str, str]):
        names = ("object", "style", "without")
        shown = [
            SimpleNamespace(
                id=str(k), index=k, purpose="concept", prompt=f"a {one[0]} in the style of {one[1]}", **dict(zip(names, one, strict=True))
            )
            for k, one in enumerate(told)
        ]
        images = SimpleNamespace(images=shown, latents=lambda: torch.zeros(len(shown), 1))
        reward = SimpleNamespace(flagged=[image.id for image in shown], selected=[SimpleNamespace(image_id="0")], words=())
        return images, reward, SimpleNamespace(tokens={f"<{kind}>": torch.randn(1, 16)}), kind

    noto, ink = ("knife", "noto", "in the style of noto"), ("knife", "ink", "in the style of ink")
    parts = [part("harm", noto, ink), part("style", ("cat", "ink", "a cat"), ("knife", "ink", "a knife"))]
    config = SimpleNamespace(concept=SimpleNamespace(words=(), name="ink", vocabulary="emoji"))
    studies = [Workspace(tmp_path / name, config) for name in "ab"]
    settings = Erase(templates=("{}",), flagged_prompts=0.5)
    found = erase_stage.conditions_of_all(tiny_model, studies, parts, settings, 1)
    knives = ("a knife in the style of noto", "a knife in the style of ink")
    inks = ("a cat in the style of ink", knives[1], "a cat in the style of <style>")
    assert found.texts == ("<harm>", "a <harm> in the style of noto", "<style>", *knives, *inks) and found.concepts == ((2, 2), (1, 3))
    assert torch.equal(found.reading, encode_prompts(tiny_model, ["", noto[2], "", noto[2], "", "a cat", "", "a cat"]))
    twice = erase_stage.conditions_of_all(tiny_model, studies, [parts[0], parts[0]], settings, 1)  # a second study of the same harm
    assert torch.equal(twice.reading[-2:], encode_prompts(tiny_model, [noto[2], ink[2]]))
    alone = erase_stage.conditions_of_all(tiny_model, studies[:1], parts[:1], settings, 1)
    assert alone.texts == ("<harm>", *(f"a <harm> in the style of {s}" for s in ("ink", "noto")), *knives) and not alone.concepts
    worded = settings.model_copy(update={"concept": "words", "words": ("knife",), "flagged_prompts": 0.0})
    assert erase_stage.conditions_of_all(tiny_model, studies, parts, worded, 1).texts == ("knife", "ink")


def test_what_attacks_found_has_a_share_of_its_own_however_many_conditions_there_are(tiny_model):
    tokens = {f"<{name}>": torch.randn(1, 16) for name in "abcdefghij"}
    conditions = build_conditions(tiny_model, tokens, ("{}", "a {}", "the {}"), [Flagged("a knife")] * 20, 0.6)
    found = torch.randn(2, *conditions.c.shape[1:])
    joined = conditions.joined_by(found[:1], found_share=0.5).joined_by(found[1:], found_share=0.5)
    assert torch.equal(joined.c[-2:], found) and joined.found == 2 and joined.tokens == conditions.tokens
    assert torch.equal(joined.target[-2:], conditions.target[:1].expand_as(found))  # to be drawn as nothing
    drawn = joined.draw(4000, numpy.random.default_rng(1))
    shares = [(drawn >= 50).float().mean(), ((drawn >= 30) & (drawn < 50)).float().mean()]
    assert shares == pytest.approx([0.5, 0.3], abs=0.03)  # found; flagged, of what is left
    none = joined.joined_by(found, found_share=0.0)
    assert torch.equal(conditions.draw(9, numpy.random.default_rng(1)), none.draw(9, numpy.random.default_rng(1)))


def test_what_still_learns_has_a_share_of_its_own_however_much_was_found_before(parts):
    conditions = parts[0]
    found = torch.randn(30, *conditions.c.shape[1:])
    told = conditions.joined_by(found, found_share=0.5, live=2, live_share=0.4)
    drawn, last = told.draw(4000, numpy.random.default_rng(1)), len(told.texts) - 2
    of_found = drawn[drawn >= len(conditions.texts)]
    assert len(of_found) / 4000 == pytest.approx(0.5, abs=0.03)
    assert float((of_found >= last).float().mean()) == pytest.approx(0.4 + 0.6 * 2 / 30, abs=0.03)
    assert set(of_found.tolist()) == set(range(len(conditions.texts), len(told.texts)))
    first, second = (float((of_found == last + one).float().mean()) for one in (0, 1))
    assert first == pytest.approx(second, abs=0.05)
    told = conditions.joined_by(found, found_share=1.0, live=2, live_share=1.0, met=(0.9, 0.1))  # one draws the concept, one hardly does
    assert float((told.draw(4000, numpy.random.default_rng(1)) == last).float().mean()) == pytest.approx(0.9, abs=0.03)


def test_targets_are_the_empty_prompt_unless_the_prompt_says_more_than_the_concept(tiny_model):
    tokens = {"<ink>": torch.randn(1, 16)}
    flagged = [Flagged("a cat in the style of ink", "a cat", "style"), Flagged("ink", kind="style")]
    conditions = build_conditions(tiny_model, tokens, ("{}",), flagged, 0.5)
    assert conditions.texts == ("<ink>", "a cat in the style of ink", "ink", "a cat in the style of <ink>")
    assert conditions.tokens == 1
    assert torch.equal(conditions.target, encode_prompts(tiny_model, ["", "a cat", "", "a cat"]))
    # UCE edits the states of last words: here that is the style, which is to be read as nothing and not as the cat
    assert torch.equal(conditions.reading_end, last_states(tiny_model, [""] * 4))


def test_a_harms_style_stays_in_the_reading_and_comes_with_each_token(tiny_model):
    tokens = {"<a>": torch.randn(1, 16), "<b>": torch.randn(1, 16)}
    flagged = [Flagged("a knife in the style of noto", "in the style of noto"), Flagged("a sword")] * 2
    conditions = build_conditions(tiny_model, tokens, ("{}",), flagged, 0.5)
    styled = ("a <a> in the style of noto", "a <b> in the style of noto")
    assert conditions.texts == ("<a>", "<b>", *styled, *(one.prompt for one in flagged))
    assert torch.equal(conditions.target, encode_prompts(tiny_model, [""] * 8))
    rest = "in the style of noto"
    assert torch.equal(conditions.reading, encode_prompts(tiny_model, ["", "", rest, rest, rest, "", rest, ""]))
    assert torch.equal(conditions.reading_end, last_states(tiny_model, ["", "", rest, rest, rest, "", rest, ""]))
    kept = build_conditions(tiny_model, tokens, ("{}",), flagged, 0.5, keep_rest=True)
    assert kept.texts == conditions.texts and torch.equal(kept.target, conditions.reading) and torch.equal(kept.reading, conditions.reading)


def test_the_closed_form_reads_the_concept_as_its_target_and_the_rest_as_ever():
    """As many states as the width has room for: then both wishes can be met; where they meet, `preservation` decides."""
    draw = torch.Generator().manual_seed(0)
    states = torch.linalg.qr(torch.randn(8, 8, generator=draw, dtype=torch.float64))[0]
    c_s, kept, target = states[:3].unsqueeze(0), states[3:].unsqueeze(0), torch.randn(1, 3, 8, generator=draw, dtype=torch.float64)
    weights = {"x.to_k.weight": torch.randn(5, 8, generator=draw, dtype=torch.float64), "x.to_q.weight": torch.randn(8, 8)}
    found = closed_form(weights, c_s, target, kept)
    assert list(found) == ["x.to_k.weight"]  # queries do not read the text
    old, new = weights["x.to_k.weight"], found["x.to_k.weight"]
    torch.testing.assert_close(c_s @ new.T, target @ old.T, rtol=0, atol=2e-2)  # the ridge holds a little
    torch.testing.assert_close(kept @ new.T, kept @ old.T, rtol=0, atol=1e-6)
    same = closed_form(weights, c_s, c_s, kept)
    torch.testing.assert_close(same["x.to_k.weight"], old)
    torn = [closed_form(weights, c_s, target, c_s, weight)["x.to_k.weight"] for weight in (0.01, 1.0, 100.0)]
    moved = [float((c_s @ (value - old).T).norm()) for value in torn]
    assert moved[0] > moved[1] > moved[2]
    assert closed_form(weights, c_s, target, torch.empty(0))["x.to_k.weight"].isfinite().all()


def test_steps_begin_at_the_closed_form_where_asked(tiny_model, parts):
    conditions, _, _, benign = parts
    weights = {name: value.detach().clone() for name, value in cross_attention(tiny_model.unet).items()}
    fresh = closed_form(weights, conditions.c, conditions.reading, benign.c)
    delta = run(tiny_model, parts, start="closed_form", steps=1, learning_rate=1e-12, ema_decay=1.0)
    for name, value in delta.items():
        torch.testing.assert_close(value, fresh.get(name, weights[name]) - weights[name], rtol=0, atol=1e-6)


def test_the_last_edit_is_the_closed_form_of_what_the_steps_left(tiny_model, parts):
    """It starts from the stepped weights, and what it does not edit stays as the steps left it."""
    conditions, _, _, benign = parts
    weights = {name: value.detach().clone() for name, value in cross_attention(tiny_model.unet).items()}
    stepped = run(tiny_model, parts, steps=3)
    left = {name: weights[name] + change for name, change in stepped.items()}
    last = closed_form(left, conditions.c, conditions.reading, benign.c, 2.0)
    found = run(tiny_model, parts, steps=3, finish="closed_form", finish_preservation=2.0)
    assert found.keys() == stepped.keys() and any(not torch.equal(found[name], stepped[name]) for name in last)
    for name, value in found.items():
        torch.testing.assert_close(value, last.get(name, left[name]) - weights[name], rtol=0, atol=1e-6)


def test_company_is_the_same_on_both_sides_and_no_part_of_what_is_forgotten(tiny_model):
    """A prompt between random words is taught the prediction of those words alone; the same seed gives the same words."""
    pairs = [("a knife", ""), ("a cat in the style of noto", "a cat")]
    found = in_context(tiny_model, pairs, 3, 7, "x")
    assert found == in_context(tiny_model, pairs, 3, 7, "x") != in_context(tiny_model, pairs, 3, 8, "x")
    assert len(found) == 6
    for (text, target), (prompt, kept) in zip(found, [pair for pair in pairs for _ in range(3)], strict=True):
        assert text != prompt
        assert (text.replace(prompt, kept, 1)).split() == target.split()
    tokens = {"<a>": torch.randn(2, 16)}
    conditions = build_conditions(tiny_model, tokens, ("{}", "a {}"), [Flagged("a knife")], 0.5, context_variants=2)
    assert conditions.tokens == 6 and len(conditions.texts) == 9
    assert all("<a>" in text for text in conditions.texts[:6]) and not any("<a>" in text for text in conditions.texts[6:])


def test_without_flagged_prompts_only_soft_tokens_are_erased(tiny_model):
    conditions = build_conditions(tiny_model, {"<a>": torch.randn(1, 16)}, ("{}", "a {}"), [Flagged("a knife")], 0.0)
    assert conditions.texts == ("<a>", "a <a>")
