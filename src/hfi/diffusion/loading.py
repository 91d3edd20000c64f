"""A pipeline from a folder, the hub or a single file, part by part: every weight must have its place and every place its weight.

The libraries only log a warning for keys that are missing (random weights) or left over; here both are errors. Parts are
of the classes that hfi.diffusion.families names, so nothing that a checkpoint brings along is ever run.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from hfi.diffusion.checks import check_folder, check_single, part_of_key, read_index
from hfi.diffusion.families import FAMILIES, Family, check_parts, family_of
from hfi.diffusion.identity import model_folder
from hfi.errors import HFIError

SD3_PROJECTION = "text_encoders.clip_l.transformer.text_projection.weight"
KEPT_OUT = ("position_ids",)  # buffers that older files hold and newer classes compute


def load_pipeline(source: str, configs: str | Path = "") -> Any:
    """A diffusers pipeline with float32 weights on the CPU, from 'emoji', a folder, a hub id or a single .safetensors file."""
    from diffusers.utils import logging

    from hfi.diffusion.model import quiet_loading

    logging.set_verbosity_error()
    with warnings.catch_warnings(), quiet_loading():
        warnings.simplefilter("ignore")
        folder = model_folder(source)
        if folder is not None and folder.is_file():
            return _single_file(folder, configs)
        if folder is None:
            if source.startswith((".", "/", "~")) or source.count("/") != 1:
                raise HFIError(
                    "unknown model",
                    file=source,
                    field="model",
                    remedy="use 'emoji', a diffusers folder, a .safetensors file or a hub id like CompVis/stable-diffusion-v1-4; "
                    "'hfi models' lists what is supported",
                )
            folder = _from_hub(source)
        return _from_folder(folder, source)


def _from_folder(folder: Path, name: str) -> Any:
    import diffusers
    import transformers

    index = read_index(folder, name)
    family = family_of(index, name)
    check_parts(index, family, name)
    there = [encoder for encoder in family.encoders if (index.get(encoder.part) or [None, None])[1] is not None]
    network, network_kind = family.network
    variant = check_folder(folder, [network, "vae", *(encoder.part for encoder in there)])
    parts: dict[str, Any] = {}
    for part, library, kind in [
        (network, diffusers, network_kind),
        ("vae", diffusers, "AutoencoderKL"),
        *((encoder.part, transformers, encoder.kind) for encoder in there),
    ]:
        parts[part] = _part(getattr(library, kind), folder, part, variant, name)
    for encoder in family.encoders:
        tokenizer = transformers.T5Tokenizer if encoder.kind == "T5EncoderModel" else transformers.CLIPTokenizer
        parts.setdefault(encoder.part, None)
        parts[encoder.tokenizer] = _small(tokenizer, folder, encoder.tokenizer, name) if encoder in there else None
    library, scheduler = (index.get("scheduler") or [None, None])[:2]
    if library != "diffusers" or not str(scheduler).endswith("Scheduler") or not hasattr(diffusers, str(scheduler)):
        raise HFIError(
            f"its scheduler {scheduler} is not one of diffusers'", file=name, field="scheduler", remedy="use a scheduler of diffusers'"
        )
    parts["scheduler"] = _small(getattr(diffusers, scheduler), folder, "scheduler", name)
    if family.key == "sd":
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if family.key == "sdxl":
        parts |= {"force_zeros_for_empty_prompt": index.get("force_zeros_for_empty_prompt", True), "add_watermarker": False}
    return getattr(diffusers, family.pipeline)(**parts)


def _part(kind: Any, folder: Path, part: str, variant: str, name: str) -> torch.nn.Module:
    """One network; raises HFIError for weights that are missing, left over or of another shape."""
    chosen = {"variant": variant} if variant and any(f".{variant}" in path.name for path in (folder / part).glob("*.safetensors")) else {}
    dtype = {"torch_dtype" if kind.__module__.startswith("diffusers") else "dtype": torch.float32}
    try:
        network, report = kind.from_pretrained(
            str(folder / part), use_safetensors=True, local_files_only=True, output_loading_info=True, **dtype, **chosen
        )
    except Exception as error:  # the libraries raise many kinds here; all mean the same to the user
        raise _damaged(error, name, part) from error
    _complete(report, network, name, part)
    return network


def _complete(report: dict, network: torch.nn.Module, name: str, part: str) -> None:
    missing = sorted({*report["missing_keys"], *(key for key, value in network.state_dict().items() if value.is_meta)})
    left = sorted(key for key in report["unexpected_keys"] if not key.endswith(KEPT_OUT))
    wrong = sorted(str(entry[0] if isinstance(entry, (tuple, list)) else entry) for entry in report.get("mismatched_keys", ()))
    for keys, word in ((missing, "missing"), (left, "left over"), (wrong, "of another shape")):
        if keys:
            raise HFIError(
                f"{len(keys)} weights of {part} are {word}, this is the first",
                file=name,
                field=keys[0],
                remedy="the files are damaged or of another model; get the pipeline whole",
            )


def _small(kind: Any, folder: Path, part: str, name: str) -> Any:
    """A tokenizer or scheduler."""
    try:
        return kind.from_pretrained(str(folder / part), local_files_only=True)
    except Exception as error:
        raise _damaged(error, name, part) from error


def _damaged(error: Exception, name: str, part: str) -> HFIError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:140]
    remedy = "the folder is damaged or of another family; write it again with save_pretrained (safetensors)"
    return HFIError(f"cannot be loaded ({first})", file=name, field=f"model ({part})", remedy=remedy)


def _from_hub(source: str) -> Path:
    """The snapshot of a hub pipeline in the local cache; downloads what is missing, and answers gated and offline models in one line."""
    from diffusers import DiffusionPipeline

    errors = []
    for variant in (None, "fp16"):
        try:
            return Path(
                DiffusionPipeline.download(source, use_safetensors=True, variant=variant, safety_checker=None, feature_extractor=None)
            )
        except Exception as error:
            errors.append(error)
            if not isinstance(error, (ValueError, OSError)) or _hub_trouble(error):
                break
    raise HFIError(*_hub_words(errors[0], source)[:1], file=source, field="model", remedy=_hub_words(errors[0], source)[1]) from errors[0]


def _hub_trouble(error: BaseException) -> str:
    """gated, unknown or offline, from the chain of an error's causes; "" for none of them."""
    kinds = {"GatedRepoError": "gated", "RepositoryNotFoundError": "unknown", "OfflineModeIsEnabled": "offline",
             "LocalEntryNotFoundError": "offline", "ConnectionError": "offline", "ConnectError": "offline", "ConnectTimeout": "offline",
             "ReadTimeout": "offline", "ProxyError": "offline"}  # fmt: skip
    seen: BaseException | None = error
    while seen is not None:
        for kind in type(seen).__mro__:
            if kind.__name__ in kinds:
                return kinds[kind.__name__]
        seen = seen.__cause__ or seen.__context__
    return "offline" if "offline" in str(error).lower() or "couldn't connect" in str(error).lower() else ""


