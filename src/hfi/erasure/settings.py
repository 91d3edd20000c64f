"""Settings of an erasure that contradict each other or the study's: known before anything is loaded."""

from __future__ import annotations

from hfi.config import Erase, StudyConfig
from hfi.errors import HFIError


def check_settings(study: StudyConfig, config: Erase) -> None:
    """Raise HFIError for settings of the erasure that cannot work, whatever the study's pictures are."""
    hard = config.hardened
    if config.method in ("sld", "negative_prompt") and config.save_pipeline:
        raise HFIError(
            "a method that acts while sampling leaves no changed pipeline",
            field="erase.save_pipeline",
            remedy="set it to false; the delta holds the guidance",
        )
    if config.method == "hardened" and config.trainable == "lora":
        raise HFIError(
            "hardening goes on from round to round in the weights themselves",
            field="erase.trainable",
            remedy="set it to cross_attention; 'hfi export' writes a LoRA of any delta",
        )
    for method, layers, plain in (("hardened", config.hardened.layers, "cross_attention"), ("esd", config.esd.layers, "esd-x")):
        if study.memory.weights == "bfloat16" and config.method == method and layers != plain:
            raise HFIError(
                "what learns beyond cross-attention would begin at rounded weights",
                field="memory.weights",
                remedy=f"set it to float32, or erase.{method}.layers to {plain}",
            )
    scoring = {study.invert.vectors: "invert.vectors"} | dict.fromkeys(study.attack.reinversion.vectors, "attack.reinversion.vectors")
    if config.method == "hardened" and (known := sorted(scoring.keys() & set(hard.vectors))):
        raise HFIError(
            f"scoring attacks with {known[0]} vectors as well ({scoring[known[0]]}), and what it attacks with must be new to hardening",
            field="erase.hardened.vectors",
            remedy="choose numbers that neither invert.vectors nor attack.reinversion.vectors names",
        )
    if config.method == "hardened" and (hard.judge or study.label.simulated_judge) == study.evaluate.judge:
        raise HFIError(
            f"{study.evaluate.judge} scores, so it must not choose",
            field="erase.hardened.judge",
            remedy="name another judge than evaluate.judge",
        )
