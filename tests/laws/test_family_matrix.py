"""Families x stages, erasers, files and attacks: a whole study on a tiny pipeline of every family, and what else is done with it.

Each works or is refused by name with the reason; REFUSED is the whole list of what is refused.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file

import hfi
import single_file
import tiny
import tiny_families
from hfi import method
from hfi.attacks import p4d, ringabell, unlearndiffatk
from hfi.attacks.found import Run, Target
from hfi.attacks.words import sequence, words
from hfi.config import P4DAttack, RingABellAttack, UnlearnDiffAttack, parse_config, with_overrides
from hfi.diffusion.model import load_model
from hfi.diffusion.networks import token_rows
from hfi.diffusion.sampling import sample_latents
from hfi.diffusion.text import encode_ids, encode_prompts, token_ids
from hfi.erasure.conditions import build_conditions
from hfi.erasure.delta import applied, load_delta
from hfi.erasure.erase import erase_into
from hfi.erasure.loop import Benign
from hfi.erasure.uce import edit_uce
from hfi.errors import HFIError
from hfi.evaluation.attacks import predictions_now
from hfi.export.export import export
from hfi.export.targets import TARGETS
from hfi.generation.generate import Generated
from hfi.inversion.invert import Inverted
from hfi.reward.reward import RewardResult
from hfi.workspace import STAGES, StageRun, Workspace, read_tensors

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from driver import judge_by_hand  # noqa: E402

JOINT, TRANSFORMERS = "reads text and picture in one pass", {"sd3", "flux"}
REFUSED = {  # (what, family) -> words of the reason; the tiny FLUX is a distilled one
    **{(what, family): JOINT for what in ("uce", "start", "finish") for family in TRANSFORMERS},
    **{("pag_scale", family): "no self-attention" for family in TRANSFORMERS},
    **{(what, "flux"): "guidance-distilled" for what in ("sld", "negative_prompt")},
    **{(what, "sd3"): "loads no embeddings" for what in ("embedding", "negative_embedding")},
    **{(what, family): "T5's vocabulary is not CLIP's" for what in ("p4d", "unlearndiffatk", "ringabell") for family in TRANSFORMERS},
}  # fmt: skip
HARD = {"rounds": 1, "steps": 1, "attack_steps": 1, "pictures": 2, "vectors": [3], "reinversions": 1, "embeddings": 1}
OPTIONS = {"start": "closed_form", "finish": "closed_form", "pag_scale": 0.5}  # of sdd, ours
ERASERS = {
    "sdd": {},
    "esd": {"erase.esd.steps": 1, "erase.esd.sampling_steps": 2, "erase.esd.preservation": 1.0},
    "ca": {"erase.ca.steps": 1, "erase.ca.batch_size": 2, "erase.ca.pictures": 4, "erase.ca.sampling_steps": 2},
    "uce": {},
    "sld": {},
    "negative_prompt": {},
    "hardened": {"erase.steps": 1, "erase.hardened": HARD},  # its score is made up
}
ATTACKS = {
    "p4d": (p4d.attack, P4DAttack(tokens=3, steps=4, look_every=2, learning_rate=1.0)),
    "unlearndiffatk": (unlearndiffatk.attack, UnlearnDiffAttack(tokens=2, timesteps=2, iterations=2, tries=1)),
    "ringabell": (ringabell.attack, RingABellAttack(tokens=4, population=6, generations=3, pairs=2)),
}  # fmt: skip
PIPELINES = {"sd1": "StableDiffusion", "sd2": "StableDiffusion", "sdxl": "StableDiffusionXL", "sd3": "StableDiffusion3", "flux": "Flux"}


@pytest.fixture(scope="module")
def studies(tmp_path_factory, tiny_root):
    """family -> its study, done as far as the stages go, and the stage that failed with its error; each made when first asked for."""
    made: dict[str, tuple[Workspace, dict[str, Exception]]] = {}

    def study(family: str) -> tuple[Workspace, dict[str, Exception]]:
        if family not in made:
            root = tmp_path_factory.mktemp(family)
            settings = tiny_families.study_settings(family, tiny_root)
            made[family] = Workspace.create(root / "study", parse_config(settings, family)), {}
            for stage in STAGES:
                try:
                    if stage == "label":
                        from hfi.feedback.interchange import import_judgements

                        import_judgements(made[family][0], judge_by_hand(root / "study", root / "judgements.jsonl"))
                    method.run(made[family][0], until=stage)
                except Exception as error:
                    made[family][1][stage] = error
                    break
        return made[family]

    return study


@pytest.fixture
def model(studies, request):
    """The original model of the family that a test is about."""
    return load_model(studies(request.node.callspec.params["family"])[0].config.model, "cpu", "float32")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("family", tiny_families.FAMILIES)
def test_every_stage_works_on_every_family(studies, family, stage):
    study, failed = studies(family)
    if stage in failed:
        raise failed[stage]
    assert study.is_done(stage)


@pytest.mark.parametrize("family", tiny_families.FAMILIES)
def test_what_learned_is_what_the_family_says(studies, family):
    """The token has the width of all encoders; the delta moves the weights through which text enters, and no others."""
    study, _ = studies(family)
    model = load_model(study.config.model, "cpu", "float32")
    rows = next(iter(read_tensors(study.path("invert", "sharp.safetensors")).values()))
    columns = {"sd1": 16, "sd2": 16, "sdxl": 32, "sd3": 16 + 24 + tiny_families.T5_WIDTH, "flux": 16 + tiny_families.T5_WIDTH}
    assert rows.shape == (2, columns[family]) and torch.isfinite(rows).all()
    delta = read_tensors(study.path("erase", "delta.safetensors"))
    names = (".attn2.",) if family in {"sd1", "sd2", "sdxl"} else (".add_q_proj.", ".add_k_proj.", ".add_v_proj.")
    expected = {name for name, _ in model.network.named_parameters() if any(part in name for part in names)}
    assert set(delta) == expected and expected
    assert sum(float(value.abs().sum()) for value in delta.values()) > 0
    losses = [json.loads(line)["loss"] for line in (study.path("erase", "log.jsonl")).read_text().splitlines()]
    assert losses and all(map(math.isfinite, losses))


@pytest.mark.parametrize("name", [*ERASERS, *OPTIONS])
@pytest.mark.parametrize("family", tiny_families.FAMILIES)
def test_every_eraser_works_on_every_family_or_is_refused(studies, model, tmp_path, family, name):
    """What an eraser leaves is read back, put on, and changes the picture; refused is what REFUSED says, and nothing else."""
    study, _ = studies(family)
    changes = ERASERS[name] | {"erase.method": name} if name in ERASERS else {f"erase.{name}": OPTIONS[name]}
    config = with_overrides(study.config, {"erase.checkpoint_seconds": 1e9, **changes})
    run = StageRun("erase", tmp_path, "key", config.seed)
    parts = model, Generated.load(study), RewardResult.load(study), Inverted.load(study), Workspace(study.root, config), config.erase
    if reason := REFUSED.get((name, family)):
        with pytest.raises(HFIError, match=reason) as caught:
            erase_into(run, *parts, lambda delta, found: (0.1, 0.1, [0.1] * len(found)))
        assert "\n" not in str(caught.value)
        return
    erase_into(run, *parts, lambda delta, found: (0.1, 0.1, [0.1] * len(found)))
    delta = load_delta(tmp_path / "delta.safetensors", model)
    c, c_0 = encode_prompts(model, ["a knife"]), encode_prompts(model, [""])
    before = sample_latents(model, c, c_0, [5], 2, 3.0)
    with applied(model, delta):
        after = sample_latents(model, c, c_0, [5], 2, 3.0)
    assert torch.isfinite(after).all() and not torch.equal(before, after)
    assert torch.equal(sample_latents(model, c, c_0, [5], 2, 3.0), before)


@pytest.fixture(scope="module")
def files(studies, tmp_path_factory):
    """family -> everything that can be exported of its study, made when first asked for."""
    made = {}

    def of(family: str):
        if family not in made:
            folder = tmp_path_factory.mktemp(f"files-{family}")
            made[family] = export(studies(family)[0], "all", folder, max_error=1.0, understood=True)
        return made[family]

    return of


def pictures(pipeline, **settings):
    """Latents that a plain diffusers pipeline draws."""
    pipeline.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(3)
    more = {"max_sequence_length": 20} if "Flux" in type(pipeline).__name__ else {}
    sizes = {"height": 32, "width": 32, "num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "latent"}
    return pipeline("a knife", generator=draw, **sizes, **more, **settings).images


@pytest.mark.parametrize("family", tiny_families.FAMILIES)
def test_every_file_is_written_for_every_family_or_refused(studies, files, tmp_path, family):
    study, made = studies(family)[0], files(family)
    assert set(made.left_out) == {to for to in TARGETS if (to, family) in REFUSED}
    for to, reason in made.left_out.items():
        assert REFUSED[to, family] in reason
        with pytest.raises(HFIError, match=f"--to {to}.*{REFUSED[to, family]}.*--to delta"):
            export(study, to, tmp_path, max_error=1.0, understood=True)
    assert len(made.files) == len(TARGETS) - len(made.left_out) and all(path.exists() for path in made.files)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", tiny_families.FAMILIES)
def test_folder_and_delta_are_the_erased_model_in_every_family(studies, files, family):
    """The diffusers folder as diffusers loads it, and hfi.load with the delta: equal weights, equal latents, others than the original's."""
    source, folder = studies(family)[0].config.model, files(family).folder
    kind = getattr(diffusers, f"{PIPELINES[family]}Pipeline")
    whole, loaded = kind.from_pretrained(folder / "diffusers"), hfi.load(source, [folder / "hfi-sharp-delta.safetensors"], device="cpu")
    part = "transformer" if family in TRANSFORMERS else "unet"
    one, other = (getattr(pipeline, part).state_dict() for pipeline in (whole, loaded))
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
    assert torch.equal(pictures(whole), pictures(loaded))
    assert not torch.equal(pictures(whole), pictures(kind.from_pretrained(source)))


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_a_lora_is_what_diffusers_adds(studies, files, family):
    """diffusers loads and fuses it to the delta, layer by layer; biases have no place in it. hfi.load reads the same out of it."""
    source, file = studies(family)[0].config.model, files(family).folder / "hfi-sharp-lora.safetensors"
    delta = load_delta(studies(family)[0].path("erase", "delta.safetensors")).weights
    pipeline = getattr(diffusers, f"{PIPELINES[family]}Pipeline").from_pretrained(source)
    network = pipeline.transformer if family in TRANSFORMERS else pipeline.unet
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pipeline.load_lora_weights(file)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    ours = getattr(hfi.load(source, [file], device="cpu"), "transformer" if family in TRANSFORMERS else "unet").state_dict()
    changed = 0
    for name, value in network.state_dict().items():
        expected = delta[name] if name in delta and name.endswith(".weight") else torch.zeros(())
        torch.testing.assert_close(value - before[name], expected.expand_as(value), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6)
        changed += not torch.equal(value, before[name])
    assert changed == sum(name.endswith(".weight") and bool(value.any()) for name, value in delta.items()) > 0
    from hfi.export.files import read_file

    tensors, header = read_file(file)
    if family == "sdxl":
        assert header["ss_base_model_version"].startswith("sdxl_")  # by which AUTOMATIC1111 shows it beside SD XL
    else:  # ComfyUI's rule for both: "transformer.", diffusers' own name, and peft's factors, added as they are
        assert set(tensors) == {f"transformer.{name.removesuffix('weight')}lora_{part}.weight" for name in delta
                                if name.endswith(".weight") for part in "AB"}  # fmt: skip


