"""HFI as a technique of eval-unlearn (PyPI, MIT): found by its entry point `eval_unlearn.techniques`, named `hfi`.

A technique there is a class that takes its settings as keywords and has `generate(prompts, seed, **settings) -> pictures`; picture
i is drawn with seed + i, as by its own `free_run`. Nothing of that package is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hfi.errors import HFIError


class HFITechnique:
    """An erased model under eval-unlearn.

    Settings: `model_id` (a diffusers folder or hub id), `deltas` (files or study folders; or one), `strengths`, `device`, `use_fp16`
    (on CUDA), `num_inference_steps`, `guidance_scale`, and `erase_concept`, which that package reads for its metrics.
    """

    def __init__(
        self,
        model_id: str = "CompVis/stable-diffusion-v1-4",
        deltas: Sequence[str] | str = (),
        strengths: Sequence[float] | dict[str, float] | None = None,
        device: str | None = None,
        use_fp16: bool = True,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        erase_concept: str | None = None,
        **unknown: object,
    ):
        import hfi
        from hfi.diffusion.model import pick_device

        if unknown:
            raise HFIError("no such setting", file="eval-unlearn technique hfi", field=min(unknown), remedy="see docs/export.md")
        self.erase_concept, self.steps, self.guidance_scale = erase_concept, num_inference_steps, guidance_scale
        self.device = str(pick_device(device or "auto"))
        dtype = "float16" if use_fp16 and self.device.startswith("cuda") else "float32"
        files = [deltas] if isinstance(deltas, str) else list(deltas)
        self.pipeline = hfi.load(model_id, files, strengths, device=self.device, dtype=dtype)
        self.pipeline.set_progress_bar_config(disable=True)

    def generate(self, prompts: Sequence[str], seed: int | None = None, **settings: Any) -> list:
        """One PIL picture for each prompt."""
        import torch

        settings = {"num_inference_steps": self.steps, "guidance_scale": self.guidance_scale, **settings}
        pictures = []
        for number, prompt in enumerate(prompts):
            generator = None if seed is None else torch.Generator(self.device).manual_seed(seed + number)
            pictures.append(self.pipeline(prompt=prompt, generator=generator, **settings).images[0])
        return pictures