def _hub_words(error: Exception, source: str) -> tuple[str, str]:
    """What is wrong with a hub id, and the remedy."""
    trouble = _hub_trouble(error)
    if trouble == "gated":
        return "is gated: its owner asks for consent", f"accept the licence at https://huggingface.co/{source}, then 'hf auth login'"
    if trouble == "unknown":
        return "is not on the hub, or private", "check the name; for a private model 'hf auth login'"
    if trouble == "offline":
        return "is not in the local cache and the hub cannot be reached", f"run 'hf download {source}' with a network, or give a folder"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:140]
    return f"cannot be loaded ({first})", "check the name, the network and, for gated models, 'hf auth login'"


def _single_file(path: Path, configs: str | Path) -> Any:
    """A checkpoint in the layout of A1111 and ComfyUI, by diffusers' own conversion, with every number accounted for."""
    import diffusers

    key, header = check_single(path)
    family, place = FAMILIES[key], Path(configs) if configs else None
    if place is not None and not place.exists():
        raise HFIError(
            "no such folder or file", file=place, field="configs", remedy="give a diffusers folder or an original config (.yaml)"
        )
    options: dict[str, Any] = {}
    if place is not None and place.is_dir():
        index = read_index(place, str(place))
        if family_of(index, str(place)) != family:
            raise HFIError(f"is of another family than the checkpoint, which is {family.title}", file=place, field="configs",
                           remedy="give the configs of a model of that family")  # fmt: skip
        check_parts(index, family, str(place))
        options = {"config": str(place), "local_files_only": True}
    elif place is not None:
        options = {"original_config": str(place)}
    if key == "sd":
        options |= {"safety_checker": None, "feature_extractor": None}
    try:
        pipeline = getattr(diffusers, family.pipeline).from_single_file(str(path), **options)
    except Exception as error:
        if "meta" in str(error):  # torch's word for a weight that nothing was loaded into
            raise HFIError("weights are missing", file=path, field="model",
                           remedy="the file is damaged, or the configs are another model's") from error  # fmt: skip
        if _hub_trouble(error) or "config" in str(error).lower():
            raise HFIError(
                "its configs and tokenizers are not on this disk and the hub cannot be reached",
                file=path,
                field="configs",
                remedy="set 'configs' to a diffusers folder of the same family (its weights are not read)",
            ) from error
        raise _damaged(error, str(path), "single file") from error
    if SD3_PROJECTION in header:  # diffusers 0.42 puts the identity in its place
        from safetensors import safe_open

        with safe_open(path, "pt") as opened, torch.no_grad():
            pipeline.text_encoder.text_projection.weight.copy_(opened.get_tensor(SD3_PROJECTION))
    _account(pipeline, family, header, path)
    return pipeline


def _account(pipeline: Any, family: Family, header: dict[str, tuple[str, tuple[int, ...]]], path: Path) -> None:
    """No weight without a value; network and autoencoder hold as many numbers as the file has for them (conversion only renames)."""
    from hfi.diffusion.model import parts_of

    parts = parts_of(pipeline, family)
    for part, network in parts.items():
        _complete({"missing_keys": (), "unexpected_keys": ()}, network, str(path), part)
    counted = []
    for part, label in ((family.network[0], "network"), ("vae", "vae")):
        stored = sum(_count(shape) for key, (_, shape) in header.items() if part_of_key(key) == label)
        held = sum(value.numel() for value in parts[part].state_dict().values())
        counted.append((part, stored, held))
    words = {key: shape for key, (_, shape) in header.items() if part_of_key(key) == "text encoders" and not key.endswith(KEPT_OUT)}
    if all(key.startswith("cond_stage_model.transformer.") for key in words):  # SD 1: only renamed; OpenCLIP's last layer is dropped
        held = sum(value.numel() for value in parts["text_encoder"].state_dict().values())
        counted.append(("text_encoder", sum(map(_count, words.values())), held))
    for part, stored, held in counted:
        if stored != held:
            word = f"{stored - held} numbers are left over" if stored > held else f"{held - stored} numbers are missing"
            raise HFIError(word, file=path, field=part, remedy="the file is damaged, or the configs are another model's")


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
