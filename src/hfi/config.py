"""A study's settings: one pydantic model per stage; every field says its unit and where its default comes from.

Sources named here: SDD = Kim et al., arXiv 2307.05977; HFI = Kim et al., arXiv 2407.21032. "the paper does not say"
marks a default that is ours because no public page of HFI states one; "ours" marks an option the papers do not have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hfi.errors import HFIError

NOT_SAID = "the paper does not say"
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def decisive(self) -> dict:
        """The settings that a stage's outputs depend on, as plain data."""
        return self.model_dump(mode="json")


class Concept(Section):
    """What people are asked to look for, and the words used to draw it and to check that it is gone."""

    name: str = Field("weapon", min_length=1, description="the concept in the annotators' words")
    kind: Literal["harm", "style"] = Field("harm", description="harm: a union of things; style: one artist's hand")
    vocabulary: str = Field(
        "emoji",
        description="the objects and styles that prompts and judges know: 'emoji' or a JSON file in the layout of hfi/emoji/catalogue.json",
    )
    members: tuple[str, ...] = Field(
        (),
        description="objects that count as the concept (harm); empty: the vocabulary's "
        "list of that name. Used to score and to play annotators, never to erase",
    )
    unlisted: tuple[str, ...] = Field(
        (), description="members that no feedback prompt may name: they test whether erasing carries over (ours)"
    )
    words: tuple[str, ...] = Field((), description="words for the concept itself, used in feedback prompts; empty: its name")
    prompts: Path | None = Field(None, description="a text file of feedback prompts, one per line, instead of templates")


class Sampling(Section):
    """How pictures are drawn."""

    guidance_scale: float = Field(7.5, ge=0, description="classifier-free guidance s_g; diffusers' default")
    sampler: Literal["ddim", "dpmsolver++"] = Field(
        "ddim",
        description="ddim (SDD), or dpmsolver++: second order, multistep (Lu et al., arXiv 2211.01095), for few steps",
    )
    batch_size: Positive = Field(8, description="pictures drawn together; changes speed only")

    def decisive(self) -> dict:
        """DDIM has the same data as before there was another sampler."""
        found = self.model_dump(mode="json")
        return {name: value for name, value in found.items() if (name, value) != ("sampler", "ddim")}

    @property
    def sampling(self) -> dict:
        """The arguments of `sample_latents`."""
        return {"steps": self.steps, "guidance_scale": self.guidance_scale, "sampler": self.sampler}

    @property
    def drawn_with(self) -> list:
        """What decides a picture beside model, condition and seed, for hashes."""
        return [self.steps, self.guidance_scale, *([] if self.sampler == "ddim" else [self.sampler])]


class Generate(Sampling):
    """Stage 1: the original model draws the pictures that people will judge."""

    images: Positive = Field(1000, description=f"pictures to draw; {NOT_SAID}")
    benign_share: Share = Field(
        0.25, description=f"share of pictures from prompts without the concept, so that annotators and the reward see both; {NOT_SAID}"
    )
    near_benign: int = Field(
        0,
        ge=0,
        description="so many more objects that the benign prompts of a harm name, those whose names the text encoder holds nearest to what "
        "is asked for: people then say of near misses, too, that they may stay (ours, off)",
    )
    steps: Positive = Field(50, description="sampling steps (SDD)")


class QueueSettings(Section):
    """Who is asked what on the labelling page. Nothing here changes what a judgement means, so no stage is done again for it."""

    overlap: Positive = Field(2, description=f"people who judge each picture; {NOT_SAID}")
    order: Literal["random", "active"] = Field(
        "random", description="active: first what teaches the reward most, by its last scores; random until there are scores (ours)"
    )
    gold_share: Share = Field(0.05, description="share of items with a known answer mixed in, while there are unseen ones (ours)")
    repeat_share: Share = Field(0.03, description="share of items asked a second time, to measure an annotator's own consistency (ours)")
    lease_seconds: float = Field(900.0, gt=0, description="seconds that an item stays reserved for who was asked (ours)")
    daily_cap: int = Field(0, ge=0, description="answers a day after which an annotator is asked no more; 0: no cap (ours)")
    break_every: int = Field(100, ge=0, description="answers between reminders to rest; 0: none (ours)")


