"""Pictures that a stranger wrote, cached CLIP embeddings, and judges."""

from __future__ import annotations

import struct
import zlib

import pytest
import torch
from PIL import Image

from hfi.diffusion.prompts import load_vocabulary
from hfi.errors import HFIError
from hfi.perception import clip as clip_module
from hfi.perception.clip import load_encoder
from hfi.perception.judges import load_judge
from hfi.perception.pictures import open_picture, to_tensor


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for i in range(5):
        data = torch.rand(48, 40, 3, generator=torch.Generator().manual_seed(i))
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray((data * 255).byte().numpy()).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def encoder(tiny_root):
    return load_encoder(str(tiny_root / "clip"))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(9000, 9000), (60000, 60000)])
def test_a_decompression_bomb_is_named_and_not_decoded(tmp_path, size):
    (tmp_path / "bomb.png").write_bytes(png_header(*size))
    with pytest.raises(HFIError, match=r"bomb\.png: .*pixels"):
        open_picture(tmp_path / "bomb.png")


def test_truncated_missing_and_foreign_files_are_named(tmp_path, pictures):
    whole = pictures[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    for name, words in [("cut.png", "truncated"), ("empty.png", "not a PNG"), ("text.png", "not a PNG"), ("gone.png", "no such picture")]:
        with pytest.raises(HFIError, match=rf"{name}: .*{words}") as caught:
            open_picture(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_transparency_lies_over_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_embeddings_are_normalised_cached_and_survive_a_damaged_cache(encoder, pictures, tmp_path, monkeypatch):
    plain = encoder.images(pictures)
    assert torch.allclose(plain.norm(dim=1), torch.ones(5), atol=1e-5) and plain.shape == (5, encoder.width)
    assert torch.equal(encoder.images(pictures, cache=tmp_path / "cache"), plain)
    file = next((tmp_path / "cache").glob("*.safetensors"))
    with monkeypatch.context() as patch:
        patch.setattr(clip_module, "open_picture", lambda *_: pytest.fail("a cached picture was opened"))
        assert torch.equal(encoder.images(pictures[::-1], cache=tmp_path / "cache"), plain.flip(0))
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(encoder.images(pictures, cache=tmp_path / "cache"), plain)


def test_files_pil_and_tensors_embed_alike(encoder, pictures):
    opened = [open_picture(path) for path in pictures]
    assert torch.equal(encoder.images(opened), encoder.images(pictures))
    assert torch.equal(encoder.images(to_tensor(opened)), encoder.images(pictures))


def test_a_changed_picture_is_embedded_again(encoder, pictures, tmp_path):
    before = encoder.images(pictures, cache=tmp_path / "cache")
    Image.new("RGB", (40, 48), (200, 0, 0)).save(pictures[0])
    after = encoder.images(pictures, cache=tmp_path / "cache")
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1:], after[1:])


def test_unknown_encoders_are_refused_in_one_line(tmp_path):
    (tmp_path / "hollow").mkdir()
    for source in ["nothing", str(tmp_path / "hollow"), "/no/such/folder"]:
        with pytest.raises(HFIError, match="encoder") as caught:
            load_encoder(source)
        assert "\n" not in str(caught.value)


def test_the_word_judge_chooses_among_all_objects_and_neither(tiny_root, pictures):
    vocabulary = load_vocabulary(str(tiny_root / "vocabulary.json"))
    judge = load_judge(f"clip:{tiny_root / 'clip'}", vocabulary)
    assert judge.objects[-1] == "neither" and set(judge.objects[:-1]) == set(vocabulary.objects) and judge.styles == ("ink", "chalk")
    seen = judge(to_tensor([open_picture(path) for path in pictures]))
    assert seen.object_probs.shape == (5, 13) and seen.style_probs.shape == (5, 2)
    assert torch.allclose(seen.object_probs.sum(1), torch.ones(5), atol=1e-5)
    assert torch.equal(seen.object, seen.object_probs.argmax(1)) and seen.style.dtype == torch.long


@pytest.mark.parametrize("spec", ["emoji:nobody", "clip:", "somebody", ""])
def test_unknown_judges_are_refused(tiny_root, spec):
    with pytest.raises(HFIError, match="unknown judge"):
        load_judge(spec, load_vocabulary(str(tiny_root / "vocabulary.json")))


def test_a_siglip_serves_as_encoder_with_its_own_cache(tmp_path, pictures, monkeypatch):
    """Its embeddings are transformers' own, with the PIL backend; the cache of a CLIP is never mistaken for its own."""
    from transformers import SiglipImageProcessorPil, SiglipModel

    import tiny_families

    folder = tiny_families.save_siglip(tmp_path / "siglip")
    siglip = load_encoder(str(folder))
    found = siglip.images(pictures, cache=tmp_path)
    opened = [Image.open(path).convert("RGB") for path in pictures]
    pixels = SiglipImageProcessorPil.from_pretrained(folder)(images=opened, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        theirs = SiglipModel.from_pretrained(folder).get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(found, torch.nn.functional.normalize(theirs, dim=-1))
    assert found.shape == (5, siglip.width) and type(siglip.processor) is SiglipImageProcessorPil and siglip.logit_scale > 0
    texts = siglip.texts(["a cat", "dog"])
    assert texts.shape == (2, siglip.width) and not torch.equal(*texts)
    monkeypatch.setattr(type(siglip), "_embed_all", lambda *_: pytest.fail("embedded again"))
    assert torch.equal(siglip.images(pictures, cache=tmp_path), found)


def test_an_encoder_of_another_kind_is_named(tmp_path, tiny_root):
    with pytest.raises(HFIError, match="it is a clip_text_model model"):
        load_encoder(str(tiny_root / "pipeline" / "text_encoder"))