@pytest.mark.parametrize("family", sorted(TRANSFORMERS))
def test_an_alpha_where_the_layout_has_none_is_refused(studies, tmp_path, family):
    with pytest.raises(HFIError, match="alpha.*no place in the LoRA layout of transformers"):
        export(studies(family)[0], "lora", tmp_path, alpha=8.0, max_error=1.0)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_diffusers_reads_the_condition_of_several_text_encoders(studies, files, model, family):
    """Loaded into each encoder by diffusers' own call, the word gives the states that the study inverted."""
    study, stored = studies(family)[0], load_file(files(family).folder / "hfi-sharp-token.safetensors")
    assert list(stored) == sorted(encoder.name for encoder in model.encoders) and all(len(rows) == 2 for rows in stored.values())
    pipeline = getattr(diffusers, f"{PIPELINES[family]}Pipeline").from_pretrained(study.config.model)
    for key, number in zip([encoder.name for encoder in model.encoders], ("", "_2"), strict=True):
        parts = {"tokenizer": getattr(pipeline, f"tokenizer{number}"), "text_encoder": getattr(pipeline, f"text_encoder{number}")}
        pipeline.load_textual_inversion(stored[key], token="<sharp>", **parts)
    ours = encode_prompts(model, ["<sharp>"], Inverted.load(study).tokens)
    more = {"max_sequence_length": 20} if family == "flux" else {"do_classifier_free_guidance": False}
    theirs = pipeline.encode_prompt("<sharp>", None, device="cpu", **more)[0]
    torch.testing.assert_close(theirs, token_rows(model, ours))


