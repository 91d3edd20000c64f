"""Laws of the attacks: what each optimises gets better, nothing depends on interruptions or batches, and searches keep their best."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from hfi.attacks import embedding, noise, p4d, reinversion, ringabell, stored, unlearndiffatk
from hfi.attacks.budget import METHODS, looks_of, passes, read_prompts, spread, timesteps_of, variants
from hfi.attacks.found import Learner, Look, Run, Target
from hfi.attacks.persistence import fine_tune
from hfi.attacks.words import nearest, prompt_ids, sequence, words
from hfi.config import (
    Attack,
    EmbeddingAttack,
    NoiseAttack,
    P4DAttack,
    Persist,
    ReinversionAttack,
    RingABellAttack,
    StoredAttack,
    StudyConfig,
)
from hfi.config import UnlearnDiffAttack as UDA
from hfi.diffusion.model import predict_noise
from hfi.diffusion.sampling import initial_noise, noised_start, sample_latents, trajectory
from hfi.diffusion.text import embedding_table, encode_prompts, token_ids
from hfi.errors import HFIError
from hfi.evaluation.attack_table import summary
from hfi.evaluation.attacks import joined, load_found, plan_pictures, predictions_now, save_found
from hfi.workspace import read_tensors

SMALL = {
    "unlearndiffatk": UDA(tokens=2, timesteps=3, iterations=2, tries=3),
    "p4d": P4DAttack(tokens=3, every=2, steps=5, look_every=2),
    "ringabell": RingABellAttack(tokens=4, population=8, generations=6, pairs=2),
    "embedding": EmbeddingAttack(steps=5, batch_size=2),
    "reinversion": ReinversionAttack(vectors=(1, 2), steps=4, batch_size=2),
}
ATTACKS = {
    "unlearndiffatk": unlearndiffatk.attack,
    "p4d": p4d.attack,
    "ringabell": ringabell.attack,
    "embedding": embedding.attack,
    "reinversion": reinversion.attack,
}


@pytest.fixture
def target(tiny_model) -> Target:
    """Three made-up pictures; "the original" is the tiny model as it is when the test begins."""
    prompts = ("a knife", "sword", "a needle, ink")
    return Target(
        latents=torch.randn(3, *tiny_model.latent_shape, generator=torch.Generator().manual_seed(0)),
        prompts=prompts,
        seeds=(5, 6, 7),
        numbers=(0, 1, 2),
        pairs=(("a knife", "a"), ("ink sword", "ink"), ("needle", "")),
        original=predictions_now(tiny_model, encode_prompts(tiny_model, prompts)),
    )


@pytest.fixture
def hurt(tiny_model):
    """The tiny model with other cross-attention, as if something had been erased."""
    draw = torch.Generator().manual_seed(1)
    for name, parameter in tiny_model.unet.named_parameters():
        if ".attn2." in name:
            parameter.data = parameter.data + 0.3 * torch.randn(parameter.shape, generator=draw)
    return tiny_model


def same(a, b) -> bool:
    return torch.equal(a.c, b.c) and (a.texts, a.owners, a.final, a.losses, a.queries) == (b.texts, b.owners, b.final, b.losses, b.queries)


@pytest.mark.parametrize("name", ATTACKS)
def test_resuming_equals_not_stopping_bit_for_bit(hurt, target, tmp_path, name):
    """Checkpoints after every step; stopped in the middle, and begun again from the file."""
    whole = ATTACKS[name](hurt, target, SMALL[name], 3, Run())
    steps = []

    def stop(done, total, note):
        steps.append(done)
        if len(steps) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ATTACKS[name](hurt, target, SMALL[name], 3, Run(tmp_path / "state.safetensors", 0.0, stop))
    assert (tmp_path / "state.safetensors").exists()
    again = []
    run = Run(tmp_path / "state.safetensors", 0.0, lambda done, total, note: again.append(done))
    assert same(ATTACKS[name](hurt, target, SMALL[name], 3, run), whole)
    assert again[0] > 1 or name == "reinversion" and again[0] > 0  # it did not begin from nothing


@pytest.mark.parametrize("name", ATTACKS)
def test_another_seed_finds_something_else_and_the_same_seed_the_same(hurt, target, name):
    first, again, other = (ATTACKS[name](hurt, target, SMALL[name], seed, Run()) for seed in (3, 3, 4))
    assert same(first, again) and not torch.equal(first.c, other.c)


@pytest.mark.parametrize("name", ["unlearndiffatk", "p4d", "ringabell", "embedding"])
def test_a_target_is_attacked_the_same_in_any_batch(hurt, target, name):
    together = ATTACKS[name](hurt, target, SMALL[name], 3, Run())
    parts = joined([ATTACKS[name](hurt, target.part(k, end), SMALL[name], 3, Run()) for k, end in ((0, 1), (1, 3))])
    order = lambda found: sorted(range(len(found.texts)), key=lambda i: (found.owners[i], not found.final[i]))  # noqa: E731
    a, b = order(together), order(parts)
    assert [together.texts[i] for i in a] == [parts.texts[i] for i in b]
    torch.testing.assert_close(together.c[a], parts.c[b], rtol=1e-4, atol=1e-4)
    if name != "ringabell":  # the pairs' encodings are counted in every batch
        assert together.queries == parts.queries


def test_the_plan_tells_the_passes_that_are_counted(hurt, target):
    config = Attack(**SMALL)
    for name in ("unlearndiffatk", "p4d", "embedding"):
        found = ATTACKS[name](hurt, target, SMALL[name], 3, Run())
        assert found.queries == passes(name, config, len(target), hurt.timesteps)
    assert reinversion.attack(hurt, target, SMALL["reinversion"], 3, Run()).queries == passes("reinversion", config, 3)
    sure = RingABellAttack(tokens=4, population=8, generations=6, pairs=2, crossover=1.0, mutation=0.0)
    assert ringabell.attack(hurt, target, sure, 3, Run()).queries == passes("ringabell", Attack(ringabell=sure), 3)


def test_the_forwards_of_the_network_are_the_queries(hurt, target, monkeypatch):
    seen = []
    hook = hurt.unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    for name in ("unlearndiffatk", "p4d", "embedding", "reinversion"):
        seen.clear()
        found = ATTACKS[name](hurt, target, SMALL[name], 3, Run())
        assert sum(seen) == found.queries["unet"] + found.queries.get("original", 0), name
    hook.remove()


def test_what_is_found_predicts_better_than_the_start(hurt, target):
    found = p4d.attack(hurt, target, P4DAttack(tokens=3, steps=60, look_every=5), 3, Run())
    assert all(last < first for first, last in found.losses)
    found = embedding.attack(hurt, target, EmbeddingAttack(steps=40, batch_size=4, learning_rate=0.05), 3, Run())
    assert all(last < first for first, last in found.losses)
    found = ringabell.attack(hurt, target, RingABellAttack(tokens=6, population=20, generations=25), 3, Run())
    assert all(last < first for first, last in found.losses)


def test_unlearndiffatk_keeps_the_prompt_of_the_lowest_loss(hurt, target):
    found = unlearndiffatk.attack(hurt, target, UDA(tokens=4, timesteps=4, iterations=2, tries=4), 3, Run())
    look, best = Look(hurt, target, 3), [last for _, last in found.losses]
    assert found.final == (True,) * 3 + (False,) * 9 and found.texts[0].endswith("a knife")
    assert look(found.c[:3]).tolist() == pytest.approx(best, rel=1e-4)
    for others in found.c[3:].view(3, 3, *found.c.shape[1:]).transpose(0, 1):
        assert all(other >= least - 1e-6 for other, least in zip(look(others).tolist(), best, strict=True))
    alone = unlearndiffatk.attack(hurt, target, UDA(tokens=4, timesteps=4, iterations=2, tries=0), 3, Run())
    assert torch.equal(alone.c, found.c[:3])


def test_unlearndiffatk_descends_the_denoising_loss(hurt, target):
    """With one timestep and many steps, the loss at that timestep under the found prefix is below that of random prefixes on average."""
    config = UDA(tokens=6, timesteps=1, iterations=60, learning_rate=0.1, weight_decay=0.0, tries=0)
    found = unlearndiffatk.attack(hurt, target, config, 3, Run())
    look = Look(hurt, target, 3)
    found_loss, choices = look(found.c), words(hurt)
    draw = torch.Generator().manual_seed(5)
    random = []
    for _ in range(12):
        ids = [choices[torch.randint(len(choices), (6,), generator=draw)].tolist() for _ in target.prompts]
        full = torch.stack([sequence(hurt, [*row, *prompt_ids(hurt, p)]) for row, p in zip(ids, target.prompts, strict=True)])
        with torch.no_grad():
            random.append(look(hurt.text_encoder(full)[0]))
    assert float(found_loss.mean()) < float(torch.stack(random).mean())


def test_p4d_on_the_original_model_from_the_targets_own_prompt_has_loss_zero(tiny_model, target):
    start = [prompt_ids(tiny_model, prompt) for prompt in target.prompts]
    for i, ids in enumerate(start):
        config = P4DAttack(tokens=len(ids), steps=2, look_every=1)
        found = p4d.attack(tiny_model, target.part(i, i + 1), config, 3, Run(), start=[ids])
        assert found.losses == ((0.0, 0.0),)
        assert torch.equal(found.c, encode_prompts(tiny_model, [target.prompts[i]]))


def test_the_originals_predictions_stay_whatever_is_laid_over_the_model(tiny_model, target):
    from hfi.erasure.delta import applied

    c = encode_prompts(tiny_model, target.prompts)
    z_t, t = torch.randn(3, *tiny_model.latent_shape), torch.tensor([10, 500, 900])
    with torch.no_grad():
        before = predict_noise(tiny_model, z_t, t, c)
        name, weight = next((name, one) for name, one in tiny_model.unet.named_parameters() if ".attn2.to_v" in name)
        with applied(tiny_model, {name: torch.ones_like(weight)}):
            assert not torch.equal(predict_noise(tiny_model, z_t, t, c), before)
            assert torch.equal(target.original(z_t, t, [0, 1, 2]), before)
    assert torch.equal(target.part(1, 3).original(z_t[1:], t[1:], [0, 1]), target.original(z_t[1:], t[1:], [1, 2]))


def test_variant_k_keeps_the_prompts_own_tokens_in_order():
    config = P4DAttack(every=3)
    assert p4d.frame([7, 8, 9, 10], config, "k", 30) == [None, 7, 8, 9, None, 10]  # len // 3 + 1 learned ones
    assert p4d.frame([7, 8, 9], config, "k", 30) == [None, 7, 8, 9, None]
    assert p4d.frame([7, 8, 9], config, "k", 3) == [None, 7, 8]
    assert p4d.frame([7, 8], config, "n", 30) == [None] * 16


def test_an_embedding_of_the_table_is_its_own_nearest(tiny_model):
    table = embedding_table(tiny_model).detach()
    ids = torch.tensor([3, 40, 77])
    assert torch.equal(nearest(table[ids], table), ids)
    assert torch.equal(nearest(5.0 * table[ids], table), ids)  # cosine: length does not count


def test_no_special_token_is_ever_chosen(tiny_model):
    chosen = set(words(tiny_model).tolist())
    assert not chosen & set(tiny_model.tokenizer.all_special_ids)
    assert len(chosen) == len(embedding_table(tiny_model)) - len(set(tiny_model.tokenizer.all_special_ids))
    plain = sequence(tiny_model, prompt_ids(tiny_model, "a knife"))
    assert torch.equal(plain, token_ids(tiny_model, ["a knife"])[0])


def test_the_simplex_projection_is_the_nearest_distribution():
    assert unlearndiffatk.onto_simplex(torch.tensor([0.5, 0.5, 0.5])).tolist() == pytest.approx([1 / 3] * 3)
    assert unlearndiffatk.onto_simplex(torch.tensor([2.0, 0.0, 0.0])).tolist() == [1.0, 0.0, 0.0]
    assert unlearndiffatk.onto_simplex(torch.tensor([0.9, 0.5, -3.0])).tolist() == pytest.approx([0.7, 0.3, 0.0])  # m = 0.2, by hand
    p = unlearndiffatk.onto_simplex(torch.randn(5, 3, 50, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(p.sum(-1), torch.ones(5, 3))
    assert float(p.min()) >= 0
    torch.testing.assert_close(unlearndiffatk.onto_simplex(p), p)


def test_the_papers_timesteps():
    found = timesteps_of(UDA(), 1000)
    assert len(found) == 50 and found[:2] == [10, 30] and found[-1] == 990
    assert spread(3, 9) == [2, 5, 8] and spread(50, 4) == [0, 1, 2, 3] and spread(1, 50) == [49] and spread(0, 5) == []
    assert looks_of(P4DAttack(steps=100, look_every=50)) == 2 and looks_of(P4DAttack(steps=101, look_every=50)) == 3


def test_the_concept_vector_is_the_mean_difference():
    """A linear toy encoder c(x) = W x: v = W mean(with - without), by hand."""
    W = torch.tensor([[1.0, 0.0], [2.0, -1.0]])
    with_, without = torch.tensor([[1.0, 1.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 2.0]])
    v = ringabell.concept_vector((with_ @ W.T).unsqueeze(1), (without @ W.T).unsqueeze(1))
    assert v.tolist() == [[1.5, 4.0]]  # mean difference (1.5, -1); W of it: (1.5, 3 + 1)


def test_the_genetic_search_never_loses_its_best(tiny_model, target):
    goal = encode_prompts(tiny_model, ["a knife"])[0]
    config = RingABellAttack(tokens=4, population=10, mutation=1.0, crossover=1.0)
    draw, choices = torch.Generator().manual_seed(0), words(tiny_model)
    alive = torch.randint(len(choices), (10, 4), generator=draw)
    scores, best = ringabell.distances(tiny_model, goal, choices[alive]), []
    for _ in range(15):
        alive, scores = ringabell.fittest(alive, scores, 5)
        alive, scores, fresh = ringabell.offspring(alive, scores, config, len(choices), draw)
        assert not fresh[0] and len(alive) == 15  # five parents, two children each
        scores[fresh] = ringabell.distances(tiny_model, goal, choices[alive[fresh]])
        best.append(float(scores.min()))
    assert best == sorted(best, reverse=True)
    torch.testing.assert_close(scores, ringabell.distances(tiny_model, goal, choices[alive]))


def test_children_are_made_of_their_parents():
    alive, draw = torch.tensor([[1, 1, 1], [2, 2, 2]]), torch.Generator().manual_seed(0)
    config = RingABellAttack(tokens=3, population=4, mutation=0.0, crossover=1.0)
    every, _, fresh = ringabell.offspring(alive, torch.tensor([0.0, 1.0]), config, 9, draw)
    assert torch.equal(every[:2], alive) and fresh.tolist() == [False, False, True, True, True, True]
    assert set(every.flatten().tolist()) <= {1, 2}


def test_zero_steps_leave_the_embedding_where_it_started(tiny_model, target):
    for start, prompts in (("prompt", target.prompts), ("empty", ("",) * 3)):
        found = embedding.attack(tiny_model, target, EmbeddingAttack(steps=0, start=start), 3, Run())
        assert torch.equal(found.c, encode_prompts(tiny_model, prompts))


def test_a_picture_noised_to_zero_is_returned_and_to_one_is_a_fresh_start(tiny_model, target):
    c, c_0, seeds = encode_prompts(tiny_model, target.prompts), encode_prompts(tiny_model, [""]), [1, 2, 3]
    start = noised_start(tiny_model, target.latents, 0.0, seeds, 4)
    assert torch.equal(sample_latents(tiny_model, c, c_0, seeds, 4, 2.0, start=start), target.latents)
    z_t, t = noised_start(tiny_model, target.latents, 0.7, seeds, 10)
    assert t >= 0.7 * tiny_model.timesteps and t - tiny_model.timesteps // 10 < 0.7 * tiny_model.timesteps
    level = float(tiny_model.alpha_bar[t])
    torch.testing.assert_close(z_t, level**0.5 * target.latents + (1 - level) ** 0.5 * initial_noise(tiny_model, seeds))
    states = dict(trajectory(tiny_model, initial_noise(tiny_model, seeds), c, c_0.expand_as(c), 10, 2.0))
    rest = dict(trajectory(tiny_model, states[t], c, c_0.expand_as(c), 10, 2.0, begin=t))
    assert torch.equal(rest[-1], states[-1]) and list(rest) == [one for one in states if one <= t]


def test_noise_starts_carry_the_pictures(tiny_model, target):
    found = noise.attack(tiny_model, target, NoiseAttack(prompt="empty"), 3, Run(), share=0.8)
    assert found.share == 0.8 and torch.equal(found.z_0, target.latents)
    assert torch.equal(found.c, encode_prompts(tiny_model, [""] * 3))


def test_reinversion_learns_as_many_rows_as_asked(hurt, target):
    ids = token_ids(hurt, ["<again>"], {"<again>": torch.zeros(2, 16)})
    assert int((ids >= len(embedding_table(hurt))).sum()) == 2
    one, two = (reinversion.attack(hurt, target, SMALL["reinversion"], 3, Run(), vectors=count) for count in (1, 2))
    assert one.c.shape == two.c.shape and not torch.equal(one.c, two.c)


def test_variants_and_methods_agree():
    config = Attack()
    assert [one["vectors"] for one in variants("reinversion", config)] == [1, 4, 16]
    assert variants("plain", config) == ({},) and len(variants("noise", config)) == 3
    assert set(METHODS) == {"plain", "stored"} | set(ATTACKS) | {"noise"}


def test_prompts_are_read_from_text_and_csv(tiny_model, target, tmp_path):
    text, table = tmp_path / "a.txt", tmp_path / "a.csv"
    text.write_text("a knife\n\n  sword  \n")
    table.write_text('n,prompt\n1,"a knife, ink"\n2,sword\n')
    assert read_prompts(text) == ["a knife", "sword"] and read_prompts(table) == ["a knife, ink", "sword"]
    found = stored.attack(tiny_model, target, StoredAttack(file=table, limit=1), 3, Run())
    assert found.texts == ("a knife, ink",) and torch.equal(found.c, encode_prompts(tiny_model, ["a knife, ink"]))
    for name, content, words_ in (("empty.txt", "\n \n", "holds no prompts"), ("b.csv", "a,b\n1,2\n", "no column")):
        (tmp_path / name).write_text(content)
        with pytest.raises(HFIError, match=words_):
            read_prompts(tmp_path / name)
    with pytest.raises(HFIError, match="cannot be read"):
        read_prompts(tmp_path / "missing.txt")
    with pytest.raises(HFIError, match="no file of prompts"):
        read_prompts(None)


def test_what_was_found_is_read_back_as_it_was(hurt, target, tmp_path):
    for found in (
        unlearndiffatk.attack(hurt, target, SMALL["unlearndiffatk"], 3, Run()),
        noise.attack(hurt, target, NoiseAttack(), 3, Run()),
    ):
        save_found(tmp_path / "found.safetensors", found)
        again = load_found(tmp_path / "found.safetensors")
        assert same(found, again) and again.share == found.share
        assert (again.z_0 is None) == (found.z_0 is None)


def test_pictures_are_spread_over_what_was_found(hurt, target):
    found = unlearndiffatk.attack(hurt, target, SMALL["unlearndiffatk"], 3, Run())
    plan = plan_pictures(found, target, "unlearndiffatk", 6, 1)
    assert sum(one.final for one in plan) == 6 and sum(not one.final for one in plan) == found.final.count(False) == 6
    firsts = {one.owner: one.seed for one in reversed(plan) if one.final}
    assert firsts == {0: 5, 1: 6, 2: 7}  # the seeds that the target's own pictures were drawn with
    assert len({one.seed for one in plan if one.final}) == 6
    again = plan_pictures(found, target, "unlearndiffatk", 6, 2, number=1)  # a second attack draws none of the same pictures
    assert not {one.seed for one in plan} & {one.seed for one in again}


def test_what_several_seeds_attack_is_no_more_targets():
    """Three seeds on two targets: two things to resample, or three tokens of re-inversion; with targets of its own each seed's count."""
    study = SimpleNamespace(config=StudyConfig())

    def cells(method: str, own: bool = False) -> list[dict]:
        rows = [{"owner": k // 2, "place": k // 2, "final": True, "hit": True, "object": "x"} for k in range(4)]
        common = {"method": method, "title": method, "side": "erased", "queries": {}, "seconds": 1.0, "key": "k"}
        owners = [{str(k): f"{k + 2 * seed * own}" for k in range(2)} for seed in range(3)]
        return [{**common, "seed": seed, "pictures": rows, "owners": owners[seed]} for seed in range(3)]

    found = {method: summary(cells(method), study) for method in ("plain", "reinversion")}
    assert found["plain"]["rate"]["prompts"] == found["plain"]["per_prompt"]["prompts"] == 2
    assert found["reinversion"]["rate"]["prompts"] == 3 and summary(cells("reinversion")[:1], study)["rate"]["prompts"] == 2
    assert summary(cells("plain", own=True), study)["rate"]["prompts"] == 6


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_fine_tuning_learns_resumes_and_leaves_the_model_as_it_was(hurt, target, tmp_path, lora):
    c, probe = encode_prompts(hurt, target.prompts), (torch.randn(2, *hurt.latent_shape), torch.tensor([100, 600]))
    config = Persist(rounds=2, steps=3, batch_size=2, learning_rate=1e-3, lora_learning_rate=1e-2)
    names, before = [name for name, _ in hurt.unet.named_parameters()], {n: p.data.clone() for n, p in hurt.unet.named_parameters()}

    def predicted() -> torch.Tensor:
        with torch.no_grad():
            return predict_noise(hurt, *probe, c[:2])

    def trained(run: Run, stop: int = 0) -> dict:
        seen = {}

        def on_round(number, loss):
            if number == stop:
                raise KeyboardInterrupt
            seen[number] = predicted()

        fine_tune(hurt, target.latents, c, config, 3, run, on_round, lora)
        return seen

    start, state = predicted(), torch.random.get_rng_state()
    whole = trained(Run())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(whole) == [1, 2] and not torch.equal(whole[1], start) and not torch.equal(whole[1], whole[2])
    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(Run(file), stop=2)
    assert int(read_tensors(file)["done"]) == 6
    resumed = trained(Run(file))
    assert torch.equal(resumed[2], whole[2])
    assert [name for name, _ in hurt.unet.named_parameters()] == names and torch.equal(predicted(), start)
    assert all(torch.equal(parameter, before[name]) and not parameter.requires_grad for name, parameter in hurt.unet.named_parameters())


def test_a_fresh_lora_changes_nothing(hurt, target):
    c = encode_prompts(hurt, target.prompts)
    z_t, t, seen = torch.randn(3, *hurt.latent_shape), torch.tensor([5, 300, 900]), []
    with torch.no_grad():
        before = predict_noise(hurt, z_t, t, c)
    config = Persist(rounds=1, steps=1, lora_learning_rate=1e-30, weight_decay=0.0)
    fine_tune(hurt, target.latents, c, config, 3, Run(), lambda *_: seen.append(predict_noise(hurt, z_t, t, c).detach()), lora=True)
    torch.testing.assert_close(seen[0], before)


def test_a_learner_restored_goes_on_as_if_it_had_not_stopped():
    wish = torch.tensor([1.0, -2.0])

    def steps(learner: Learner, count: int) -> torch.Tensor:
        for _ in range(count):
            learner.step([2 * (learner.values["x"].detach() - wish)])
        return learner.values["x"].detach().clone()

    make = lambda saved=None: Learner({"x": torch.zeros(2)}, torch.optim.AdamW, 0.1, 0.01, saved)  # noqa: E731
    whole, half = steps(make(), 7), make()
    steps(half, 3)
    saved = {name: value.clone() for name, value in half.tensors().items()}
    assert torch.equal(steps(make(saved), 4), whole)


def test_targets_keep_their_numbers_in_parts(target):
    part = replace(target, seeds=(9, 8, 7)).part(1, 3)
    assert part.numbers == (1, 2) and part.seeds == (8, 7) and len(part) == 2 and part.prompts == target.prompts[1:]