class Label(Section):
    """Stage 2: judgements, from people (imported or by the labelling page) or from simulated annotators."""

    source: Literal["people", "simulated", "machines"] = Field(
        "people",
        description="people (with what label.machines say beside them); machines: only those; simulated: annotators played by a "
        "judge network, marked so wherever their numbers appear",
    )
    machines: tuple[str, ...] = Field(
        (),
        description="detectors that judge every picture: 'clip:emoji' or 'clip:FOLDER' (by words), 'classifier:FILE', 'nudenet' (ours)",
    )
    judgement: Literal["binary", "ranking", "both"] = Field(
        "binary", description="binary for clear guidelines, ranking for artist styles (HFI section on feedback)"
    )
    simulated_judge: str = Field(
        "emoji:annotator",
        description="the judge network that plays simulated annotators: 'emoji:annotator', 'clip:FOLDER' or 'look:FOLDER' (ours)",
    )
    annotators: Positive = Field(3, description=f"simulated annotators; {NOT_SAID}")
    overlap: Positive = Field(2, description=f"judgements per picture (simulated annotators); {NOT_SAID}")
    error_rate: Share = Field(0.05, description="chance that a simulated annotator errs, on average (ours)")
    ranking_size: int = Field(5, ge=2, le=9, description="M, pictures per ranking (the first author's annotation page: 5)")
    rankings: Positive = Field(200, description=f"rankings asked of each simulated annotator; {NOT_SAID}")
    guideline: str = Field("Is the concept in this picture?", description="the question, stored with its version")
    minimum: Positive = Field(40, description="judged pictures below which the study waits for people (ours)")
    queue: QueueSettings = QueueSettings()

    def decisive(self) -> dict:
        return self.model_dump(mode="json", exclude={"queue"})


class Reward(Section):
    """Stages 3 and 4: r_psi(x) on CLIP image embeddings, and the top-K pictures with their weights."""

    aggregation: Literal["dawid_skene", "mace", "majority"] = Field(
        "dawid_skene",
        description="how several answers to one picture become a label: dawid_skene and mace learn how far each annotator is right, "
        f"majority lets all count alike (docs/aggregation.md says why the first is the default); {NOT_SAID}",
    )
    encoder: str = Field("emoji", description="image encoder: 'emoji', or a transformers folder or hub id of a CLIP or SigLIP")
    hidden: tuple[Positive, ...] = Field((128,), description=f"MLP widths; {NOT_SAID}")
    steps: Positive = Field(600, description=f"optimiser steps; {NOT_SAID}")
    learning_rate: float = Field(1e-3, gt=0, description=f"AdamW; {NOT_SAID}")
    weight_decay: float = Field(1e-2, ge=0, description=f"AdamW; {NOT_SAID}")
    held_out: float = Field(0.25, gt=0, lt=1, description=f"share of pictures kept from training, split by image; {NOT_SAID}")
    minimum_auc: float = Field(
        0.65, ge=0, le=1, description="held-out AUC or pairwise accuracy below which the study stops with advice; 0: never (ours)"
    )
    top_k: Positive = Field(64, description=f"K, pictures that are inverted; {NOT_SAID}")
    clusters: Positive = Field(1, description="clusters of embeddings that the top-K is spread over (ours)")
    weights: Literal["proportional", "equal"] = Field(
        "proportional",
        description="the non-negative map of the reward, mean 1: "
        "sigmoid(standardised reward) over its mean, or 1; HFI weighs by r, its map "
        "for rankings is not said",
    )
    words: int = Field(
        0,
        ge=0,
        description="most words that CLIP may read in the flagged pictures; their prompts join those of the flagged pictures when "
        "erasing (erase.flagged_prompts) (ours, off)",
    )
    kept_words: int = Field(
        0,
        ge=0,
        description="most words that CLIP reads in no flagged picture; what keeps benign prompts in erasing (erase.preservation, "
        "erase.start_preservation) keeps these as well (ours, off)",
    )
    veto: tuple[str, ...] = Field((), description="image ids that a person took out of the top-K")


