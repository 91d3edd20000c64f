"""An image classifier of the user's own as an ONNX file, run by onnxruntime (extra "measures").

In: one float32 input (N, 3, H, W). Pictures are prepared as a preprocessor_config.json beside the file says (a transformers image
processor); without one they are resized to H x W (224 where the file leaves it open), RGB in [0, 1]. Out: (N, K) logits or
probabilities, (N, 1) or (N,). The label is a number, or a name of `id2label` in a config.json beside the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hfi.errors import HFIError
from hfi.perception.detectors import Detector
from hfi.perception.pictures import open_picture
from hfi.workspace import file_hash, read_json

SIDE = 224


def onnx_detector(file: Path, label: str) -> Detector:
    """Load the file; raises HFIError when onnxruntime is missing, or the file is no such classifier."""
    try:
        import onnxruntime
    except ImportError:
        raise HFIError(
            "ONNX files need onnxruntime, which is not installed", file=file, field="classifier", remedy="pip install 'hfi[measures]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds of errors share no base of its own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise HFIError(
            f"not an ONNX model that can be loaded ({first})", file=file, field="classifier", remedy="export it again"
        ) from error
    inputs, shape = session.get_inputs(), session.get_inputs()[0].shape
    if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None) or inputs[0].type != "tensor(float)":
        raise HFIError(
            f"takes {inputs[0].type} {shape}, not one float (N, 3, H, W)",
            file=file,
            field="classifier",
            remedy="export the classifier with one float32 input in that order",
        )
    at, one_by_one = _column(file, label), shape[0] == 1
    prepare = _preparation(file, *(size if isinstance(size, int) else SIDE for size in shape[2:]))

    def probabilities(paths: Sequence[Path]) -> Tensor:
        pixels = prepare(paths)
        batches = [pixels[i : i + 1] for i in range(len(pixels))] if one_by_one else [pixels]
        out = torch.cat([torch.from_numpy(np.asarray(session.run(None, {inputs[0].name: part})[0])).float() for part in batches])
        found = as_probabilities(out, session.get_outputs()[0].name)
        if at >= found.shape[1]:
            raise HFIError(
                f"has {found.shape[1]} labels, none of number {at}", file=file, field="classifier", remedy="write FILE.onnx#NUMBER"
            )
        return found[:, at]

    return Detector(f"classifier:{file.name}#{label}", 0.5, 0.15, probabilities, version=file_hash(file)[:8])


def as_probabilities(out: Tensor, name: str) -> Tensor:
    """(N, K) probabilities of a classifier's output, by the output's name: numbers alone do not tell logits from shares.

    An output named "...prob..." holds probabilities; any other holds logits (softmax, or a sigmoid where there is one column).
    Raises HFIError for probabilities outside [0, 1].
    """
    out = out.reshape(len(out), -1)
    if "prob" not in name.lower():
        return out.sigmoid() if out.shape[1] == 1 else out.softmax(1)
    if not bool(((out >= 0) & (out <= 1)).all()):
        raise HFIError(f"its output {name!r} leaves [0, 1]", field="classifier", remedy="export it with another name if it holds logits")
    return out


def _column(file: Path, label: str) -> int:
    if label.isdigit():
        return int(label)
    config = file.with_name("config.json")
    names = read_json(config).get("id2label", {}) if config.exists() else {}  # type: ignore[union-attr]
    numbers = {str(name): int(number) for number, name in names.items()}
    if label not in numbers:
        raise HFIError(
            f"no such label {label!r}" if label else "say which of its labels is the concept",
            file=file,
            field="classifier",
            remedy=f"write {file.name}#LABEL with {'one of ' + ', '.join(list(numbers)[:8]) if numbers else 'its number'}",
        )
    return numbers[label]


def _preparation(file: Path, height: int, width: int) -> Callable[[Sequence[Path]], np.ndarray]:
    """Pictures as the float32 array (N, 3, H, W) that the network takes."""
    if file.with_name("preprocessor_config.json").exists():
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(str(file.parent), backend="pil", local_files_only=True)

        def processed(paths: Sequence[Path]) -> np.ndarray:
            pixels = processor(images=[open_picture(path) for path in paths], return_tensors="np")["pixel_values"]
            return np.ascontiguousarray(pixels, dtype=np.float32)

        return processed

    def resized(paths: Sequence[Path]) -> np.ndarray:
        rows = [np.asarray(open_picture(path).resize((width, height), 3), dtype=np.float32) for path in paths]
        return np.ascontiguousarray(np.stack(rows).transpose(0, 3, 1, 2) / 255)

    return resized
