"""docs/cli.md, written from the commands' own --help: `python -m hfi.cli.reference > docs/cli.md`."""

from __future__ import annotations

import os
import subprocess
import sys

COMMANDS = (
    "init", "generate", "label", "reward", "invert", "erase", "evaluate", "report", "run", "status", "measure", "attack", "persist",
    "compare", "export", "check", "push", "models", "doctor", "env",
)
HEAD = """# The command line

Written from `--help` by `make docs`; a test compares the two.
"""


def help_text(*command: str) -> str:
    """What `hfi COMMAND --help` prints on a terminal 100 columns wide."""
    colours = {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "CLICOLOR_FORCE"}
    plain = {name: value for name, value in os.environ.items() if name not in colours}
    done = subprocess.run([sys.executable, "-m", "hfi.cli", *command, "--help"], capture_output=True, text=True, check=True,
                          env={**plain, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb", "LANG": "C.UTF-8",
                               "PYTHONIOENCODING": "utf-8"})
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines()).strip("\n")


def reference() -> str:
    """The whole page."""
    parts = [HEAD, f"## hfi\n\n```text\n{help_text()}\n```\n"]
    parts += [f"## hfi {command}\n\n```text\n{help_text(command)}\n```\n" for command in COMMANDS]
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
