"""What the documentation says exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hfi.cli.reference import COMMANDS, reference

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").glob("*.yaml")])
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_cli_page_is_what_help_says():
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_targets_exist(page):
    """Every `hfi X` names a command, every `make X` a target, every option of a command is one of its own."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    code = re.findall(r"`([^`\n]+)`", text) + [line for block in blocks for line in block.splitlines()]
    code += re.findall(r"^#\s+((?:hfi|make) .*)$", text, re.MULTILINE)
    cli = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for line in code:
        for command in re.findall(r"(?:^|[\s;/])hfi ([a-z]+)(?=\s|$)", line):
            assert command in COMMANDS, f"{page.name}: hfi {command}"
        for target in re.findall(r"(?:^|\s)make ([a-z-]+)(?=\s|$)", line) if page.name != "cli.md" else ():  # its help is prose
            assert target in TARGETS, f"{page.name}: make {target}"
        if (found := re.match(r"\s*\$?\s*(?:\S*/)?hfi ([a-z]+) (.*)", line)) and page.name != "cli.md":
            section = cli.split(f"\n## hfi {found[1]}\n")[1].split("\n## ")[0]
            for option in re.findall(r"(?<!\S)(--[a-z-]+)", found[2]):
                assert option in section, f"{page.name}: hfi {found[1]} {option}"


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_load_and_open_with_their_command(recipe):
    from hfi.config import load_config

    assert load_config(recipe).name
    assert f"hfi run recipes/{recipe.name}" in recipe.read_text() or f"make {recipe.stem}" in recipe.read_text()


def test_local_links_lead_somewhere():
    for page in [page for page in PAGES if page.suffix == ".md"]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists() or target.startswith("../../"), f"{page.name}: {target}"


def test_the_pins_hold_torch():
    """An unpinned torch fetches gigabytes of GPU packages."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in lines
    assert all("==" in line and "://" not in line and "@" not in line for line in lines if line and not line.startswith("#"))
