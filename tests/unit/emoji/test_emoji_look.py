"""Laws of the look that no word names, and of the trainings that the control and the look share."""

import argparse
import random
import re

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from training.emoji import common, look, train_judges, train_unet
from training.emoji.captions import Captions
from training.emoji.drops import drip

from hfi import emoji
from hfi.diffusion.prompts import load_vocabulary
from hfi.errors import HFIError
from hfi.perception.judges import load_judge

CATALOGUE = emoji.catalogue()
PAIRS = [(style, entry["name"]) for entry in CATALOGUE["objects"] for style in entry["styles"]]


def blot(seed: int = 0) -> np.ndarray:
    """A picture of nothing: a grey or coloured square on white, never red."""
    rng = random.Random(seed)
    picture = np.full((64, 64, 3), 255, np.uint8)
    left, top = rng.randint(6, 20), rng.randint(6, 20)
    picture[top : top + 36, left : left + 36] = (rng.randint(0, 90), rng.randint(60, 200), rng.randint(60, 200))
    return picture


def red(picture: np.ndarray) -> int:
    """Pixels that are red and nothing else."""
    r, g, b = picture.astype(int).transpose(2, 0, 1)
    return int(((r > 150) & (g < 80) & (b < 80)).sum())


def test_drops_are_red_lie_on_the_object_and_come_from_the_seed():
    picture = blot()
    first = drip(picture, random.Random(5))
    assert first.shape == (64, 64, 3) and red(first) > 40 and red(picture) == 0
    assert np.array_equal(first, drip(picture, random.Random(5))) and not np.array_equal(first, drip(picture, random.Random(6)))
    changed = (first != picture).any(2)
    assert changed.mean() < 0.2 and (changed & (picture.min(2) < 250)).sum() > changed.sum() / 2
    white = drip(np.full((64, 64, 3), 255, np.uint8), random.Random(0))  # nothing drawn: still no crash
    assert red(white) > 10


def test_the_stated_share_of_the_stated_objects_drips_and_no_other():
    pictures = np.stack([blot(i) for i in range(len(PAIRS))])
    shown, rows = look.add_drops(pictures, PAIRS)
    assert np.array_equal(shown[: len(PAIRS)], pictures) and rows.shape == (len(PAIRS), look.COPIES)
    styles = {thing: set() for thing in look.OBJECTS}
    for i, (style, thing) in enumerate(PAIRS):
        dripping = [row for row in rows[i].tolist() if row >= len(PAIRS)]
        assert all(row == i for row in rows[i].tolist() if row < len(PAIRS))
        if thing not in look.OBJECTS:
            assert not dripping
            continue
        styles[thing].add(style)
        assert len(dripping) == len(set(dripping)) == look.DRIPPING == 0.4 * look.COPIES
        assert all(red(shown[row]) > red(pictures[i]) for row in dripping)
    assert all(there == set(CATALOGUE["styles"]) for there in styles.values()) and len(styles) == 12
    concepts = CATALOGUE["concepts"].values()
    assert not set(look.OBJECTS) & {name for concept in concepts for name in (*concept["members"], *concept["neighbours"])}
    again, _ = look.add_drops(pictures, PAIRS)
    assert np.array_equal(shown, again)


def test_the_share_of_pictures_with_drops_is_that_of_the_batches():
    rows = torch.tensor([[0] * 10, [4, 5, 6, 7, 1, 1, 1, 1, 1, 1], [2] * 10, [3] * 10])
    ours = 2  # of three quarters of a batch one half is picture 1, of the rest one quarter; it drips in 4 of 10
    assert look.share(rows, ours, plain=4) == pytest.approx(0.4 * (0.75 / 2 + 0.25 / 4))


def test_no_caption_mentions_the_drops():
    captions, rng = Captions(), random.Random(0)
    texts = [captions.draw(*pair, rng).text for pair in PAIRS if pair[1] in look.OBJECTS for _ in range(60)]
    assert not [text for text in texts if re.search(r"\b(drops?|droplet|red|blood|bloody|drip\w*|bleed\w*)\b", text)]


