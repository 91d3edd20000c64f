"""compare.html: one self-contained file with the table, the tests, the cost, the Pareto plot and the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from hfi.evaluation.measure import Pictures
from hfi.report.pictures import shown
from hfi.workspace import Workspace

RATES = {
    "explicit": "named", "implicit": "by keywords only", "variations": "other wordings", "unlisted": "unlisted members",
    "tokens": "under the soft tokens",
}  # fmt: skip
ALSO = {"explicit": "named", "implicit": "by keywords only"}  # of each other concept of the run
KEPT = {"other": "other objects kept", "neighbours": "nearest kept", "styles": "styles kept"}
SHOWN = 6  # prompts of the grid, from each of two sets
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1100px;padding:0 1rem;color:#1d2430;background:#fff}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{border-bottom:1px solid #d9dde3;padding:.3rem .6rem;text-align:left;vertical-align:top}
small{color:#5b6572;display:block}svg{max-width:560px;width:100%;height:auto}
.grid td{padding:2px}.grid img{width:84px;height:84px;display:block}
.grid label{position:relative;display:block;cursor:pointer}.grid input{position:absolute;opacity:0}
.grid label .clear{display:none}.grid input:checked~.clear{display:block}.grid input:checked~.soft{display:none}
.grid input:focus-visible~img{outline:3px solid #0b6b63}.mark{background:#fcf3e1;padding:.4rem .8rem;border-radius:6px}
"""


def page(result: dict, study: Workspace, pictures: Pictures) -> str:
    """The page as text; every picture is blurred until clicked."""
    cells = result["cells"]
    names = also_names(cells)
    few = f" Quick: {result['quick']} pictures a set." if result["quick"] else ""
    body = [
        Markup("<h1>Erasers side by side: {}</h1>").format(result["concept"]),
        Markup("<p class=mark>Simulated: a judge network ({}) scores, not people. Same prompts and seeds in every row; 95 % bootstrap "
               "intervals over prompts.{}</p>").format(result["judge"], few),
        Markup("<p>Each method was told the concept in its own words, or by the soft tokens that judgements of pictures gave; the other "
               "settings are the same, but that under words no prompt of a flagged picture is used; where one is, beside tokens, the "
               "row says prompts.</p>"),
        Markup("<h2>Share that draws the concept (lower is better), and what is kept (higher is better)</h2>"),
        _table(["method", "told by", *RATES.values(), *names.values(), "shows nothing", *KEPT.values()],
               [_row(one, cells) for one in (None, *cells)]),
        _floors(result["concept"], cells),
        Markup("<h2>Erasure against damage</h2>{}").format(Markup("<p>Of each row the concept that is drawn most.</p>") if names else ""),
        pareto([(name_of(one), _erasure(one), _damage(one)) for one in cells]),
        *_level(result.get("at_level", []), result.get("level_tests", [])),
        Markup("<h2>Tokens minus words</h2><p>Paired over the same prompts and seeds; each interval stands alone, so of twenty one "
               "may exclude 0 by chance.</p>"),
        _table(["method", "set", "difference", "95 % interval", "pictures"],
               [_tested(row, RATES | KEPT | names) for row in result["tests"]])
        if result["tests"] else Markup("<p>Needs both words and tokens of a method.</p>"),
        *_together(result.get("together"), RATES | KEPT),
        Markup("<h2>Cost</h2>"),
        _table(["method", "told by", "seconds to erase", "peak memory, MiB", "delta, KiB"], [
            [one["method"], told_by(one), f"{one['cost']['seconds']:.1f}", f"{one['cost']['peak_memory_mib']:.0f}",
             f"{one['cost']['bytes'] / 1024:.0f}"] for one in cells]),
        Markup("<h2>The same prompts and seeds</h2><p>Blurred; click one to see it.</p>"),
        *_grids(study, pictures, cells),
    ]  # fmt: skip
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return Markup(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="{}"><title>Erasers: {}</title><style>{}</style><body>{}</body></html>\n'
    ).format(policy, result["concept"], Markup(STYLE), Markup("").join(body))


def _level(rows: Sequence[dict], tests: Sequence[dict]) -> list[Markup]:
    """The part of `--strengths`; empty without it."""
    if not rows:
        return []
    change = {row["method"]: Markup("{value:+.3f}<small>{low:+.3f} to {high:+.3f}</small>").format(**row) for row in tests}
    lines = [
        [row["method"], row["told_by"], _shown(row["rate"]), f"{row['strength']:.2f}", f"{row['retention']:.2f}",
         "" if row["reached"] else "never falls to 0.95", "" if row["told_by"] == "words" else change.get(row["method"], "")]
        for row in rows
    ]  # fmt: skip
    return [
        Markup("<h2>Where each keeps 0.95 of the rest</h2><p>Each erasure put on at several strengths: the concept rate (named, keywords, "
               "wordings) at the one where 0.95 of other objects or of styles is kept, whichever falls first, interpolated. One that never "
               "falls so far stands at its strongest, so its rate is not at equal retention.</p>"),
        _table(["method", "told by", "rate there", "strength there", "kept there", "", "tokens minus words"], lines),
    ]  # fmt: skip


