"""`hfi status`: how far a study is. Starts without torch."""

from __future__ import annotations

from hfi.cli.options import Debug, Json, Study

EPILOG = """Examples:

hfi status studies/mine

hfi status studies/mine --json

States: done; partial (interrupted, continues); stale (done under other settings); missing."""


def status(study: Study, json: Json = False, debug: Debug = False) -> None:
    """Show each stage's state, its cost and key facts, and the judgements gathered."""
    from hfi.workspace import Workspace

    found = gather(Workspace.open(study))
    if json:
        import json as encoder

        print(encoder.dumps(found, indent=1, default=str))
        return
    from hfi.cli.tables import show_status

    show_status(found)


def gather(study) -> dict:
    """Everything that the table shows, as plain data."""
    from hfi.cli.studies import facts_line, states

    rows = []
    for stage, state in states(study).items():
        manifest = study.manifest(stage) or {}
        rows.append({"stage": stage, "state": state, "seconds": manifest.get("seconds"),
                     "peak_memory_mib": manifest.get("peak_memory_mib"), "facts": manifest.get("facts", {}),
                     "summary": facts_line(manifest)})
    from hfi.feedback import database

    judgements = None
    if database.is_there(database.place(study)):
        from hfi.feedback.label import status as labelling

        judgements = labelling(study)
    report = study.path("report.html")
    return {"study": str(study.root), "name": study.config.name, "model": study.config.model, "concept": study.config.concept.name,
            "stages": rows, "judgements": judgements, "report": str(report) if report.exists() else None}
