"""Shared fixtures; one thread a process, because a tiny pipeline runs several times faster so."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("busy machines", deadline=None)  # a law does not depend on how fast it is checked
settings.load_profile("busy machines")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _database(monkeypatch):
    """SQLite, whatever the environment says; under `make test-postgres` an empty PostgreSQL database for each test.

    There, a second study of a test gets a database of its own: the variable can name one only.
    """
    monkeypatch.delenv("HFI_DATABASE_URL", raising=False)
    if not (running := os.environ.get("HFI_TEST_POSTGRES")):
        yield
        return
    from hfi.feedback import database
    from postgres import fresh_database

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(fresh_database(running))
        monkeypatch.setenv("HFI_DATABASE_URL", url)
        urls: dict[Path, str] = {}

        def place(study) -> str:
            root = study.root.resolve()
            if root not in urls:
                urls[root] = stack.enter_context(fresh_database(running)) if urls else url
            return urls[root]

        monkeypatch.setattr(database, "place", place)
        yield


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory) -> Path:
    """A folder with the tiny pipeline (pipeline/), CLIP (clip/) and vocabulary.json, built once."""
    import tiny

    root = tmp_path_factory.mktemp("tiny")
    tiny.study_settings(root)
    return root


@pytest.fixture
def tiny_model(tiny_root):
    """The tiny pipeline as a Model in float32 on the CPU; fresh for each test."""
    from hfi.diffusion.model import load_model

    return load_model(str(tiny_root / "pipeline"), "cpu", "float32")


@pytest.fixture
def tiny_study(tiny_root, tmp_path):
    """A fresh study on the tiny pipeline."""
    import tiny
    from hfi.config import parse_config
    from hfi.workspace import Workspace

    return Workspace.create(tmp_path / "study", parse_config(tiny.study_settings(tiny_root), "tiny"))