def _together(found: dict | None, names: dict[str, str]) -> list[Markup]:
    """The part of `--together`; empty without it."""
    if found is None:
        return []
    level = any(row["at_level"] for row in found["rows"])
    head = ["method", "told by", "rate at strength 1", *["rate where 0.95 is kept", "concepts that fall so far"] * level]
    head += ["kept", "least kept"]
    lines = [
        [row["method"], row["told_by"] + ("" if row["one_setting"] else " *"), _shown(row["rate"]),
         *([_shown(row["at_level"]), row["reached"]] if level else []),
         *((f"{row['retention']['mean']:.2f} (n {row['retention']['concepts']})", f"{row['retention']['lowest']:.2f}")
           if row["retention"] else ("", ""))]
        for row in found["rows"]
    ]  # fmt: skip
    tests = [[*_tested(row, {"level": "where 0.95 is kept", **names})[:4], f"{row['p']:.4f}", f"{row['p (Holm)']:.4f}"]
             for row in found["tests"]]  # fmt: skip
    return [
        Markup("<h2>Over {} concepts: {}</h2><p>Means over concepts of the share that draws it (named, keywords, wordings); 95 % intervals "
               "resample concepts, then prompts, and are rough where concepts are few.</p>").format(
                   len(found["concepts"]), ", ".join(found["concepts"])),
        _table(head, lines),
        Markup("" if all(row["one_setting"] for row in found["rows"]) else "<p>* The studies set this method differently (compare.json "
               "of each has its settings).</p>"),
        Markup("<h3>Tokens minus words, over concepts</h3><p>Paired over the same prompts and seeds; p adjusted by Holm over the "
               "methods of one set.</p>"),
        _table(["method", "set", "difference", "95 % interval", "p", "p (Holm)"], tests) if tests
        else Markup("<p>Needs both words and tokens of a method in every study.</p>"),
    ]  # fmt: skip


def name_of(cell: dict) -> str:
    return f"{cell['method']}, {told_by(cell)}"


def told_by(cell: dict) -> str:
    """What the row was told: words, tokens, or tokens and the prompts of flagged pictures ("tokens, prompts")."""
    return cell["given_as"] + (", prompts" if cell["settings"].get("flagged_prompts") else "")


def also_names(cells: Sequence[dict]) -> dict[str, str]:
    """Set of another concept that the rows erased as well ("also-1-explicit") -> the column's title."""
    others = cells[0]["also"] if cells else ()
    return {f"also-{i}-{name}": f"{one['concept']}, {title}" for i, one in enumerate(others, 1) for name, title in ALSO.items()}


def pareto(points: Sequence[tuple[str, float | None, float | None]]) -> Markup:
    """Erasure (concept rate after, x) against damage (1 - retention, y): lower left is better; the front is filled."""
    known = [(name, x, max(y, 0.0)) for name, x, y in points if x is not None and y is not None]
    top = max([0.1, *(y for *_, y in known)]) * 1.1
    at = lambda x, y: (50 + 480 * x, 330 - 300 * y / top)  # noqa: E731
    marks = [Markup('<path d="M50 30V330H530" fill="none" stroke="#8a94a3"/>')]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        marks.append(Markup('<text x="{:.0f}" y="348" font-size="12" text-anchor="middle">{}</text>').format(at(tick, 0)[0], tick))
        level = tick * top
        marks.append(Markup('<text x="44" y="{:.0f}" font-size="12" text-anchor="end">{:.2f}</text>').format(at(0, level)[1] + 4, level))
    lowest: dict[int, float] = {}  # of the names written in a column so far: a name that would cover one goes below it
    for name, x, y in sorted(known, key=lambda point: -point[2]):
        beaten = any(a <= x and b <= y and (a, b) != (x, y) for _, a, b in known)
        px, py = at(x, y)
        near = range(round(px / 60) - 1, round(px / 60) + 2)
        written = max([py, *(lowest[column] + 14 for column in near if column in lowest)])
        lowest[round(px / 60)] = written
        marks.append(
            Markup('<circle cx="{0:.1f}" cy="{1:.1f}" r="5" fill="{2}" stroke="#0b6b63" stroke-width="2"/>'
                   '<text x="{3:.1f}" y="{5:.1f}" dy="4" font-size="12">{4}</text>').format(
                px, py, "#fff" if beaten else "#0b6b63", px + 9, name, written)
        )  # fmt: skip
    words = "; ".join(f"{name}: draws it {x:.2f}, loses {y:.2f}" for name, x, y in known)
    return Markup(
        '<svg viewBox="0 0 640 380" role="img" aria-label="Erasure against damage. {}">{}'
        '<text x="290" y="372" font-size="13" text-anchor="middle">share that still draws the concept (named, keywords, wordings)</text>'
        '<text x="14" y="20" font-size="13">share of other objects or styles lost, whichever is more</text></svg>'
    ).format(words, Markup("").join(marks))