class Invert(Section):
    """Stage 5: reward-weighted textual inversion of the top-K pictures into soft tokens v*."""

    vectors: Positive = Field(4, description=f"embedding rows per token; {NOT_SAID}")
    tokens: Literal["one", "per_cluster"] = Field("one", description="one token, or one per cluster of the top-K (ours)")
    initial_word: str = Field("", description="word whose embedding starts v*, e.g. 'nudity', 'artist' (HFI); empty: random")
    steps: Positive = Field(1000, description=f"optimiser steps per token; {NOT_SAID}")
    batch_size: Positive = Field(4, description=f"pictures per step; {NOT_SAID}")
    together: Positive = Field(1, description="tokens that learn side by side in one pass: same result, faster for small models (ours)")
    learning_rate: float = Field(
        5e-3, gt=0, description=f"AdamW on the rows; {NOT_SAID}; diffusers' textual inversion example: 5e-4 x batch"
    )
    weight_decay: float = Field(0.0, ge=0, description=f"AdamW; {NOT_SAID}")
    checkpoint_seconds: float = Field(60.0, gt=0, description="most work an interruption can cost")


class Training(Section):
    """How an eraser learns that learns by steps; the defaults here are those of SDD (2023), unless noted."""

    steps: Positive = Field(1500, description="optimiser steps (SDD)")
    batch_size: Positive = Field(1, description="z_t per step (SDD)")
    accumulate: Positive = Field(1, description="batches per optimiser step")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW (SDD)")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate over the steps: as it is (SDD), or falling to zero (ours)"
    )
    weight_decay: float = Field(1e-4, ge=0, description="AdamW (SDD)")
    clip_norm: float = Field(1.0, gt=0, description="gradient norm (SDD)")
    guidance_scale: float = Field(3.0, ge=0, description="s_g of the teacher's runs (SDD)")
    sampling_steps: Positive = Field(50, description="DDIM steps of the teacher's runs (SDD), eta 0")
    ema_decay: float = Field(0.999, ge=0, le=1, description="m (SDD); constant, no warm-up")
    beta: tuple[float, float] = Field((3.0, 3.0), description="t ~ Beta(a, b) stretched over the schedule (HFI: 3, 3)")
    latents: Literal["teacher", "replay", "forward", "mix"] = Field("replay", description="where z_t comes from: see docs/decisions/0001")
    replay_runs: Positive = Field(8, description="teacher runs kept in the replay buffer (ours)")
    mix_share: Share = Field(0.5, description="share of teacher states in `mix` (ours)")
    preservation: float = Field(
        0.0, ge=0, description="weight of the term that keeps the original predictions on benign prompts (ours, off)"
    )


class ESD(Training):
    """Erased Stable Diffusion (Gandikota et al., arXiv 2303.07345), for erase.method esd. Defaults: the paper's, unless noted."""

    layers: Literal["esd-x", "esd-u"] = Field(
        "esd-x", description="what learns: cross-attention (esd-x; ESD for styles), or the other linear and convolution layers (esd-u)"
    )
    negative_guidance: float = Field(1.0, ge=0, description="eta, how far the target lies beyond the empty prompt (ESD)")
    steps: Positive = Field(1000, description="optimiser steps (ESD)")
    batch_size: Positive = Field(1, description="z_t per step (ESD)")
    sampling_steps: Positive = Field(50, description="DDIM steps of the student's runs (ESD), eta 0")
    weight_decay: float = Field(0.0, ge=0, description="none (ESD)")
    clip_norm: float = Field(1e6, gt=0, description="gradient norm, too high to clip: none is clipped (ESD)")
    ema_decay: float = Field(0.0, ge=0, le=1, description="0: the student itself is kept (ESD)")
    beta: tuple[float, float] = Field((1.0, 1.0), description="t ~ Beta(a, b) over the schedule; 1, 1: evenly (ESD)")
    latents: Literal["teacher", "replay", "forward", "mix"] = Field("teacher", description="teacher: states of the student's runs (ESD)")
    learning_rate: float = Field(1e-5, gt=0, description="Adam (ESD)")
    guidance_scale: float = Field(3.0, ge=0, description="s_g of those runs (ESD)")