@pytest.mark.parametrize("family", ["sdxl"])
def test_uce_edits_by_the_states_that_keys_and_values_read_alone(model, family):
    """SDXL's conditions end with a pooled state, which no key or value sees: what stands in it changes no edit."""
    config = parse_config({"erase": {"method": "uce", "uce": {"states": "all"}}}, "test").erase
    conditions, benign = build_conditions(model, {}, ("{}", "a {}"), [], 0.0, words=["knife"]), encode_prompts(model, ["a cat", "a dog"])
    c_0, edits = encode_prompts(model, [""]), []
    for pooled in (0.0, 3.0):
        changed = {name: getattr(conditions, name).clone() for name in ("c", "reading")}
        kept = benign.clone()
        for one in (*changed.values(), kept):
            one[:, -1] += pooled * torch.randn(one.shape[-1])
        given = Benign(torch.empty(2, *model.latent_shape), kept, None)
        edits.append(edit_uce(model, replace(conditions, **changed), c_0, torch.empty(0), given, config, 0).weights)
    assert edits[0].keys() == edits[1].keys() and all(torch.equal(edits[0][name], edits[1][name]) for name in edits[0])
    assert any(value.abs().max() > 0 for value in edits[0].values())


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_negative_embeddings_are_served(studies, files, model, family, tmp_path):
    file, source = files(family).folder / "hfi-sharp-negative.safetensors", studies(family)[0].config.model
    pipeline = hfi.load(source, negative=[file], device="cpu")
    words = {"true_cfg_scale": 3.0} if family == "flux" else {}
    with_word, with_other = (pictures(pipeline, negative_prompt=text, **words) for text in ("<hfi-sharp-negative>", "a"))
    assert torch.isfinite(with_word).all() and not torch.equal(with_word, with_other)
    with pytest.raises(HFIError, match="use an embedding made for this model"):
        hfi.load(studies("sd1")[0].config.model, negative=[file], device="cpu")
    model.encoders[1].table.data[3] += 1
    from hfi.export.embedding import read_embedding

    with pytest.raises(HFIError, match="made for another model"):
        read_embedding(file, model)


