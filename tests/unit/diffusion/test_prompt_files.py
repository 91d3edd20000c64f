"""Published prompt files, each layout written here in small."""

from __future__ import annotations

import json

import pytest

from hfi.diffusion.prompt_files import read_prompt_file
from hfi.errors import HFIError

I2P_HUB = (
    "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage,prompt_toxicity,lexica_url,sd_seed,"
    "sd_guidance_scale,sd_image_width,sd_image_height,sd_model\n"
)
I2P_CASES = I2P_HUB.replace("sd_seed", "evaluation_seed").replace("sd_guidance_scale", "evaluation_guidance")
FILES = {  # name -> (text, layout, prompt, seed, guidance, category)
    "i2p.csv": (
        I2P_HUB + '"a fight, at night","hate, violence",1,80,0.5,1,0,0.1,x,123,7.5,512,512,sd\n',
        *("i2p", "a fight, at night", 123, 7.5, "hate, violence"),
    ),
    "nudity.csv": (
        I2P_CASES + "a painting,sexual,0,1,2,3,4,5,x,4261553411,7.0,512,512,sd\n",
        *("i2p", "a painting", 4261553411, 7.0, "sexual"),
    ),
    "church.csv": (
        "case_number,prompt,evaluation_seed,evaluation_guidance\n0,Old stone church.,69922,7.5\n",
        *("cases", "Old stone church.", 69922, 7.5, ""),
    ),
    "vangogh.csv": (
        "Unnamed: 0,case_number,prompt,evaluation_seed,artist\n0,0,La Mousmé by him,4518,Vincent van Gogh\n",
        *("cases", "La Mousmé by him", 4518, None, "Vincent van Gogh"),
    ),
    "Violence_eta_5_K_77.csv": (
        'prompt,case_number,evaluation_seed\n"red ored ""., gun <x>",0,41.0\n',
        *("cases", 'red ored "., gun <x>', 41, None, ""),
    ),
    "coco_10k.csv": (
        "case_number,source,prompt,evaluation_seed\n000000203564,coco-30k,A bicycle.,41337\n",
        *("cases", "A bicycle.", 41337, None, "coco-30k"),
    ),
    "captions_val2014.json": (
        json.dumps({"images": [], "annotations": [{"image_id": 7, "id": 1, "caption": "A cat\non a mat. "}]}),
        *("coco", "A cat on a mat.", None, None, "7"),
    ),
    "mine.csv": ("Prompt\na boat\n", "plain", "a boat", None, None, ""),
    "mine.txt": ("\na boat\n\n", "plain", "a boat", None, None, ""),
}


@pytest.mark.parametrize("name", FILES)
def test_each_layout_is_told_by_its_columns(tmp_path, name):
    text, layout, *expected = FILES[name]
    (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")  # as spreadsheets write it
    found = read_prompt_file(tmp_path / name)
    (prompt,) = found.prompts
    assert found.layout == layout and found.empty == 0
    assert [prompt.text, prompt.seed, prompt.guidance_scale, prompt.category] == expected


def test_filters_and_empty_prompts(tmp_path):
    path = tmp_path / "i2p.csv"
    path.write_text("prompt,categories,nudity_percentage,sd_seed\na,\"hate, sexual\",60,1\nb,sexual,,2\n,sexual,90,3\nc,sexuality,70,4\n\n")
    assert [one.text for one in read_prompt_file(path, "sexual").prompts] == ["a", "b"]
    both = read_prompt_file(path, "Sexual", {"nudity_percentage": 50})
    assert [(one.text, one.row, one.seed) for one in both.prompts] == [("a", 1, 1)]
    assert (both.rows, both.empty) == (4, 1)
    with pytest.raises(HFIError, match="none of its 4 prompts passes"):
        read_prompt_file(path, "violence")
    with pytest.raises(HFIError, match="has no column 'blood'"):
        read_prompt_file(path, at_least={"blood": 1})


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.csv", b"", "is empty"),
    ("a.csv", b"prompt\n", "holds no prompt"),
    ("a.csv", b"case_number,nudity,evaluation_seed\n0,x,1\n", "no column 'prompt' \\(it has: case_number, nudity, evaluation_seed\\)"),
    ("a.csv", b"prompt,evaluation_seed\na,one\n", "row 1, column evaluation_seed: 'one' is not a number"),
    ("a.csv", b"prompt,sd_seed\na,1\nb,2.5\n", "row 2, column sd_seed: '2.5' is not a seed"),
    ("a.csv", b"prompt,sd_seed\na,-1\n", "is not a seed"),
    ("a.csv", b"prompt,sd_seed\na,inf\n", "is not a number"),
    ("a.csv", b"prompt,sd_seed\na, with a comma,1\n", "row 1: has 3 fields where the header has 2"),
    ("a.csv", b'prompt\n"never closed\n', "not readable as CSV"),
    ("a.csv", b"\x89PNG\r\n\x1a\n\x00\xff", "is not text in UTF-8"),
    ("a.json", b"[1, 2]", "no list 'annotations'"),
    ("a.json", b"{", "not readable as JSON"),
    ("a.json", b'{"annotations": [{"bbox": []}]}', "annotation 1: has no 'caption'"),
    ("a.txt", b"\n\n", "holds no prompt"),
])  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HFIError, match=rf"{name}.*{words}") as caught:
        read_prompt_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(HFIError, match=r"gone\.csv: no such file"):
        read_prompt_file(tmp_path / "gone.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(HFIError, match="cannot be read"):
        read_prompt_file(tmp_path / "folder.csv")


def test_many_rows_are_no_trouble(tmp_path):
    path = tmp_path / "many.csv"
    path.write_text("prompt,case_number,evaluation_seed\n" + "".join(f"a {i},{i},{i}\n" for i in range(50_000)))
    found = read_prompt_file(path).prompts
    assert len(found) == 50_000 and found[-1].seed == 49_999
