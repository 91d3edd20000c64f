"""The model families that are supported: their parts, and what each can do. Imports no torch.

A family is recognised by the pipeline class that its model_index.json names; whatever names another class, or a class of
another library, is refused before anything of it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hfi.errors import HFIError

STAGES = ("generate", "label", "reward", "invert", "erase", "evaluate", "report")
TESTED = {"torch": "2.13.0", "diffusers": "0.42.1", "transformers": "5.23.0"}  # the pins of constraints.txt
JOINT = "its attention reads text and picture in one pass, so keys and values of words are no linear map that a closed form could edit"
SELF = "its attention reads text and picture in one pass, so there is no self-attention of the picture to switch off"
VOCABULARIES = "T5's vocabulary is not CLIP's, so no row of token ids is a prompt for all of its text encoders"


@dataclass(frozen=True)
class Encoder:
    """One text encoder of a pipeline: the name of its columns in a soft token, its parts, its class, the ids that it reads (0: all)."""

    name: str
    tokenizer: str
    part: str
    kind: str  # CLIPTextModel, CLIPTextModelWithProjection or T5EncoderModel
    length: int = 0
    optional: bool = False


@dataclass(frozen=True)
class Family:
    """What is known of a family without loading a model of it.

    network: the part that denoises, and its class. cannot: what of HFI it refuses, with the reason.
    """

    key: str
    title: str
    pipeline: str
    network: tuple[str, str]
    encoders: tuple[Encoder, ...]
    predicts: str
    learns: str
    examples: tuple[str, ...]
    cannot: dict[str, str]

    def can(self) -> dict[str, bool]:
        """Stage -> supported; what a stage cannot do in part stands in `cannot`."""
        return {stage: stage not in self.cannot for stage in STAGES}


SD = Family(
    "sd",
    "Stable Diffusion 1.x, 2.x",
    "StableDiffusionPipeline",
    ("unet", "UNet2DConditionModel"),
    (Encoder("clip", "tokenizer", "text_encoder", "CLIPTextModel"),),
    "eps or v",
    "cross-attention (attn2)",
    ("CompVis/stable-diffusion-v1-4", "stabilityai/stable-diffusion-2-1"),
    {},
)
SDXL = Family(
    "sdxl",
    "Stable Diffusion XL",
    "StableDiffusionXLPipeline",
    ("unet", "UNet2DConditionModel"),
    (
        Encoder("clip_l", "tokenizer", "text_encoder", "CLIPTextModel"),
        Encoder("clip_g", "tokenizer_2", "text_encoder_2", "CLIPTextModelWithProjection"),
    ),
    "eps or v",
    "cross-attention (attn2)",
    ("stabilityai/stable-diffusion-xl-base-1.0",),
    {},
)
SD3 = Family(
    "sd3",
    "Stable Diffusion 3, 3.5",
    "StableDiffusion3Pipeline",
    ("transformer", "SD3Transformer2DModel"),
    (
        Encoder("clip_l", "tokenizer", "text_encoder", "CLIPTextModelWithProjection"),
        Encoder("clip_g", "tokenizer_2", "text_encoder_2", "CLIPTextModelWithProjection"),
        Encoder("t5", "tokenizer_3", "text_encoder_3", "T5EncoderModel", 256, optional=True),
    ),
    "flow",
    "the text stream's projections (add_q_proj, add_k_proj, add_v_proj; ours)",
    ("stabilityai/stable-diffusion-3.5-medium",),
    {
        "closed_form": JOINT,
        "perturbed_attention": SELF,
        "embedding": "diffusers' pipeline of this family loads no embeddings, and no other tool's rules for them were found",
        "token_search": VOCABULARIES,
    },
)
FLUX = Family(
    "flux",
    "FLUX.1",
    "FluxPipeline",
    ("transformer", "FluxTransformer2DModel"),
    (
        Encoder("clip_l", "tokenizer", "text_encoder", "CLIPTextModel"),
        Encoder("t5", "tokenizer_2", "text_encoder_2", "T5EncoderModel", 512),
    ),
    "flow",
    "the text stream's projections (add_q_proj, add_k_proj, add_v_proj; ours)",
    ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"),
    {
        "closed_form": JOINT,
        "perturbed_attention": SELF,
        "token_search": VOCABULARIES,
    },
)
TEXT_STREAM = (".add_q_proj.", ".add_k_proj.", ".add_v_proj.")
FAMILIES = {family.key: family for family in (SD, SDXL, SD3, FLUX)}


def text_weights(names: Iterable[str]) -> list[str]:
    """The weights through which text enters a network: of cross-attention (`attn2`), or of a joint-attention transformer's text stream."""
    names = list(names)
    return [name for name in names if any(part in name for part in TEXT_STREAM)] or [name for name in names if ".attn2." in name]


def require(key: str, what: str, field: str, file: str | Path = "study.yaml", remedy: str = "choose another setting") -> None:
    """Raise HFIError with the reason where a family cannot do something (a key of `Family.cannot`)."""
    if reason := FAMILIES[key].cannot.get(what):
        raise HFIError(f"{FAMILIES[key].title} cannot: {reason}", file=file, field=field, remedy=remedy)


def family_of(index: dict, name: str) -> Family:
    """The family of a pipeline by its model_index.json; raises HFIError for another class, and for one that brings code of its own."""
    kind = index.get("_class_name")
    for family in FAMILIES.values():
        if kind == family.pipeline:
            return family
    if isinstance(kind, list):
        raise HFIError("names a pipeline of its own, which is code to execute", file=name, field="_class_name", remedy=_REMEDY)
    raise HFIError(f"{kind} is of another family", file=name, field="_class_name", remedy=_REMEDY)


def check_parts(index: dict, family: Family, name: str) -> None:
    """Every part that is used must be there and of its family's class; raises HFIError naming the part."""
    wanted = {"vae": ("diffusers", "AutoencoderKL"), family.network[0]: ("diffusers", family.network[1])}
    wanted |= {encoder.part: ("transformers", encoder.kind) for encoder in family.encoders}
    optional = {encoder.part for encoder in family.encoders if encoder.optional}
    for part, (library, kind) in wanted.items():
        found = index.get(part)
        if found is None or found[1] is None:
            if part in optional:
                continue
            word = "text encoder" if part.startswith("text_encoder") else "part"
            raise HFIError(f"the {word} is missing", file=name, field=part, remedy=f"a whole {family.title} pipeline has it; get it whole")
        if found[0] != library:
            raise HFIError(
                f"{found[1]} is a class of its own ({found[0]}), which is code to execute", file=name, field=part, remedy=_REMEDY
            )
        if found[1] != kind:
            raise HFIError(f"is a {found[1]}, {family.title} has a {kind}", file=name, field=part, remedy=_REMEDY)


_REMEDY = "give a pipeline of a family that 'hfi models' lists, made of diffusers' and transformers' own classes"