def test_the_pooled_vector_is_read_at_the_end_of_the_text_as_on_sdxl(tiny_root, tmp_path):
    """Its second config says 2 for the end of text, whose id is the highest of the vocabulary: added words must not be taken for it."""
    from hfi.export.serving import teach

    folder, known = tiny_families.save("sdxl", tmp_path / "xl"), tiny.tokenizer().get_vocab()
    ordered = sorted(known, key=lambda word: (word == "<|endoftext|>", known[word]))
    kind = type(tiny.tokenizer())
    kind(vocab={word: i for i, word in enumerate(ordered)}, merges=[], model_max_length=tiny.LENGTH).save_pretrained(folder / "tokenizer_2")
    model = load_model(str(folder), "cpu", "float32")
    assert model.encoders[1].network.config.eos_token_id == 2 and model.encoders[1].tokenizer.eos_token_id == len(ordered) - 1
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    ours = encode_prompts(model, ["a <x>"], {"<x>": rows})
    teach(model, "<x>", rows)
    words, _, pooled, _ = model.pipeline.encode_prompt("a <x>", device="cpu", do_classifier_free_guidance=False)
    torch.testing.assert_close(words, token_rows(model, ours))
    torch.testing.assert_close(pooled, ours[:, -1, : model.pooled])


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("family", ["sdxl", "sd3", "sd3 without T5", "flux"])
def test_prompt_searches_attack_every_family_of_one_vocabulary(tmp_path_factory, tiny_root, family, name):
    """Several CLIPs read the same ids; what is found comes back equal when its ids are encoded anew. With T5 it is refused by name."""
    folder = tiny_root / family.replace(" ", "-")
    if not folder.exists():
        tiny_families.save(family.split()[0], folder, **({"with_t5": False} if "without" in family else {}))
    model, prompts = load_model(str(folder), "cpu", "float32"), ("a knife", "sword")
    target = Target(
        torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0)), prompts, (5, 6), (0, 1),
        (("a knife", "a"), ("needle", "")), original=predictions_now(model, encode_prompts(model, prompts)),
    )  # fmt: skip
    attack, config = ATTACKS[name]
    if reason := REFUSED.get((name, family)):
        with pytest.raises(HFIError, match=f"{reason}.*use reinversion"):
            attack(model, target, config, 3, Run())
        return
    plain = sequence(model, model.tokenizer("a knife", add_special_tokens=False)["input_ids"])
    assert torch.equal(plain, token_ids(model, ["a knife"])[0])
    found = attack(model, target, config, 3, Run())
    assert len(found.texts) >= 2 and torch.isfinite(found.c).all() and found.losses
    assert all(last <= first for first, last in found.losses) or name == "unlearndiffatk"
    chosen = words(model)
    assert not set(chosen.tolist()) & {one for encoder in model.encoders for one in encoder.tokenizer.all_special_ids}
    again = attack(model, target, config, 3, Run())
    assert torch.equal(found.c, again.c) and not torch.equal(found.c, attack(model, target, config, 4, Run()).c)
    with torch.no_grad():
        moved = encode_ids(model, torch.stack([sequence(model, chosen[:3].tolist())]))
    lengths = [encoder.length for encoder in model.encoders]
    assert moved.shape[1:] == found.c.shape[1:] and len(sequence(model, [5])) == sum(lengths)


