"""`hfi`: the commands in the order of a study's life. Importing this file imports no torch."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from hfi.cli import label
from hfi.cli.failures import explain, quiet_stdout
from hfi.cli.reference import COMMANDS


class InOrder(TyperGroup):
    """Lists the commands in the order of a study's life, `label` (a group) among them."""

    def list_commands(self, ctx):
        return sorted(super().list_commands(ctx), key=COMMANDS.index)


app = typer.Typer(
    name="hfi", cls=InOrder, add_completion=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]},
    help="Human Feedback Inversion: people judge pictures, a text-to-image model stops drawing what they flagged.",
    epilog="""Examples:

hfi run recipes/demo.yaml

hfi init studies/mine --model ./my-diffusers-folder --concept weapon

hfi run studies/mine

The stages, in order: generate, label, reward, invert, erase, evaluate, report.""",
)
for name in COMMANDS:  # one file each
    if name == "label":  # a group
        app.add_typer(label.app, name="label", help=label.label.__doc__)
    else:
        module = importlib.import_module(f"hfi.cli.{name}")
        app.command(name, epilog=module.EPILOG)(getattr(module, name))


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"hfi {metadata.version('hfi')}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


def call(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. Every failure is one line on stderr."""
    if "--debug" not in arguments:  # the libraries' notes on optional packages; ours are errors of one line
        for library in ("TRANSFORMERS", "DIFFUSERS"):
            os.environ.setdefault(f"{library}_VERBOSITY", "error")
    try:
        code = typer.main.get_command(app).main(args=arguments or ["--help"], prog_name="hfi", standalone_mode=False)
        sys.stdout.flush()
        if code == 130:  # typer's word for Ctrl-C
            raise KeyboardInterrupt
        return int(code or 0)
    except BrokenPipeError:  # the reader of our output went away, e.g. `hfi status S | head -1`
        quiet_stdout()
        return 141
    except (Exception, KeyboardInterrupt) as error:
        line, code = explain(error, arguments)
        if "--debug" in arguments:
            import traceback

            traceback.print_exception(error)
        print(f"hfi: {line}", file=sys.stderr)
        return code


def main() -> None:
    """Entry point of the command `hfi`."""
    sys.exit(call(sys.argv[1:]))
