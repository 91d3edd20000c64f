"""Settings of what looks at a finished study: further measures, attacks, and training that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hfi.config.base import Positive, Section, Share


class HubPrompts(Section):
    """How many prompts HUB's measures take (Moon et al., arXiv 2410.05664)."""

    nearest: Positive = Field(50, description="words nearest to the concept (ours; HUB ranks 1000 nouns of WordNet)")
    words: Positive = Field(100, description="prompts of those words, in turn (ours)")
    each_language: Positive = Field(16, description="prompts of each language that the vocabulary has words of (ours)")
    rest: Positive = Field(40, description="prompts that ask for something beside the concept (ours)")


class Measure(Section):
    """`hfi measure`: what users of other tools expect. No stage reads this, so nothing is drawn again or goes stale for it."""

    measures: tuple[str, ...] = Field(
        (),
        description="detectors with their threshold, 'nudenet@0.45', 'q16:FILE@0.9', 'classifier:FOLDER#label@0.5', "
        "'clip:FOLDER#words@0.3'; distances, 'fid', 'kid', 'cmmd', 'lpips', 'clip_score', with another network as 'fid:FOLDER'; and the "
        "benchmarks 'unlearncanvas' and 'hub' (ours)",
    )
    prompts: tuple[Path, ...] = Field(
        (), description="published prompt files (I2P, UnlearnDiffAtk, Ring-A-Bell, COCO) to draw from before and after (ours)"
    )
    category: str = Field("", description="of those files, the prompts of this category alone; empty: all (ours)")
    at_least: dict[str, float] = Field({}, description="of those files, the rows whose number in a column is at least this (ours)")
    most: int = Field(0, ge=0, description="of each of those files, at most so many prompts, drawn at random; 0: all (ours)")
    grid: int = Field(
        20, ge=2, description="objects, and at most so many styles, of UnlearnCanvas's grid (ours; Zhang et al., arXiv 2402.11846: 20 x 60)"
    )
    hub: HubPrompts = HubPrompts()
    translations: Path | None = Field(
        None, description="the vocabulary's objects in other languages, JSON {language: {object: its name there}}, for hub (ours)"
    )


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

    shares: tuple[Annotated[float, Field(ge=0.7, le=1)], ...] = Field(
        (0.7, 0.8, 0.9), min_length=1, description="t / T that the picture is noised to, one attack for each; at least 0.7 (ours)"
    )
    prompt: Literal["concept", "empty"] = Field("concept", description="what it is denoised under: the picture's prompt, or none (ours)")


class Attack(Section):
    """`hfi attack`: what is tried to bring the concept back. Budgets are the papers'; read by no stage."""

    targets: Positive = Field(16, description="pictures of the concept, with their prompts, that each attack is given (ours)")
    choose: Literal["spread", "alike"] = Field(
        "spread",
        description="which: evenly over the order of reward, or alike by the reward's encoder, others for each seed: a token of what "
        "differs is vague (ours)",
    )
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
