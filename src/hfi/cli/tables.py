"""The tables that commands print to stdout; plain characters where stdout is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from hfi.workspace import STAGES, Workspace, read_json


def _print(*tables: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    for table in tables:
        console.print(table)


def _table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def show_pairs(title: str, pairs: dict[str, object]) -> None:
    """Names and values, one a line."""
    table = _table(title, "", " ")
    for name, value in pairs.items():
        table.add_row(name.replace("_", " "), str(value))
    _print(table)


def show_status(found: dict) -> None:
    """What `hfi status` gathered."""
    table = _table(f"{found['name']}: concept {found['concept']}, model {found['model']}", "stage", "state", "seconds", "MiB", "",
                   right=("seconds", "MiB"))
    for row in found["stages"]:
        table.add_row(row["stage"], row["state"], _number(row["seconds"], 1), _number(row["peak_memory_mib"], 0), row["summary"])
    _print(table)
    if found["judgements"]:
        print("judgements: " + ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in found["judgements"].items()))
    if found["report"]:
        print(f"report: {found['report']}")


def show_models(found: dict) -> None:
    """What `hfi models` gathered."""
    embedded = found["embedded"]
    table = _table("models on this machine", "--model", "MiB", "found", "where", right=("MiB",))
    table.add_row("emoji", str(embedded["mib"]), f"yes, {embedded['hash'][:16]}" if embedded["found"] else "no (make emoji-model)",
                  embedded["folder"])
    for row in found["cached"]:
        table.add_row(row["name"], str(row["mib"]), "yes", row["folder"])
    families = _table("\nfamilies that are supported, from a diffusers folder, a hub id or a single file", "family", "for example",
                      "predicts", "stages", "refuses", "soft token", "learns")
    families.columns[0].no_wrap = True
    for row in found["families"]:
        can = [stage for stage, works in row["stages"].items() if works]
        families.add_row(row["family"], "\n".join(row["examples"]), row["predicts"], "all" if len(can) == len(row["stages"]) else
                         ", ".join(can), ", ".join(row["refuses"]) or "-", ", ".join(row["soft_token"]), row["learns"])
    _print(table, families)
    for row in found["families"]:
        for what, reason in row["refuses"].items():
            print(f"{row['family']} refuses {what}: {reason}")
    print("tested with " + ", ".join(f"{name} {version}" for name, version in found["families"][0]["tested_with"].items()))


def show_calibration(found: dict, file: str) -> None:
    """What `hfi doctor` measured."""
    batches = sorted({batch for rows in found["passes"].values() for batch in rows})
    title = f"{found['model']} ({found['family']}) on {found['device']}, {found['dtype']}: milliseconds a pass"
    table = _table(title, "pass", *(f"batch {batch}" for batch in batches), right=tuple(f"batch {batch}" for batch in batches))
    for kind, rows in found["passes"].items():
        if rows and kind != "memory_mib":
            table.add_row(kind, *(_number(rows[batch] * 1000, 1) if batch in rows else "-" for batch in batches))
    _print(table)
    print(f"kept in {file}; 'hfi run STUDY --dry-run' now tells the time of a study on this model, device and dtype")


def show_results(study: Workspace, ran: tuple[str, ...], wall_seconds: float) -> None:
    """The end of `hfi run`: rates with 95 % intervals, seconds per stage, the report's path.

    Args:
        ran: stages that this run did; the others were done before.
        wall_seconds: what the whole command took.
    """
    path = next((path for path in (study.path("metrics.json"), study.path("evaluate", "metrics.json")) if path.exists()), None)
    metrics = read_json(path) if path else {}
    simulated = metrics.get("annotators_simulated", study.config.label.source == "simulated")
    print(f"\n{study.config.concept.name}: shares with 95 % intervals, counted by a judge network (simulated); "
          f"judged by {'SIMULATED annotators, no person has judged' if simulated else 'people'}")
    rates = _table("", "", "before", "after", "pictures", right=("pictures",))
    for name, entry in metrics.get("concept_rate", {}).items():
        if not entry:  # a set that this study does not have, e.g. no re-inversion
            continue
        before, after = entry.get("before"), entry.get("after")
        worst = f", worst token {entry['worst']:.2f}" if isinstance(entry.get("worst"), (int, float)) else ""
        rates.add_row(f"concept rate, {name.replace('_', ' ')}", _share(before), _share(after) + worst, _n(after))
    for other in metrics.get("also", []):
        for name, entry in other["concept_rate"].items():
            if entry:
                before, after = entry["before"], entry["after"]
                rates.add_row(f"also erased: {other['concept']}, {name}", _share(before), _share(after), _n(after))
    neither = metrics.get("neither_intervals") or metrics.get("neither", {})
    rates.add_row("neither", _share(neither.get("before")), _share(neither.get("after")), _n(neither.get("after")))
    if metrics.get("floor") is not None:
        rates.add_row("floor (style words dropped)", _share(metrics["floor"]), "", _n(metrics["floor"]))
    for name, entry in metrics.get("retention", {}).items():
        if entry is not None:
            rates.add_row(f"retention, {name.replace('_', ' ')}", "", _share(entry), _n(entry))
    costs = _table("\nseconds", "stage", "seconds", "MiB", "", right=("seconds", "MiB"))
    spent = spent_now = 0.0
    for stage in STAGES:
        manifest = study.manifest(stage) or {}
        seconds = float(manifest.get("seconds") or 0.0)
        spent += seconds
        spent_now += seconds if stage in ran else 0.0
        costs.add_row(stage, _number(seconds, 1), _number(manifest.get("peak_memory_mib"), 0), "" if stage in ran else "done before")
    between = max(0.0, wall_seconds - spent_now)
    costs.add_row("loading, between stages", _number(between, 1), "", "")
    costs.add_row("total", _number(spent + between, 1), "", f"this run: {wall_seconds:.1f} s wall")
    _print(*([rates] if metrics else []), costs)
    report = study.path("report.html")
    print(f"\nreport: {report if report.exists() else 'not written'}")


def _share(value: object) -> str:
    if isinstance(value, dict) and isinstance(value.get("value"), (int, float)):
        low, high = value.get("low"), value.get("high")
        interval = f" [{low:.2f}, {high:.2f}]" if isinstance(low, (int, float)) and isinstance(high, (int, float)) else ""
        return f"{value['value']:.2f}{interval}"
    return f"{value:.2f}" if isinstance(value, (int, float)) else "-"


def _n(value: object) -> str:
    return str(value["n"]) if isinstance(value, dict) and "n" in value else ""


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "-"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {inner}" for name, inner in value.items()) + ")"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
