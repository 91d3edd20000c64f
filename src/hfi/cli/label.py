"""`hfi label`: stage 2. The labelling page, files in and out, who may log in, and how far it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from hfi.cli.options import Debug, Device, DryRun, Dtype, Json, Seed, Settings, Study, changes

PAGE = "page"  # what `hfi label STUDY` does; the word itself is not shown and need not be typed
EPILOG = """Examples:

hfi label studies/mine

hfi label studies/mine --import judgements.jsonl

hfi label studies/mine --export judgements.csv

hfi label studies/mine --simulated

hfi label status studies/mine (how far it is, and whether more labels would help)

hfi label users add studies/mine ann --role reviewer (then list, remove; each has --help)

Judgements are kept in STUDY/feedback.sqlite, or in the PostgreSQL database of HFI_DATABASE_URL; no stage ever removes one.

The layout of the files is in docs/formats.md."""
USERS_EPILOG = """Examples:

hfi label users add studies/mine ann --role admin

hfi label users list studies/mine

hfi label users remove studies/mine ann

Names and password hashes are kept in STUDY/accounts.sqlite, apart from the judgements, which know a pseudonym only."""


class LabelGroup(TyperGroup):
    """What is no subcommand is the study: `hfi label STUDY` and `hfi label users list STUDY`."""

    def parse_args(self, ctx, args):
        return super().parse_args(ctx, args if args and args[0] in self.commands else [PAGE, *args])

    def resolve_command(self, ctx, args):
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == PAGE else name, command, rest


class PageCommand(TyperCommand):
    def get_usage(self, ctx):
        return super().get_usage(ctx).replace("label  ", "label ")


app = typer.Typer(cls=LabelGroup, add_completion=False, rich_markup_mode="rich")
users = typer.Typer(add_completion=False, rich_markup_mode="rich", epilog=USERS_EPILOG,
                    help="Who may log in to the labelling page: add, list, remove.")
app.add_typer(users, name="users")


@app.command(PAGE, cls=PageCommand, epilog=EPILOG, hidden=True)
def label(study: Study,
          import_: Annotated[Path | None, typer.Option("--import", metavar="FILE",
                                                       help="Add judgements of a .jsonl, .csv or Label Studio .json "
                                                       "file, of a Hugging Face imagefolder, or of pictures in folders yes and no.")]
          = None,
          export: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all judgements to a .jsonl, .csv or Label Studio .json "
                                                      "file, or with the pictures to a new folder (imagefolder).")] = None,
          annotator: Annotated[str | None, typer.Option(help="Who judged, for rows of --import that do not say.")] = None,
          simulated: Annotated[bool, typer.Option("--simulated", help="Let simulated annotators judge; marked so wherever their "
                                                  "numbers appear.")] = False,
          gather: Annotated[bool, typer.Option("--gather", help="Take up what was judged so far, without opening the page.")] = False,
          host: Annotated[str, typer.Option(help="Address to serve the page on; other than this machine only with accounts.")]
          = "127.0.0.1",
          port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any free one.")] = 8765,
          no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the page's link, but do not open it.")] = False,
          seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
          debug: Debug = False) -> None:
    """Stage 2: people judge the pictures on a page in the browser; or judgements come from files, machines or simulated annotators."""
    from hfi.cli import studies
    from hfi.errors import HFIError, NeedsPeople

    changed = changes(seed, device, dtype, set_, label__source="simulated" if simulated else None)
    if annotator is not None and import_ is None:
        raise HFIError("goes with --import", file="command line", field="--annotator", remedy="name the file with --import FILE")
    if simulated and import_ is not None:
        raise HFIError("choose one", file="command line", field="--import, --simulated", remedy="people's judgements and simulated ones "
                       "are separate sources; import first, then decide")
    opened = studies.open_study(study, changed)
    files = import_ is not None or export is not None
    rated = opened.path("human", "key.json").exists() and not simulated  # a blind evaluation asks people, whoever judged before
    if dry_run or gather or (not files and opened.config.label.source != "people" and not rated):
        studies.do_stage(study, "label", changed, dry_run)
        return
    if not files:
        if changed:
            opened.save_config()
        from hfi.feedback.web.server import serve

        serve(study, host, port, not no_browser)
        return
    from hfi.feedback.interchange import export_judgements, import_judgements

    with opened.lock():
        if import_ is not None:
            from hfi.generation.brought import brought

            if not import_.is_dir() and not brought(opened):
                opened.require("label")
            nothing_yet = not brought(opened) and not opened.is_done("generate")
            found = import_judgements(opened, import_, annotator=annotator)
            print(f"{import_}: {found['read']} judgements read, {found['added']} added, {found['known']} known already, "
                  f"{found['duplicates']} twice in the file" + (f"; {found['pictures']} pictures taken" if found["pictures"] else ""))
            if nothing_yet and found["pictures"] and not opened.config.erase.needs_benign():
                opened = studies.open_study(study, {**changed, "generate.benign_share": 0.0})
                print("generate.benign_share=0: nothing is drawn beside them, for erasing needs no benign pictures")
                changed = {**changed, "generate.benign_share": 0.0}
            if changed:
                opened.save_config()
            try:
                studies.work(opened, "label")
            except NeedsPeople as waiting:
                print(f"label: {waiting}")
        if export is not None:
            print(f"{export}: {export_judgements(opened, export)} judgements written")


@app.command("status", epilog="Example: hfi label status studies/mine")
def status(study: Study, as_json: Json = False, debug: Debug = False) -> None:
    """Show how far the judging is, for each person, and whether more labels would help."""
    from hfi.feedback.advice import advise
    from hfi.feedback.label import status as labelling
    from hfi.workspace import Workspace

    opened = Workspace.open(study)
    counts, people, advice = labelling(opened), _people(opened), advise(opened)
    if as_json:
        shown = {"words": advice.words, "help": advice.help, "more": advice.more}
        print(json.dumps({**counts, "people": people, "advice": shown}, indent=1))
        return
    mark = ", simulated annotators among them" if counts["simulated"] else ""
    print(f"{opened.config.name}: {counts['judged']} of {counts['images']} pictures judged, {counts['judgements']} judgements{mark}")
    if counts["agreement"] is not None:
        print(f"Krippendorff's alpha: {counts['agreement']:.2f}")
    if people:
        from rich.console import Console
        from rich.table import Table

        table = Table("annotator", "done", "left", "a minute", "today", box=None)
        for name, row in people.items():
            table.add_row(name, str(row["done"]), str(row["left"]), f"{row['pace_per_minute']:.1f}", str(row["today"]))
        Console().print(table)
    print(advice.words)


@users.command("add")
def add(study: Study, name: Annotated[str, typer.Argument(help="The login name.", show_default=False)],
        role: Annotated[str, typer.Option(help="annotator, reviewer or admin; each may do what those before it may.")] = "annotator",
        password: Annotated[bool, typer.Option("--password", help="Ask for a password here, instead of making an invite link.")] = False,
        hours: Annotated[float, typer.Option(min=0.1, help="How long the invite link works.")] = 72.0, debug: Debug = False) -> None:
    """Add an account, or invite an existing one anew (its old password and sessions end). Prints a link that works once."""
    accounts = _accounts(study)
    if password:
        found = accounts.add(name, typer.prompt("Password", hide_input=True, confirmation_prompt=True), role)
        print(f"{found.name}: {found.role}, judges as {found.pseudonym}")
        return
    invite = accounts.invite(name, role, hours)
    print(f"{invite.name}: {invite.role}. While 'hfi label {study}' runs, this opens once, until {invite.expires}, to choose a password:")
    print(f"http://127.0.0.1:8765/invite/{invite.token}")
    print("(put the address that the server is reached by in front, where it is another one)")


@users.command("list")
def list_(study: Study, as_json: Json = False, debug: Debug = False) -> None:
    """Show the accounts."""
    found = _accounts(study).list()
    if as_json:
        print(json.dumps([{"name": a.name, "role": a.role, "pseudonym": a.pseudonym, "active": a.active, "created": a.created}
                          for a in found], indent=1))
        return
    if not found:
        print("no accounts: the page is open to this machine alone, without login")
    for account in found:
        print(f"{account.name}  {account.role}  {account.pseudonym}{'' if account.active else '  (invited, no password yet)'}")


@users.command("remove")
def remove(study: Study, name: Annotated[str, typer.Argument(help="The login name.", show_default=False)], debug: Debug = False) -> None:
    """Forget an account and end its sessions; its judgements stay, under the pseudonym."""
    _accounts(study).remove(name)
    print(f"{name}: removed; judgements stay under the pseudonym")


def _accounts(study: Path):
    from hfi.feedback.accounts import Accounts
    from hfi.workspace import Workspace

    return Accounts.of(Workspace.open(study))


def _people(opened) -> dict[str, dict]:
    """{pseudonym: done, left, pace, today} of people who were asked on the page."""
    from hfi.feedback import database
    from hfi.feedback.store import Store

    if not database.is_there(database.place(opened)):
        return {}
    from hfi.feedback.queue import Queue

    with Store.of(opened) as store:
        people = Queue.of(opened, store).people()
    return {name: {"done": found.done, "left": found.left, "pace_per_minute": found.pace_per_minute, "today": found.today}
            for name, found in people.items() if found.done}