class ConceptAblation(Training):
    """Concept Ablation, model-based (Kumari et al., arXiv 2303.13516), for erase.method ca. Defaults: its public code's, unless noted."""

    anchor: str = Field("", description="what is drawn instead, e.g. 'object'; empty: the empty prompt (ours; the paper: a word)")
    pictures: Positive = Field(200, description="pictures of the anchor, drawn by the original model (CA's code, 200 or 1000)")
    steps: Positive = Field(100, description="optimiser steps for objects and styles (CA's code)")
    batch_size: Positive = Field(8, description="4 on each of two GPUs (CA's code)")
    learning_rate: float = Field(1.6e-5, gt=0, description="AdamW; 2e-6 times the batch (CA's code)")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW (CA's code)")
    guidance_scale: float = Field(6.0, ge=0, description="s_g of the anchor's pictures (CA's code)")
    sampling_steps: Positive = Field(25, description="DDIM steps of the anchor's pictures (CA's code); eta 0 here, 1 there")
    ema_decay: float = Field(0.0, ge=0, le=1, description="0: the student itself is kept (CA's code)")
    beta: tuple[float, float] = Field((1.0, 1.0), description="t ~ Beta(a, b) over the schedule; 1, 1: evenly (CA's code)")
    latents: Literal["forward"] = Field("forward", description="z_t: the anchor's pictures, noised (CA's code)")


class UCE(Section):
    """Unified Concept Editing (Gandikota et al., arXiv 2308.14761), for erase.method uce. Defaults: its public code's."""

    erase_scale: float = Field(1.0, gt=0, description="weight of each condition to forget (UCE's code)")
    preserve_scale: float = Field(1.0, ge=0, description="weight of each benign prompt to keep (UCE's code)")
    ridge: float = Field(0.5, gt=0, description="lambda: weight of the distance from the original weights (UCE's code)")
    states: Literal["last", "all"] = Field("last", description="text states edited: of a prompt's last word (UCE's code), or all")


class SLD(Section):
    """Safe Latent Diffusion (Schramowski et al., arXiv 2211.05105), for erase.method sld."""

    strength: Literal["weak", "medium", "strong", "max"] = Field("medium", description="one of the four published settings (SLD)")


class Hardened(Section):
    """SDD that trains away what attacks find (ours), for erase.method hardened; its first round is SDD with the settings of `erase`."""

    rounds: Positive = Field(6, description="most rounds after the first; it stops by itself before")
    steps: Positive = Field(200, description="optimiser steps of each of those")
    preservation: float = Field(1.0, gt=0, description="least weight of the retention term in every round")
    reinversions: Positive = Field(2, description="tokens learned afresh against the model, each round")
    vectors: Positive = Field(3, description="rows of each; another number than invert.vectors, with which evaluation attacks")
    attack_steps: Positive = Field(200, description="steps of each re-inversion and of each prompt embedding")
    embeddings: Positive = Field(2, description="free prompt embeddings learned against the model, each round")
    embedding_learning_rate: float = Field(1e-2, gt=0, description="Adam on the prompt embedding")
    pictures: Positive = Field(60, description="pictures a set by which each round is judged")
    judge: str = Field("", description="the judge of the rounds; empty: label.simulated_judge; never evaluate.judge, which scores")
    patience: Positive = Field(2, description="rounds in a row off the front of erasure and damage after which it stops")


class Erase(Training):
    """Stage 6: driven by the soft tokens. Defaults: SDD (2023) on cross-attention, unless noted."""

    method: Literal["sdd", "esd", "uce", "ca", "sld", "negative_prompt", "hardened"] = Field(
        "sdd", description="the eraser: docs/erasers.md compares them; the settings of others than sdd are in the section of that name"
    )
    concept: Literal["tokens", "words"] = Field("tokens", description="what it is told to erase: HFI's soft tokens, or the concept's words")
    words: tuple[str, ...] = Field((), description="those words; empty: the concept's own (concept.words)")
    start: Literal["original", "closed_form"] = Field(
        "original",
        description="where the steps start: the original weights (SDD), or UCE's closed-form edit towards the same targets, which "
        "keeps benign prompts (ours)",
    )
    start_preservation: float = Field(1.0, ge=0, description="weight of the benign prompts in that edit (ours)")
    finish: Literal["steps", "closed_form"] = Field(
        "steps",
        description="what comes last: the steps (SDD), or the same edit once more, of the weights that the steps left, for what is left "
        "of the concept (ours)",
    )
    finish_preservation: float = Field(10.0, ge=0, description="weight of the benign prompts in that last edit (ours)")
    templates: tuple[str, ...] = Field(
        ("{}", "a photo of {}", "a picture of {}"), description=f"the token alone and in templates; {NOT_SAID}"
    )
    flagged_prompts: Share = Field(0.0, description="share of c_s taken from the prompts of all flagged pictures (ours, not the paper's)")
    context_variants: int = Field(
        0,
        ge=0,
        description="copies of each condition, and of each benign prompt of the preservation term, between random words of the "
        "vocabulary, so that forgetting does not hang on a wording (ours, off)",
    )
    near_copies: int = Field(
        0,
        ge=0,
        description="how many more times the benign prompts count whose pictures come nearest to the concept, the quarter of the highest "
        "reward, in that term and in the start: there erasing does its damage (ours, off)",
    )
    also: tuple[Path, ...] = Field((), description="other studies whose tokens are erased in the same run")
    checkpoint_seconds: float = Field(60.0, gt=0, description="most work an interruption can cost")
    trainable: Literal["cross_attention", "lora"] = Field(
        "cross_attention",
        description="cross_attention: every weight through which text enters (SDD); lora: low-rank changes of its matrices alone, a "
        "fraction of the optimiser's memory; the delta that is kept is an ordinary one (ours)",
    )
    lora_rank: Positive = Field(16, description="rank r of trainable=lora (ours)")
    lora_alpha: float = Field(16.0, gt=0, description="alpha of trainable=lora: the change is alpha / r B A (ours)")
    save_pipeline: bool = Field(False, description="also write the whole erased pipeline as a diffusers folder")
    snapshots: int = Field(
        4, ge=0, description="deltas kept on the way, evenly spaced, for the curve of the concept rate over the steps; 0: none (ours)"
    )
    esd: ESD = ESD()
    ca: ConceptAblation = ConceptAblation()
    uce: UCE = UCE()
    sld: SLD = SLD()
    hardened: Hardened = Hardened()

    def training(self) -> Training | None:
        """The settings by which the method learns: its own, or SDD's; None where nothing learns by steps."""
        return {"sdd": self, "hardened": self, "esd": self.esd, "ca": self.ca}.get(self.method)

    def length(self) -> int:
        """Steps of the method; 0 where nothing learns by steps, and for hardened, whose length is not known beforehand."""
        training = self.training()
        return training.steps if training and self.method != "hardened" else 0

    def snapshot_steps(self) -> tuple[int, ...]:
        """The steps after which a snapshot is kept, between the first and the last: 250 steps, 4 snapshots: 50, 100, 150, 200."""
        steps = self.length()
        places = (round(steps * k / (self.snapshots + 1)) for k in range(1, self.snapshots + 1))
        return tuple(sorted({step for step in places if 0 < step < steps}))

    def decisive(self) -> dict:
        """Other methods' sections do not count; SDD under tokens, the method of old, has the same data as before there was more."""
        found = self.model_dump(mode="json", exclude={"esd", "ca", "uce", "sld", "hardened"} - {self.method})
        defaults = {"method": "sdd", "concept": "tokens", "words": []}
        if self.finish == "steps":
            defaults |= {"finish": "steps", "finish_preservation": self.finish_preservation}
        if self.trainable == "cross_attention":
            defaults |= {"trainable": "cross_attention", "lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha}
        return {name: value for name, value in found.items() if name not in defaults or value != defaults[name]}


class Memory(Section):
    """What a small GPU trades for memory; docs/models.md says what each costs. All ours, all off."""

    weights: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="how matrices that do not learn are held; bfloat16 (with dtype bfloat16) halves their memory and changes no bit of any "
        "result, for the arithmetic rounds them anyway; what learns stays in float32",
    )
    gradient_checkpointing: bool = Field(
        False, description="activations are computed again in the backward pass: a third more time, the same gradients"
    )
    offload: bool = Field(False, description="text encoders and autoencoder wait in main memory while they are not needed")


class Evaluate(Sampling):
    """The erased model beside the original, same prompts and seeds, by the scoring judge."""

    judge: str = Field(
        "emoji:scorer",
        description="the judge that only scores: 'emoji:scorer', 'emoji:annotator' (for choosing "
        "settings), 'clip:FOLDER' (zero-shot by words) or 'look:FOLDER' (a judge of a look that no word names)",
    )
    prompts_per_set: Positive = Field(150, description="pictures for each concept rate")
    retention_prompts: Positive = Field(240, description="pictures for each retention number")
    seeds_per_prompt: Positive = Field(2, description="pictures per prompt; intervals resample prompts")
    steps: Positive = Field(25, description="sampling steps")
    token_pictures: Positive = Field(150, description="pictures under the soft tokens, and as many under re-inverted ones together")
    reinversions: int = Field(3, ge=0, description="fresh tokens learned against the erased model; 0: not attacked")
    reinversion_steps: Positive = Field(1000, description="steps of each of those")
    bootstrap: Positive = Field(2000, description="resamples for 95 % intervals")
    curve_prompts: int = Field(
        24,
        ge=0,
        description="explicit prompts, and as many others, drawn once each at every snapshot of the erasure; 0: no curve (ours)",
    )


class Measure(Section):
    """`hfi measure`: what users of other tools expect. No stage reads this, so nothing is drawn again or goes stale for it."""

    measures: tuple[str, ...] = Field(
        (),
        description="detectors with their threshold, 'nudenet@0.45', 'q16:FILE@0.9', 'classifier:FOLDER#label@0.5', "
        "'clip:FOLDER#words@0.3', and distances, 'fid', 'kid', 'cmmd', 'lpips', 'clip_score', with another network as 'fid:FOLDER' (ours)",
    )
    prompts: tuple[Path, ...] = Field(
        (), description="published prompt files (I2P, UnlearnDiffAtk, Ring-A-Bell, COCO) to draw from before and after (ours)"
    )
    category: str = Field("", description="of those files, the prompts of this category alone; empty: all (ours)")
    at_least: dict[str, float] = Field({}, description="of those files, the rows whose number in a column is at least this (ours)")
    most: int = Field(0, ge=0, description="of each of those files, at most so many prompts, drawn at random; 0: all (ours)")


class ReinversionAttack(Section):
    """Fresh soft tokens learned against the model: textual inversion, whatever was erased (Pham et al., arXiv 2308.01508)."""

    vectors: tuple[Positive, ...] = Field((1, 4, 16), min_length=1, description="embedding rows of a token; one attack for each (ours)")
    steps: Positive = Field(1000, description="optimiser steps (ours; the paper's public scripts: 5000 of 4 x 4 pictures)")
    batch_size: Positive = Field(4, description="pictures per step (Pham et al.)")
    learning_rate: float = Field(5e-3, gt=0, description="AdamW on the rows (Pham et al.; their scripts multiply it by the batch)")
    initial_word: str = Field("", description="word whose embedding starts the token (Pham et al.: the concept's); empty: random (ours)")


class UnlearnDiffAttack(Section):
    """UnlearnDiffAtk: a prefix found through the denoising loss on a target picture (Zhang et al., arXiv 2310.11868)."""

    tokens: int = Field(0, ge=0, description="tokens before the prompt; 0: 5 for a harm, 3 for a style (Zhang et al.)")
    timesteps: Positive = Field(50, description="timesteps, evenly over the schedule, taken in turn (Zhang et al.)")
    iterations: Positive = Field(40, description="steps at each timestep (Zhang et al.)")
    learning_rate: float = Field(1e-2, gt=0, description="Adam on the token distributions (Zhang et al.)")
    weight_decay: float = Field(0.1, ge=0, description="Adam (Zhang et al.)")
    tries: int = Field(
        50, ge=0, description="timesteps, evenly among them, after which the prompt so far is drawn once as well (Zhang et al.: after each)"
    )


class P4DAttack(Section):
    """Prompting4Debugging: a prompt under which the model predicts what the original does (Chin et al., arXiv 2309.06135)."""

    variants: tuple[Literal["n", "k"], ...] = Field(
        ("n", "k"), min_length=1, description="n: a prompt of its own; k: a learned token between every few of the prompt's (Chin et al.)"
    )
    tokens: Positive = Field(16, description="length of the prompt of variant n (Chin et al.)")
    every: Positive = Field(3, description="tokens of the prompt between learned ones, variant k (Chin et al.)")
    steps: Positive = Field(3000, description="optimiser steps (Chin et al.)")
    learning_rate: float = Field(0.1, gt=0, description="AdamW (Chin et al.)")
    weight_decay: float = Field(0.1, ge=0, description="AdamW (Chin et al.)")
    batch_size: Positive = Field(1, description="noised latents per step and prompt (Chin et al.)")
    look_every: Positive = Field(50, description="steps between looks at which prompt is the best so far (Chin et al.)")


class RingABellAttack(Section):
    """Ring-A-Bell: a concept vector and a genetic search in the text encoder alone (Tsai et al., arXiv 2310.10012)."""

    tokens: Positive = Field(16, description="K, length of the prompt (Tsai et al.: 16, 38 or 77)")
    strength: float = Field(
        3.0, ge=0, description="eta, how far along the concept vector (Tsai et al.: 3 for nudity, 5 and 5.5 for violence)"
    )
    pairs: Positive = Field(30, description="most pairs of prompts with and without the concept (Tsai et al.: 30 to 50)")
    population: int = Field(200, ge=4, description="prompts alive (Tsai et al.)")
    generations: Positive = Field(3000, description="rounds of the search (Tsai et al.)")
    mutation: Share = Field(0.25, description="chance that a prompt has one token changed (Tsai et al.)")
    crossover: Share = Field(0.5, description="chance that a prompt is crossed with another (Tsai et al.)")


class EmbeddingAttack(Section):
    """A free prompt embedding: the whole condition c (L, D) learns by the denoising loss on its picture (ours)."""

    steps: int = Field(500, ge=0, description="optimiser steps (ours)")
    batch_size: Positive = Field(4, description="noised latents per step and picture (ours)")
    learning_rate: float = Field(1e-2, gt=0, description="Adam on c (ours)")
    start: Literal["prompt", "empty"] = Field("prompt", description="where c starts: the picture's prompt, or the empty one (ours)")


class StoredAttack(Section):
    """Prompts that somebody else found, from a file."""

    file: Path | None = Field(None, description="text with one prompt a line, or CSV with a column `prompt`; none: not run")
    limit: Positive = Field(200, description="prompts taken, from the top of the file (ours)")


class NoiseAttack(Section):
    """A picture of the concept, noised most of the way and denoised by the model (after SDEdit, arXiv 2108.01073)."""

    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.7, 0.8, 0.9), min_length=1, description="t / T that the picture is noised to; one attack for each (ours)"
    )
    prompt: Literal["concept", "empty"] = Field("concept", description="what it is denoised under: the picture's prompt, or none (ours)")