def test_a_folder_and_a_single_file_of_one_model_give_the_same_study(tmp_path, tiny_root):
    """The same pictures under the same names, the same judgements, the same numbers; only cost, and files' own hashes, may differ."""
    settings = tiny.study_settings(tiny_root)
    file = single_file.save(tiny_root / "pipeline", tmp_path / "one.safetensors")
    found = []
    for name, more in (("folder", {}), ("file", {"model": str(file), "configs": str(tiny_root / "pipeline")})):
        study = Workspace.create(tmp_path / name, parse_config({**settings, **more}, name))
        method.run(study, until="generate")
        from hfi.feedback.interchange import import_judgements

        import_judgements(study, judge_by_hand(study.root, tmp_path / f"{name}.jsonl"))
        method.run(study, until="evaluate")
        metrics = json.loads(study.path("metrics.json").read_text())
        pictures = {path.relative_to(study.root): path.read_bytes() for stage in ("generate", "evaluate")
                    for path in study.path(stage).rglob("*.png")}  # fmt: skip
        tensors = [read_tensors(study.path(stage, one)) for stage, one in (("generate", "latents.safetensors"),
                   ("invert", "sharp.safetensors"), ("erase", "delta.safetensors"))]  # fmt: skip
        found.append(({key: value for key, value in metrics.items() if key not in {"seconds", "peak_memory_mib"}}, pictures, tensors))
    (metrics, drawn, tensors), (other_metrics, other_drawn, other_tensors) = found
    assert metrics == other_metrics and drawn == other_drawn
    for one, other in zip(tensors, other_tensors, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
