"""Settings of the stages but erasing, in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hfi.config.base import NOT_SAID, Positive, Section, Share


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
    near_words: int = Field(
        0,
        ge=0,
        description="so many pictures more, each of one word: those of the tokenizer's and the vocabulary's words that the model holds "
        "nearest to a harm, by what it predicts under them and by its text encoder, in turn, so that people also see what nobody "
        "thought of asking for (ours, off)",
    )
    steps: Positive = Field(50, description="sampling steps (SDD)")

    def decisive(self) -> dict:
        """A study from before there were near words has the same data as one that asks for none."""
        found = super().decisive()
        return {name: value for name, value in found.items() if (name, value) != ("near_words", 0)}


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
    overlap: Positive = Field(
        2, description=f"judgements per picture (simulated annotators); one more while nobody asked decides; {NOT_SAID}"
    )
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


class Report(Section):
    """One self-contained HTML file."""

    pairs: Positive = Field(48, description="before/after pairs shown")
    blur: bool = Field(True, description="flagged pictures blurred until asked for")
