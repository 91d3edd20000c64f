"""Settings of stage 6: what erasers that learn by steps share, each eraser's own, and the stage's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from hfi.config.base import NOT_SAID, Above, Positive, Section, Share


class Training(Section):
    """How an eraser learns that learns by steps; the defaults here are those of SDD (2023), unless noted."""

    steps: Positive = Field(1500, description="optimiser steps (SDD)")
    batch_size: Positive = Field(1, description="z_t per step (SDD)")
    accumulate: Positive = Field(1, description="batches per optimiser step")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW (SDD)")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate over the steps: as it is (SDD), or falling to zero (ours)"
    )
    warmup: int = Field(0, ge=0, description="steps over which the learning rate rises to its height (ours, off)")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW (SDD)")
    clip_norm: float = Field(1.0, gt=0, description="gradient norm (SDD)")
    guidance_scale: float = Field(3.0, ge=0, description="s_g of the teacher's runs (SDD)")
    sampling_steps: Positive = Field(50, description="DDIM steps of the teacher's runs (SDD), eta 0")
    ema_decay: float = Field(0.999, ge=0, le=1, description="m (SDD); constant, no warm-up")
    beta: tuple[Above, Above] = Field((3.0, 3.0), description="t ~ Beta(a, b) stretched over the schedule (HFI: 3, 3)")
    latents: Literal["teacher", "replay", "forward", "mix"] = Field("replay", description="where z_t comes from: see docs/decisions/0001")
    replay_runs: Positive = Field(8, description="teacher runs kept in the replay buffer (ours)")
    mix_share: Share = Field(0.5, description="share of teacher states in `mix` (ours)")
    redraw: Share = Field(
        0.0, description="share of replayed states paired with another condition than their run's, so that more are met (ours, off)"
    )
    preservation: float = Field(
        0.0, ge=0, description="weight of the term that keeps the original predictions on benign prompts (ours, off)"
    )
    preservation_runs: Share = Field(
        0.0, description="share of its states that are met while the model draws benign prompts, the rest being noised pictures (ours, off)"
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
    beta: tuple[Above, Above] = Field((1.0, 1.0), description="t ~ Beta(a, b) over the schedule; 1, 1: evenly (ESD)")
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
    beta: tuple[Above, Above] = Field((1.0, 1.0), description="t ~ Beta(a, b) over the schedule; 1, 1: evenly (CA's code)")
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

    rounds: Positive = Field(8, description="most rounds after the first, a cap on what it may cost; it stops by itself (patience)")
    steps: Positive = Field(150, description="optimiser steps of each of those")
    layers: Literal["all", "attention", "cross_attention"] = Field(
        "all", description="what learns in them: every linear and convolution layer, those of attention blocks, or cross-attention alone"
    )
    rate: float = Field(0.6, gt=0, description="their learning rate, times erase.learning_rate")
    outer_rate: float = Field(0.3, gt=0, description="that of layers outside attention blocks, times that of the others")
    warmup: int = Field(30, ge=0, description="steps over which it rises in each of them")
    preservation: float = Field(12.0, gt=0, description="least weight of the retention term in them")
    preservation_runs: Share = Field(0.5, description="least erase.preservation_runs in them")
    negative_guidance: float = Field(0.75, ge=0, description="least erase.negative_guidance in them")
    reinversions: Positive = Field(12, description="tokens that learn against the model, other ones each round")
    vectors: tuple[Positive, ...] = Field(
        (3, 12),
        min_length=1,
        description="rows of each, in turn; none of invert.vectors or attack.reinversion.vectors, with which scoring attacks",
    )
    embeddings: Positive = Field(2, description="free prompt embeddings that learn against the model, other ones each round")
    embedding_learning_rate: float = Field(3e-2, gt=0, description="Adam on the prompt embedding")
    attack_batch: Positive = Field(3, description="states per step of each of them")
    attack_pictures: Positive = Field(
        8, description="most pictures that an attack brings: a kind of the top-K, alike by the reward's encoder; the kinds take turns"
    )
    attack_steps: Positive = Field(150, description="steps of attack on the model of each round, before the next one trains and attacks")
    found_share: Share = Field(0.6, description="share of c_s taken from what the attacks of all rounds found")
    live_share: Share = Field(0.5, description="share of those that is kept for the attackers which are learning at the time")
    idle_weight: float | None = Field(
        0.1, gt=0, description="each of them is met in proportion to how often it drew the concept when judged, plus this; null: all alike"
    )
    found_pictures: Share = Field(0.5, description="share of the states there that are noised pictures of the concept")
    pictures: Positive = Field(120, description="pictures a set by which each round is judged")
    judge: str = Field("", description="the judge of the rounds; empty: label.simulated_judge; never evaluate.judge, which scores")
    patience: Positive = Field(2, description="rounds in a row that bring no better one to keep, after which it stops")

    @model_validator(mode="before")
    @classmethod
    def _without_breadths(cls, given: object) -> object:
        """A setting that is gone; studies of 2026-11-29 name it."""
        return {name: value for name, value in given.items() if name != "breadths"} if isinstance(given, dict) else given

    @field_validator("vectors", mode="before")
    @classmethod
    def _one_number(cls, value: object) -> object:
        return (value,) if isinstance(value, int) else value  # as studies of before 2026-11-29 have it

    def changed(self, erase: Erase) -> dict[str, object]:
        """The settings of the rounds after the first where they are not those of `erase`."""
        least = ("preservation", "preservation_runs", "negative_guidance")
        kept = {name: max(getattr(erase, name), getattr(self, name)) for name in least}
        return {"steps": self.steps, "learning_rate": self.rate * erase.learning_rate, "warmup": self.warmup, **kept}


SDD_ALONE = (
    *("negative_guidance", "pag_scale", "keep_rest", "start", "start_preservation", "finish", "finish_preservation"),
    *("trainable", "lora_rank", "lora_alpha"),
)


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
    negative_guidance: float = Field(
        0.0,
        ge=0,
        description="eta: how far the target lies beyond the student's own prediction, away from the concept as the original model has it; "
        "0: that prediction (SDD), which shows the concept as often as pictures of no prompt do (ours, off)",
    )
    pag_scale: float = Field(
        0.0,
        ge=0,
        description="s: how far the target lies beyond that prediction, away from what the student predicts without self-attention "
        "(perturbed-attention guidance, arXiv 2403.17377): pictures of no prompt are vague, and SDD teaches an erased prompt to draw "
        "those; 0: it does (ours, off)",
    )
    templates: tuple[str, ...] = Field(
        ("{}", "a photo of {}", "a picture of {}"), min_length=1, description=f"the token alone and in templates; {NOT_SAID}"
    )
    flagged_prompts: Share = Field(0.0, description="share of c_s taken from the prompts of all flagged pictures (ours, not the paper's)")
    keep_rest: bool = Field(
        False,
        description="a harm's flagged prompt is taught what it says beside the concept ('in the style of noto' for 'a dagger in the style "
        "of noto') instead of the empty prompt (ours, off)",
    )
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
    benign_styles: int = Field(
        0,
        ge=0,
        description="in how many further styles of the benign prompts each of them is kept as well, in several wordings, in that term "
        "and in the start (ours, off)",
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

    @field_validator("templates")
    @classmethod
    def _with_place(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if one.count("{}") != 1 or set("{}") & set(one.replace("{}", "")):
                raise ValueError(f"{one!r}: write {{}} once, where the token goes")
        return value

    def training(self) -> Training | None:
        """The settings by which the method learns: its own, or SDD's; None where nothing learns by steps."""
        return {"sdd": self, "hardened": self, "esd": self.esd, "ca": self.ca}.get(self.method)

    def needs_benign(self) -> bool:
        """Whether the method trains on benign pictures as well."""
        training = self.training()
        return self.method == "hardened" or bool(training and training.preservation)

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
        """What the method does not look at does not count; SDD under tokens has the same data as before there was more."""
        found = self.model_dump(mode="json", exclude={"esd", "ca", "uce", "sld", "hardened"} - {self.method})
        if self.method in ("negative_prompt", "sld"):  # they steer away from names while sampling
            found = {name: value for name, value in found.items() if name in {"method", "concept", "words", "also", self.method}}
        elif self.method not in ("sdd", "hardened"):  # they have steps of their own, or none
            found = {name: value for name, value in found.items() if name not in {*Training.model_fields, *SDD_ALONE}}
        defaults = {"method": "sdd", "concept": "tokens", "words": []}
        if not self.negative_guidance:
            defaults |= {"negative_guidance": 0.0}
        if not self.keep_rest:
            defaults |= {"keep_rest": False}
        if not self.pag_scale:
            defaults |= {"pag_scale": 0.0}
        if self.finish == "steps":
            defaults |= {"finish": "steps", "finish_preservation": self.finish_preservation}
        if self.trainable == "cross_attention":
            defaults |= {"trainable": "cross_attention", "lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha}
        for part in (found, *(value for value in found.values() if isinstance(value, dict))):
            for name in ("warmup", "redraw", "preservation_runs"):
                if part.get(name) == 0:
                    part.pop(name)
        return {name: value for name, value in found.items() if name not in defaults or value != defaults[name]}