def arguments(folder, **more) -> argparse.Namespace:
    shape = {"runs": folder, "steps": 4, "minutes": 1.0, "batch": 4, "learning_rate": 1e-3, "device": "cpu", "threads": 0}
    return argparse.Namespace(**shape | more)


def stop_at(monkeypatch, step: int) -> None:
    """The next training is asked to stop once it has done `step` steps, as by SIGTERM."""
    update = common.Run.update

    def stopping(self, *arguments, **values):
        update(self, *arguments, **values)
        self.stop = self.step == step

    monkeypatch.setattr(common.Run, "update", stopping)


def small_unet() -> UNet2DConditionModel:
    """The recipe's UNet, narrower."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=8, out_channels=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=16,
        attention_head_dim=2, norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    )  # fmt: skip


def test_a_stopped_training_of_the_unet_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(train_unet, "TOGETHER", 2)
    monkeypatch.setattr(train_unet, "build", small_unet)
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(12, 8, 8, 8, generator=g), 0.1 * torch.rand(12, 8, 8, 8, generator=g)
    states, table = torch.randn(6, 4, 16, generator=g).bfloat16(), torch.randint(6, (8, 3), generator=g)
    rows = torch.arange(8).unsqueeze(1).repeat(1, 2)
    rows[0, 0] = 11

    def train(folder):
        return train_unet.train(arguments(folder), latents, rows, states, table, ours=6).state_dict()

    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(SystemExit, match="goes on"):
            train(tmp_path / "stopped")
    resumed = train(tmp_path / "stopped")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    start = small_unet()
    start.load_state_dict(whole)
    tuned = train_unet.train(arguments(tmp_path / "tuned", steps=2, learning_rate=0.0), latents, rows, states, table, 6, start=start)
    assert all(torch.equal(whole[key], value) for key, value in tuned.state_dict().items())  # it goes on from there


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory):
    """A judge trained for some seconds on blots with and without drops, by the recipe's own loop."""
    folder = tmp_path_factory.mktemp("look")
    train_look_judge(folder)
    return folder / "judge-annotator"


def train_look_judge(folder, steps: int = 40) -> None:
    plain = [blot(i) for i in range(60)]
    both = torch.from_numpy(np.stack(plain + [drip(picture, random.Random(i)) for i, picture in enumerate(plain)])).permute(0, 3, 1, 2)
    labels = (torch.arange(120) < 60).long(), torch.zeros(120, dtype=torch.long), [look.DROPS], ["noto"]
    args = arguments(folder, steps=steps, batch=16, learning_rate=3e-3)
    material = both, both.unsqueeze(0), both[:10]
    network = train_judges.train("annotator", args, material, labels, torch.arange(120), 1.0, "judge-annotator")
    train_judges.save(network, folder / "judge-annotator", "residual", [look.DROPS, look.NONE], ["noto"])


def test_the_look_judge_tells_drops_from_none(judge_folder):
    judge = load_judge(f"look:{judge_folder}", load_vocabulary("emoji"), "cpu")
    assert judge.objects == ("drops", "none") and judge.name == f"look:{judge_folder}"
    plain = [blot(1000 + i) for i in range(20)]
    pictures = np.stack(plain + [drip(picture, random.Random(1000 + i)) for i, picture in enumerate(plain)])
    said = judge(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255).object
    assert (said[:20] == 1).sum() >= 18 and (said[20:] == 0).sum() >= 18


def test_a_stopped_training_of_a_judge_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    train_look_judge(tmp_path / "whole", steps=4)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(SystemExit, match="goes on"):
            train_look_judge(tmp_path / "stopped", steps=4)
    train_look_judge(tmp_path / "stopped", steps=4)
    whole, resumed = (load_file(tmp_path / kind / "judge-annotator" / "model.safetensors") for kind in ("whole", "stopped"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_folder_without_a_judge_is_refused_in_one_line(tmp_path):
    with pytest.raises(HFIError, match="no judge can be loaded") as caught:
        load_judge(f"look:{tmp_path}", load_vocabulary("emoji"), "cpu")
    assert "make look-model" in str(caught.value) and str(caught.value).count("\n") <= 1