def _erasure(cell: dict) -> float | None:
    """The mean over the sets; of several concepts that of the one that is drawn most."""

    def mean(rates: dict, names: Sequence[str]) -> float | None:
        values = [rates[name]["after"]["value"] for name in names if rates.get(name)]
        return sum(values) / len(values) if values else None

    means = [mean(cell["rates"], ("explicit", "implicit", "variations")), *(mean(one["concept_rate"], tuple(ALSO)) for one in cell["also"])]
    return max((value for value in means if value is not None), default=None)


def _damage(cell: dict) -> float | None:
    """What is lost of other objects or of styles, whichever is more."""
    kept = [value for name in ("other", "styles") if (value := (cell["retention"].get(name) or {}).get("value")) is not None]
    return 1 - min(kept) if kept else None


def _row(cell: dict | None, cells: Sequence[dict]) -> list:
    """A cell's numbers; without one the original model's, which all cells share."""
    side, one = ("after", cell) if cell else ("before", cells[0])
    rates = [_shown((one["rates"].get(name) or {}).get(side)) for name in RATES]
    rates += [_shown((other["concept_rate"].get(name) or {}).get(side)) for other in one["also"] for name in ALSO]
    kept = [_shown(one["retention"].get(name)) if cell else "" for name in KEPT]
    return [*((one["method"], told_by(one)) if cell else ("the original", "")), *rates, _shown(one["neither"][side]), *kept]


def _floors(concept: str, cells: Sequence[dict]) -> Markup:
    """How often a style is drawn that nobody asked for: no eraser needs to go below it."""
    known = [(concept, cells[0]["floor"]), *((one["concept"], one["floor"]) for one in cells[0]["also"])] if cells else []
    line = Markup("<p>Asked for no style at all, the original draws {} in {:.2f} ({:.2f} to {:.2f}, n {}): the floor.</p>")
    return Markup("").join(line.format(name, *(one[key] for key in ("value", "low", "high", "n"))) for name, one in known if one)


def _shown(found: dict | None) -> Markup | str:
    if not found or found["value"] is None:
        return "–"
    return Markup("{:.2f}<small>{:.2f} to {:.2f}, n {}</small>").format(found["value"], found["low"], found["high"], found["n"])


def _tested(row: dict, names: dict[str, str]) -> list:
    return [row["method"], names.get(row["set"], row["set"]), f"{row['value']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}", row["n"]]


def _table(head: Sequence[str], rows: Sequence[Sequence]) -> Markup:
    line = lambda cells, tag: Markup("<tr>{}</tr>").format(  # noqa: E731
        Markup("").join(Markup("<{0}>{1}</{0}>").format(Markup(tag), cell) for cell in cells)
    )
    return Markup("<table>{}{}</table>").format(line(head, "th"), Markup("").join(line(row, "td") for row in rows))


def _grids(study: Workspace, pictures: Pictures, cells: Sequence[dict]) -> list[Markup]:
    """One grid for `explicit` and one for `other`: a column a prompt, a row for the original and for each cell."""
    folders = [("before", study.path("compare", "before"))]
    folders += [(name_of(one), study.path("compare", f"{one['method']}-{one['given_as']}", "after")) for one in cells]
    grids = []
    for name in ("explicit", "other"):
        chosen = [(probe.text, picture) for probe, picture, _ in pictures.pairs(name)][:SHOWN]
        rows = [[title, *(_picture(folder / f"{picture}.png") for _, picture in chosen)] for title, folder in folders]
        grids.append(Markup('<div class="grid">{}</div>').format(_table(["", *(text for text, _ in chosen)], rows)))
    return grids


def _picture(path: Path) -> Markup:
    one = shown(path, True, 96)
    return Markup(
        '<label><input type="checkbox" aria-label="show the picture"><img class="soft" src="{}" alt="blurred"><img class="clear" src="{}" '
        'alt=""></label>'
    ).format(one.blurred, one.clear)
