"""`hfi export`, `hfi check` and `hfi push` as a person types them."""

from __future__ import annotations

import json
import shutil

import pytest
from driver import run_hfi


@pytest.fixture
def typed(tmp_path, monkeypatch, capfd):
    """The command line in this process: (exit code, what it printed, its errors)."""
    from hfi.cli.app import call

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        return call([str(argument) for argument in arguments]), *capfd.readouterr()

    return run


def error(result: tuple[int, str, str]) -> str:
    lines = [line for line in result[2].splitlines() if line.startswith("hfi: ")]
    assert result[0] == 2 and len(lines) == 1 and "Traceback" not in result[2]
    return lines[0]


def test_a_lora_from_the_command_line(study, tmp_path):
    """The real process: says where the file is, how much the LoRA misses and what it cannot carry."""
    done = run_hfi("export", study.root, "--to", "lora", "--out", "out", "--max-error", "1", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "hfi-sharp-lora.safetensors").exists()
    assert "misses" in done.out and "biases cannot be carried" in done.out


def test_two_concepts_from_the_command_line(study, second, typed, tmp_path):
    code, out, _ = typed("export", study.root, "--to", "delta", "--also", f"{second.root}=0.8", "--out", tmp_path)
    assert code == 0 and "hfi-sharp-pointy-things-delta.safetensors" in out and "the sum was measured by neither study" in out
    assert "write --also STUDY=0.8" in error(typed("export", study.root, "--to", "delta", "--also", f"{second.root}=much"))
    assert "negative strength" in error(typed("export", study.root, "--to", "delta", "--also", f"{second.root}=-1"))


def test_mistakes_are_one_line(study, typed, tmp_path):
    assert "--to embedding: a raw token draws" in error(typed("export", study.root, "--to", "embedding"))
    assert "use one of" in error(typed("export", study.root, "--to", "pickle"))
    assert "negative strength" in error(typed("export", study.root, "--to", "delta", "--strength", "-1"))
    assert "use one of float32" in error(typed("export", study.root, "--to", "delta", "--weights", "int8"))
    assert "no study here" in error(typed("export", tmp_path / "nothing", "--to", "delta"))
    assert "See 'hfi export --help'" in error(typed("export", study.root))


def test_dry_runs_change_nothing(study, typed, exported):
    before = sorted(study.root.rglob("*"))
    code, out, _ = typed("export", study.root, "--to", "all", "--dry-run")
    assert code == 0 and "embeddings need --i-understand" in out
    code, out, _ = typed("push", study.root, "me/no-sharp", "--from", exported.folder, "--dry-run")
    assert code == 0 and "unet/config.json" in out and "would upload these" in out
    assert sorted(study.root.rglob("*")) == before


def test_nothing_is_uploaded_without_yes(study, typed, exported, monkeypatch):
    """Even where a hub would answer: without --yes the library is never asked."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("the hub was asked"))
    assert "add --yes to upload" in error(typed("push", study.root, "me/no-sharp", "--from", exported.folder))
    assert "write it like me/no-weapons" in error(typed("push", study.root, "no-sharp", "--from", exported.folder, "--yes"))
    assert "hfi export" in error(typed("push", study.root, "me/no-sharp", "--yes"))  # nothing was exported to STUDY/export


def test_yes_uploads_once(study, typed, exported, monkeypatch):
    import huggingface_hub

    class Api:
        def create_repo(self, **settings):
            return "https://hub.example/" + settings["repo_id"]

        def create_commit(self, **settings):
            print(len(settings["operations"]), "files")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    code, out, _ = typed("push", study.root, "me/no-sharp", "--from", exported.folder, "--yes")
    assert code == 0 and out.endswith("14 files\nuploaded to https://hub.example/me/no-sharp\n")


def test_the_gate_as_a_pipeline_sees_it(study, exported, typed, tmp_path):
    """A real run on the erased folder: too few pictures or too many hits, with its numbers as JSON; no picture is kept."""
    copy = shutil.copytree(study.root, tmp_path / "study", ignore=shutil.ignore_patterns("check"))
    folder = exported.folder / "diffusers"
    code, out, _ = typed("check", folder, "--study", copy, "--max-rate", "0.01", "--pictures", 4, "--json")
    found = json.loads(out)
    assert code == found["exit_code"] in {5, 6}
    assert found["pictures"] <= 4 and found["max_rate"] == 0.01 and found["needed"] >= 381 and found["simulated"]
    assert len(list((copy / "check").iterdir())) == 1 and not list((copy / "check").glob("*.png"))


def test_the_gates_words(study, typed):
    code, out, _ = typed("check", study.config.model, "--study", study.root, "--delta", study.root, "--max-rate", "0.9", "--pictures", 1)
    assert code == {"passed": 0, "above": 5, "too few": 6}[out.split(":")[0].removesuffix(" pictures to tell").removesuffix(" the limit")]
    assert "limit 0.9; simulated judge clip:" in out
    assert "--max-rate" in error(typed("check", study.config.model, "--study", study.root, "--max-rate", "2"))