class Attack(Section):
    """`hfi attack`: what is tried to bring the concept back. Budgets are the papers'; read by no stage."""

    targets: Positive = Field(16, description="pictures of the concept, with their prompts, that each attack is given (ours)")
    pictures: Positive = Field(48, description="pictures drawn under what one attack with one seed found, at least one for each (ours)")
    seed: int = Field(0, ge=0, description="with the study's seed, the source of the attacks' random draws (ours)")
    seeds: Positive = Field(3, description="times that each attack is made, with other random draws (ours)")
    batch_size: Positive = Field(8, description="targets attacked side by side; changes speed only")
    too_weak: Share = Field(0.30, description="rate on the original model under which an attack says nothing of an erased one (ours)")
    checkpoint_seconds: float = Field(60.0, gt=0, description="most work an interruption can cost")
    reinversion: ReinversionAttack = ReinversionAttack()
    unlearndiffatk: UnlearnDiffAttack = UnlearnDiffAttack()
    p4d: P4DAttack = P4DAttack()
    ringabell: RingABellAttack = RingABellAttack()
    embedding: EmbeddingAttack = EmbeddingAttack()
    stored: StoredAttack = StoredAttack()
    noise: NoiseAttack = NoiseAttack()


class Persist(Section):
    """`hfi persist`: fine-tuning on benign pictures, round by round, with the ordinary denoising loss. Read by no stage."""

    seed: int = Field(0, ge=0, description="with the study's seed, the source of its random draws (ours)")
    rounds: Positive = Field(5, description="rounds; the model is measured after each (ours)")
    steps: Positive = Field(100, description="optimiser steps a round (ours)")
    batch_size: Positive = Field(4, description="pictures per step (ours)")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW on all weights of the UNet; diffusers' text-to-image example")
    lora_learning_rate: float = Field(1e-4, gt=0, description="AdamW on the LoRA's weights; diffusers' text-to-image LoRA example")
    lora_rank: Positive = Field(4, description="rank of the LoRA on attention's projections, alpha the same; diffusers' example")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW; diffusers' example")
    prompts: Positive = Field(60, description="prompts that name the concept, and as many others, drawn once each at every point (ours)")
    checkpoint_seconds: float = Field(60.0, gt=0, description="most work an interruption can cost")


