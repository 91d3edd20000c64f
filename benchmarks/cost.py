"""One step of every costly stage on full-size architectures with random weights: seconds and peak memory, as JSON.

    python benchmarks/cost.py --models sd15 sdxl --device cuda --out cost.json
    python benchmarks/cost.py --models tiny --device cpu          # the script itself, in seconds

The configs are those of the published models, written out here; nothing is downloaded, and the pictures are noise.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from hfi.config import Erase, Memory
from hfi.diffusion.memory import save_memory
from hfi.diffusion.model import from_pipeline, pick_device, pick_dtype
from hfi.diffusion.sampling import decode, sample_latents
from hfi.diffusion.text import encode_prompts, token_width
from hfi.erasure.conditions import build_conditions
from hfi.erasure.sdd import Benign, train_sdd
from hfi.inversion.learn import Lesson, fresh_state, initial_rows, learn_tokens

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False, "steps_offset": 1}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280,
          "hidden_act": "gelu"}
DOWN, UP = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
SD15 = {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8,
        "down_block_types": DOWN, "up_block_types": UP}
SDXL = {"sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}
TINY = {"sample_size": 8, "block_out_channels": (32, 64), "cross_attention_dim": 32, "attention_head_dim": 2, "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def words() -> CLIPTokenizer:
    """A tokenizer by characters: the ids do not matter for the cost."""
    letters = [chr(code) for code in range(33, 127)]
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=77)


def text(kind, config: dict):
    return kind(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1, **config))


def build(name: str, device: torch.device):
    """A random pipeline of an architecture, its weights made on the device."""
    with torch.device(device), torch.random.fork_rng():
        torch.manual_seed(0)
        small = name == "tiny"
        widths = (16, 16, 16, 16) if small else (128, 256, 512, 512)
        vae = AutoencoderKL(latent_channels=4, block_out_channels=widths, layers_per_block=1 if small else 2,
                            norm_num_groups=8 if small else 32, down_block_types=("DownEncoderBlock2D",) * 4,
                            up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=0.13025 if name == "sdxl" else 0.18215)
        unet = UNet2DConditionModel(**{"sd15": SD15, "sdxl": SDXL, "tiny": TINY}[name])
        common = {"vae": vae, "unet": unet, "tokenizer": words(), "scheduler": DDIMScheduler(**SCHEDULE)}
        if name == "sdxl":
            return StableDiffusionXLPipeline(text_encoder=text(CLIPTextModel, CLIP_L), tokenizer_2=words(), add_watermarker=False,
                                             text_encoder_2=text(CLIPTextModelWithProjection, CLIP_G), **common)
        return StableDiffusionPipeline(text_encoder=text(CLIPTextModel, SMALL if small else CLIP_L), safety_checker=None,
                                       feature_extractor=None, requires_safety_checker=False, **common)


def measure(name: str, device: torch.device, dtype: torch.dtype, memory: Memory) -> dict:
    """Seconds and peak MiB of one step, or one picture, of every stage that runs the network."""
    model = from_pipeline(build(name, device), name, device, dtype)
    save_memory(model, memory)
    c_0, c = encode_prompts(model, [""]), encode_prompts(model, ["a cat"])
    z_0, seeds = torch.randn(2, *model.latent_shape), [1]
    conditions = build_conditions(model, {"<a>": torch.zeros(1, token_width(model))}, ("{}",), [], 0.0)
    benign = Benign(z_0, c.expand(2, -1, -1))
    learning = {"steps": 1, "batch_size": 1, "learning_rate": 1e-5, "weight_decay": 0.0, "seed": 0, "stage": "cost"}

    def erase(**changes) -> None:
        train_sdd(model, conditions, c_0, z_0, benign, Erase(steps=1, snapshots=0, **{"latents": "forward", **changes}), 0)

    steps = {
        "generate: one guided step, batch 1": lambda: sample_latents(model, c, c_0, seeds, 1, 7.5),
        "generate: decode one picture": lambda: decode(model, z_0[:1].to(device)),
        "invert: one step, batch 1": lambda: learn_tokens(
            model, [Lesson(0, fresh_state(initial_rows(model, 4, "", 0)), z_0, torch.ones(2))], **learning),
        "erase: one step, batch 1, stored latents": erase,
        "erase: one step with preservation": lambda: erase(preservation=1.0),
        "erase: one step, lora rank 16": lambda: erase(trainable="lora"),
        "evaluate: one guided step, batch 8": lambda: sample_latents(model, c.expand(8, -1, -1), c_0, range(8), 1, 7.5),
    }
    rows = {}
    for label, step in steps.items():
        try:
            step()  # plans and caches
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - began
            peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            rows[label] = {"seconds": round(seconds, 4), "peak_mib": round(peak)}
        except torch.OutOfMemoryError:
            rows[label] = {"error": "out of memory"}
            torch.cuda.empty_cache()
    counts = {"network": model.network, "vae": model.vae, "text": torch.nn.ModuleList(encoder.network for encoder in model.encoders)}
    return {"model": name, "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "dtype": str(dtype),
            "memory": memory.model_dump(), "torch": torch.__version__, "threads": torch.get_num_threads(), "steps": rows,
            "parameters": {part: sum(p.numel() for p in network.parameters()) for part, network in counts.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sd15", "sdxl"], choices=["sd15", "sdxl", "tiny"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--small", action="store_true", help="with every setting that saves memory")
    parser.add_argument("--out", help="a file for the JSON; else it is printed")
    options = parser.parse_args()
    device = pick_device(options.device)
    dtype = pick_dtype(options.dtype, device)
    memory = Memory(gradient_checkpointing=options.small, offload=options.small,
                    weights="bfloat16" if options.small and dtype == torch.bfloat16 else "float32")
    found = json.dumps([measure(name, device, dtype, memory) for name in options.models], indent=1)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as stream:
            stream.write(found + "\n")
    else:
        print(found)


if __name__ == "__main__":
    main()
