"""How large a model is, from its configs and the headers of its files: nothing is loaded. Imports no torch."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hfi.diffusion.checks import read_header, variant_of, weight_files
from hfi.diffusion.families import family_of, text_weights
from hfi.diffusion.identity import model_folder
from hfi.errors import HFIError


def sizes(source: str) -> dict | None:
    """{"family", "parameters" by part, "learns" (parameters of the text's weights), "token_width", "latent" (side), "channels", "pixels"}.

    None for a model that is not on this disk, and for a single file, whose configs may lie elsewhere.
    """
    folder = model_folder(source)
    if folder is None or not (folder / "model_index.json").is_file():
        return None
    try:
        index = json.loads((folder / "model_index.json").read_text())
        family = family_of(index, source)
        there = [encoder for encoder in family.encoders if (index.get(encoder.part) or [None, None])[1]]
        network, vae = (_config(folder, part) for part in (family.network[0], "vae"))
        names = [family.network[0], "vae", *(encoder.part for encoder in there)]
        variant = variant_of(folder, names)
        headers = {name: {} for name in names}
        for name in names:
            for path in weight_files(folder, name, variant):
                headers[name] |= read_header(path)
        count = {name: {key: math.prod(shape) for key, (_, shape) in header.items()} for name, header in headers.items()}
        learns = set(text_weights(count[family.network[0]]))
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        size = vae["sample_size"] if family.key == "flux" else network["sample_size"]
        side = (size if isinstance(size, int) else max(size)) // (factor if family.key == "flux" else 1)
        texts = [_config(folder, encoder.part) for encoder in there]
        return {
            "family": family.key,
            "parameters": {name: sum(parts.values()) for name, parts in count.items()},
            "learns": sum(number for key, number in count[family.network[0]].items() if key in learns),
            "token_width": sum(text.get("d_model") or text["hidden_size"] for text in texts),
            "latent": side,
            "channels": network["in_channels"] // (4 if family.key == "flux" else 1),
            "pixels": (side * factor) ** 2,
        }
    except (OSError, ValueError, KeyError, TypeError, HFIError):  # damaged, or of another layout: loading says what is wrong
        return None


def _config(folder: Path, part: str) -> dict:
    return json.loads((folder / part / "config.json").read_text())