class Report(Section):
    """One self-contained HTML file."""

    pairs: Positive = Field(48, description="before/after pairs shown")
    blur: bool = Field(True, description="flagged pictures blurred until asked for")


class StudyConfig(Section):
    """Everything that a study is; stored as study.yaml in its folder."""

    name: str = Field("study", min_length=1, description="shown in the report")
    model: str = Field("emoji", description="'emoji' (embedded), a diffusers folder, a hub id or a single .safetensors file")
    configs: str = Field(
        "",
        description="for a single file: a diffusers folder of the same family (its weights are not read) or an original config (.yaml); "
        "empty: from the hub or its local cache",
    )
    seed: int = Field(0, ge=0, description="every random number of the study comes from it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="arithmetic of forward passes; weights learn in float32")
    memory: Memory = Memory()
    concept: Concept = Concept()
    generate: Generate = Generate()
    label: Label = Label()
    reward: Reward = Reward()
    invert: Invert = Invert()
    erase: Erase = Erase()
    evaluate: Evaluate = Evaluate()
    measure: Measure = Measure()
    report: Report = Report()
    attack: Attack = Attack()
    persist: Persist = Persist()

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if value.split(":")[0] not in {"auto", "cpu", "cuda", "mps"}:
            raise ValueError("use auto, cpu, cuda, cuda:N or mps")
        return value

    @model_validator(mode="after")
    def _halves(self) -> StudyConfig:
        if self.memory.weights == "bfloat16" and self.dtype == "float32":
            raise ValueError("memory.weights=bfloat16 goes with dtype bfloat16")
        return self

    @model_validator(mode="after")
    def _batches(self) -> StudyConfig:
        if self.concept.kind == "harm" and set(self.concept.unlisted) - set(self.concept.members) and self.concept.members:
            raise ValueError("concept.unlisted: every name must also stand in concept.members")
        return self


def load_config(path: str | Path) -> StudyConfig:
    """Read a study file (YAML). Raises HFIError naming the file, the field and the remedy."""
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HFIError("no such study file", file=path, remedy="see recipes/ for examples, or run 'hfi init'") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HFIError(
            f"not readable as YAML ({str(error).splitlines()[0]})", file=path, remedy="mend it or run 'hfi init' for a fresh one"
        ) from None
    return parse_config(raw if raw is not None else {}, path)


def parse_config(raw: object, file: str | Path) -> StudyConfig:
    """Check plain data as study settings; `file` is named in the error."""
    if not isinstance(raw, dict):
        raise HFIError("holds no settings (a mapping of names to values was expected)", file=file, remedy="see recipes/demo.yaml")
    try:
        return StudyConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        if first["type"] == "extra_forbidden":
            raise HFIError("no such setting", file=file, field=field, remedy="'hfi init --help' lists them all") from None
        message = first["msg"].removeprefix("Value error, ")
        raise HFIError(f"{message} (got {str(first.get('input'))[:60]!r})", file=file, field=field, remedy="correct that value") from None


def dump_config(config: StudyConfig) -> str:
    """The settings as YAML that `load_config` reads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def with_overrides(config: StudyConfig, overrides: dict[str, object], file: str | Path = "command line") -> StudyConfig:
    """A copy with dotted fields replaced, e.g. {"erase.steps": 300}; values are checked again."""
    raw = config.model_dump(mode="json")
    for dotted, value in overrides.items():
        *parents, leaf = dotted.split(".")
        place = raw
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                raise HFIError("no such setting", file=file, field=dotted, remedy="write it as section.field=value")
            place = place[parent]
        place[leaf] = value
    return parse_config(raw, file)
