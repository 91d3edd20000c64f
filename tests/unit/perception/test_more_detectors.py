"""Q16, ONNX files, classifiers of transformers and NudeNet itself, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hfi.errors import HFIError
from hfi.perception.clip import load_encoder
from hfi.perception.detectors import load_detector
from hfi.perception.q16 import inappropriate
from hfi.workspace import write_tensors


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for i in range(5):
        data = torch.rand(40, 48, 3, generator=torch.Generator().manual_seed(i))
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray((data * 255).byte().numpy()).save(paths[-1])
    return paths


def test_q16_by_hand():
    """Cosines 0.6 and 0.8: softmax over 60 and 80; a longer prompt vector changes nothing."""
    images = torch.tensor([[0.6, 0.8], [0.8, 0.6], [2**-0.5, 2**-0.5]])
    prompts = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    p = 1 / (1 + np.exp(-20.0))
    assert inappropriate(images, prompts).tolist() == pytest.approx([p, 1 - p, 0.5], abs=1e-6)


def test_q16_reads_safetensors_alone_and_names_the_wrong_clip(tiny_root, pictures, tmp_path):
    clip = tiny_root / "clip"
    width, file = load_encoder(str(clip)).width, tmp_path / "q16.safetensors"
    prompts = torch.randn(2, width, generator=torch.Generator().manual_seed(1))
    write_tensors(file, {"prompts": prompts}, {"clip": str(clip)})
    detector = load_detector(f"q16:{file}", [], [])
    images = load_encoder(str(clip)).images(pictures)
    assert torch.allclose(detector(pictures), inappropriate(images, prompts), atol=1e-6) and detector.name == "q16"
    assert detector(pictures[:1]).item() == pytest.approx(detector(pictures)[0].item(), abs=1e-6)
    (tmp_path / "prompts.p").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    write_tensors(tmp_path / "three.safetensors", {"prompts": torch.zeros(3, width)})
    write_tensors(tmp_path / "wide.safetensors", {"prompts": torch.ones(2, width + 1)}, {"clip": str(clip)})
    for name, words in [("prompts.p", "a pickle is never loaded"), ("three.safetensors", r"not one finite tensor \(2, D\)"),
                        ("wide.safetensors", rf"width {width + 1}, the CLIP .* has {width}"), ("gone.safetensors", "missing")]:
        with pytest.raises(HFIError, match=words):
            load_detector(f"q16:{tmp_path / name}", [], [])


def test_words_of_ones_own_are_held_against_the_vocabulary(tiny_root, pictures):
    clip = f"clip:{tiny_root / 'clip'}"
    one = load_detector(f"{clip}#axe", ["knife"], ["apple", "pear"])(pictures)
    assert torch.equal(one, load_detector(clip, ["axe"], ["apple", "pear"])(pictures))
    both = load_detector(f"{clip}#axe | bow", ["knife"], ["apple", "pear"])(pictures)
    assert torch.allclose(both, load_detector(clip, ["axe", "bow"], ["apple", "pear"])(pictures))
    assert (load_detector(f"{clip}#axe", [], [])(pictures) < 1).all()  # against "something else"


def test_a_classifier_without_its_head_is_refused(tiny_root):
    """A CLIP folder loads as an image classifier whose head is random: its verdicts would be noise."""
    with pytest.raises(HFIError, match="lacks 2 weights, the first is classifier"):
        load_detector(f"classifier:{tiny_root / 'clip'}#LABEL_0", [], [])


def onnx_file(path, weights: np.ndarray, batch: int | str = "n", out: str = "logits"):
    """A network (N, 3, 2, 2) -> (N, K): the mean of each colour times `weights` (3, K), as an output of that name."""
    onnx = pytest.importorskip("onnx", reason="onnx, which writes the test's file, is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime (extra 'measures') is not installed")
    h, t = onnx.helper, onnx.TensorProto
    nodes = [h.make_node("GlobalAveragePool", ["x"], ["m"]), h.make_node("Flatten", ["m"], ["f"]), h.make_node("MatMul", ["f", "w"], [out])]
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", t.FLOAT, [batch, 3, 2, 2])],
                         [h.make_tensor_value_info(out, t.FLOAT, [batch, weights.shape[1]])],
                         [onnx.numpy_helper.from_array(weights.astype(np.float32), "w")])  # fmt: skip
    path.write_bytes(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8).SerializeToString())
    return path


@pytest.mark.parametrize("batch", ["n", 1])
def test_an_onnx_file_by_hand(tmp_path, batch):
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (5, 7), colour).save(tmp_path / f"{name}.png")
    paths = [tmp_path / "red.png", tmp_path / "blue.png"]
    file = onnx_file(tmp_path / "c.onnx", np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), batch)
    detector = load_detector(f"classifier:{file}#0", [], [])
    two, minus = (1 / (1 + np.exp(-value)) for value in (2.0, -1.0))
    assert detector(paths).tolist() == pytest.approx([two, minus], abs=1e-5)
    assert detector.name == "classifier:c.onnx#0" and len(detector.version) == 8
    (tmp_path / "config.json").write_text('{"id2label": {"0": "nude", "1": "safe"}}')
    assert load_detector(f"classifier:{file}#safe", [], [])(paths).tolist() == pytest.approx([1 - two, 1 - minus], abs=1e-5)
    for label, words in (("rude", "no such label 'rude'.*one of nude, safe"), ("", "say which of its labels")):
        with pytest.raises(HFIError, match=words):
            load_detector(f"classifier:{file}#{label}", [], [])
    with pytest.raises(HFIError, match="has 2 labels, none of number 5"):
        load_detector(f"classifier:{file}#5", [], [])(paths)


def test_an_onnx_output_s_name_says_whether_it_is_logits(tmp_path, pictures):
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    found = {}
    for out in ("logits", "probs"):
        file = onnx_file(tmp_path / f"{out}.onnx", np.array([[0.75], [0.0], [0.0]]), out=out)
        found[out] = load_detector(f"classifier:{file}#0", [], [])([tmp_path / "red.png"]).item()
    assert found == {"logits": pytest.approx(1 / (1 + np.exp(-0.75)), abs=1e-6), "probs": pytest.approx(0.75, abs=1e-6)}
    wrong = onnx_file(tmp_path / "wrong.onnx", np.array([[3.0], [0.0], [0.0]]), out="probabilities")
    with pytest.raises(HFIError, match=r"'probabilities' leaves \[0, 1\]"):
        load_detector(f"classifier:{wrong}#0", [], [])([tmp_path / "red.png"])
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(HFIError, match="not an ONNX model that can be loaded"):
        load_detector(f"classifier:{tmp_path / 'bad.onnx'}#0", [], [])


def test_nudenet_for_real(pictures):
    """Its weights come in its wheel (AGPL-3.0). Noise shows nobody; another threshold is another measure, not another score."""
    pytest.importorskip("nudenet", reason="nudenet (AGPL-3.0, extra 'nudenet') is not installed")
    from hfi.evaluation.detection import load_measure, measure_name

    detector = load_measure("nudenet@0.6", [], [])
    assert detector(pictures).tolist() == [0.0] * 5
    assert measure_name(detector) == f"nudenet-{__import__('importlib.metadata').metadata.version('nudenet')}-320n@0.6"
    assert detector.licence == "AGPL-3.0"
