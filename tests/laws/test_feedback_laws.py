"""Laws of the feedback store: nothing recorded is lost or changed, what goes out comes back equal, agreement is alpha."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfi.config import Label, parse_config
from hfi.errors import HFIError
from hfi.feedback.agreement import krippendorff_alpha, ranking_agreement
from hfi.feedback.interchange import export_judgements, import_judgements, write_judgements
from hfi.feedback.judgements import Judgement
from hfi.feedback.rows import from_row, neutralised, restored, to_row
from hfi.feedback.simulated import Seen, annotators, binary_plan, judge_binary, judge_ranking, ranking_plan
from hfi.feedback.store import Store
from hfi.workspace import Workspace

IDS = [f"im{i:03d}" for i in range(40)]
ON_POSTGRES = "HFI_TEST_POSTGRES" in os.environ
sqlite_only = pytest.mark.skipif(ON_POSTGRES, reason="words that only SQLite knows")
postgres_only = pytest.mark.skipif(not ON_POSTGRES, reason="words that only PostgreSQL knows")
TRUNCATE = pytest.param("TRUNCATE judgement CASCADE", marks=postgres_only)


def study_with_pictures(root: Path, ids=IDS) -> Workspace:
    study = Workspace.create(root, parse_config({}, "test"))
    (root / "generate").mkdir()
    (root / "generate" / "manifest.json").write_text("{}")
    (root / "generate" / "images.jsonl").write_text("".join(json.dumps({"id": name, "file": f"images/{name}.png"}) + "\n" for name in ids))
    return study


def start(code: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def plain_client(study: Workspace) -> contextlib.AbstractContextManager:
    """The database without any of our code."""
    if url := os.environ.get("HFI_DATABASE_URL"):
        import psycopg

        return psycopg.connect(url)
    return contextlib.closing(sqlite3.connect(study.store_path))


REPLACE = "INSERT OR REPLACE INTO judgement SELECT * FROM judgement LIMIT 1"


@pytest.mark.parametrize(
    "order", ["UPDATE judgement SET value = 'absent'", "DELETE FROM judgement", pytest.param(REPLACE, marks=sqlite_only), TRUNCATE]
)
def test_a_recorded_judgement_cannot_be_changed_by_any_client(tmp_path, order):
    study = study_with_pictures(tmp_path / "s")
    with Store.of(study) as store:
        store.record(Judgement((IDS[0],), "ann", value="present"))
        before = list(store.judgements())
    with plain_client(study) as raw, pytest.raises(Exception, match="append-only"):
        raw.execute(order)
    with Store.of(study) as store:
        assert list(store.judgements()) == before


def test_a_later_judgement_supersedes_and_both_stay(tmp_path):
    with Store.of(study_with_pictures(tmp_path / "s")) as store:
        for value in ("present", "unsure", "absent"):
            store.record(Judgement((IDS[0],), "ann", value=value))
        store.record(Judgement((IDS[0],), "bob", value="present"))
        assert [(j.annotator, j.value) for j in store.judgements()] == [("ann", "absent"), ("bob", "present")]
        assert len(list(store.judgements(history=True))) == 4
        assert store.label_counts() == {IDS[0]: {"present": 1, "absent": 1}}


RECORDER = """
import sys
from hfi.feedback.judgements import Judgement
from hfi.feedback.store import Store
from hfi.workspace import Workspace
store = Store.of(Workspace.open(sys.argv[1]))
for i in range(100000):
    store.record(Judgement((f"im{i % 40:03d}",), f"{sys.argv[2]}{i}", value="present"))
    print(i, flush=True)
"""


def test_every_acknowledged_judgement_survives_kill_9(tmp_path):
    study = study_with_pictures(tmp_path / "s")
    Store.of(study).close()
    acknowledged = -1
    for attempt in range(3):
        process = start(RECORDER, str(study.root), f"r{attempt}-")
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged >= 15 + 7 * attempt:
                os.kill(process.pid, signal.SIGKILL)
                break
        rest = [int(line) for line in process.stdout.read().split()]  # acknowledged before the signal arrived
        acknowledged = rest[-1] if rest else acknowledged
        process.wait()
        with Store.of(study) as store:
            kept = {j.annotator for j in store.judgements()}
        assert kept >= {f"r{attempt}-{i}" for i in range(acknowledged + 1)}


WRITER = """
import sys
from hfi.feedback.judgements import Judgement
from hfi.feedback.store import Store
from hfi.workspace import Workspace
store = Store.of(Workspace.open(sys.argv[1]))
for i in range(60):
    store.record(Judgement((f"im{i % 40:03d}",), f"{sys.argv[2]}{i}", value="absent"))
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    study = study_with_pictures(tmp_path / "s")
    Store.of(study).close()
    writers = [start(WRITER, str(study.root), f"w{n}-") for n in range(3)]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    with Store.of(study) as store:
        assert {j.annotator for j in store.judgements()} == {f"w{n}-{i}" for n in range(3) for i in range(60)}


names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Cn", "Co", "Cf", "Zs")), min_size=1, max_size=12).filter(
    str.isprintable
)
seconds = st.none() | st.floats(0, 1e4, allow_nan=False)
binary = st.builds(
    lambda image, name, value, s, g: Judgement((image,), name, "human", value, seconds=s, guideline=g),
    st.sampled_from(IDS),
    names,
    st.sampled_from(["present", "absent", "unsure", "skip"]),
    seconds,
    st.integers(1, 3),
)
ranked = st.builds(
    lambda images, cut, name, s: Judgement(
        tuple(sorted(images)), name, ranking=tuple(images[cut:]), excluded=tuple(sorted(images[:cut])), seconds=s, guideline=1
    ),
    st.lists(st.sampled_from(IDS), min_size=2, max_size=5, unique=True),
    st.integers(0, 1),
    names,
    seconds,
)


@settings(max_examples=15, deadline=None)
@given(st.lists(binary | ranked, min_size=1, max_size=12, unique_by=lambda j: (j.annotator, j.target)), st.sampled_from([".jsonl", ".csv"]))
def test_export_then_import_gives_equal_judgements(tmp_path_factory, judgements, suffix):
    root = tmp_path_factory.mktemp("trip")
    first, second = study_with_pictures(root / "a"), study_with_pictures(root / "b")
    with Store.of(first) as store:
        [store.add_guideline(words) for words in ("one", "two", "three")]
        store.record_many(judgements)
        before = [(j, j.created) for j in store.judgements()]
    assert export_judgements(first, root / f"out{suffix}") == len(judgements)
    counts = import_judgements(second, root / f"out{suffix}")
    assert counts == {"read": len(judgements), "added": len(judgements), "duplicates": 0, "known": 0, "pictures": 0}
    with Store.of(second) as store:
        assert [(j, j.created) for j in store.judgements()] == before
    assert import_judgements(second, root / f"out{suffix}")["added"] == 0


@given(binary | ranked)
def test_a_row_reads_back_as_the_judgement_it_was_made_from(judgement):
    assert from_row(json.loads(json.dumps(to_row(judgement)))) == judgement


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.sampled_from(["=1+1", "'=1", "''x", "-2", "@a", "+a", "'a"]))
def test_no_exported_cell_is_a_formula_and_all_come_back(cell):
    assert not neutralised(cell).startswith(("=", "+", "-", "@"))
    assert restored(neutralised(cell)) == cell


def test_a_bad_row_at_the_end_leaves_nothing_behind(tmp_path):
    study = study_with_pictures(tmp_path / "s")
    rows = [{"image": name, "annotator": f"a{i}", "label": "present"} for i in range(400) for name in IDS]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"image": "nobody", "annotator": "a", "label": "present"}\n')
    with pytest.raises(HFIError, match=r"rows\.jsonl: line 16001, image: unknown image 'nobody'"):
        import_judgements(study, file)
    with Store.of(study) as store:
        assert store.last() == 0 and store.counts()["annotators"] == {}


IMPORTER = """
import resource, sys, time
from pathlib import Path
from hfi.feedback.interchange import import_judgements
from hfi.workspace import Workspace
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(import_judgements(Workspace.open(sys.argv[1]), Path(sys.argv[2])))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def import_many(tmp_path: Path, count: int) -> int:
    """Import `count` rows in a process of its own; returns by how many MiB its peak memory grew."""
    study = study_with_pictures(tmp_path / "s", [f"p{i:04d}" for i in range(2000)])
    choice = random.Random(0).choice
    with (tmp_path / "many.jsonl").open("w") as stream:
        for k in range(count):
            stream.write(f'{{"image": "p{k % 2000:04d}", "annotator": "a{k // 2000}", "label": "{choice(("present", "absent"))}"}}\n')
    process = start(IMPORTER, str(study.root), str(tmp_path / "many.jsonl"))
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    counts, grown = out.strip().splitlines()
    assert f"'added': {count}" in counts
    return int(grown)


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path):
    assert import_many(tmp_path, 20_000) < 60


@pytest.mark.slow
def test_a_million_rows_import_in_bounded_memory(tmp_path):
    assert import_many(tmp_path, 1_000_000) < 100


def test_alpha_gives_the_published_values():
    """The worked example of Krippendorff (2011), section C: 4 observers, 12 units, missing data."""
    data = ["1233 2141 2...", "1233 2241 25.3", ".333 2342 251.", "1233 2441 251."]
    rows = [line.replace(" ", "") for line in data]
    counts = numpy.zeros((12, 5))
    for row in rows:
        for unit, value in enumerate(row):
            if value != ".":
                counts[unit, int(value) - 1] += 1
    assert krippendorff_alpha(counts) == pytest.approx(0.743, abs=1e-3)
    assert krippendorff_alpha(counts, "ordinal") == pytest.approx(0.815, abs=1e-3)
    assert krippendorff_alpha(counts, "interval") == pytest.approx(0.849, abs=1e-3)


def test_alpha_of_the_published_binary_example():
    """Krippendorff (2011), section A: two observers, ten units, 0/1 data: 0.095."""
    a, b = "0100000010", "1110010000"
    counts = numpy.array([[(x == "0") + (y == "0"), (x == "1") + (y == "1")] for x, y in zip(a, b, strict=True)])
    assert krippendorff_alpha(counts) == pytest.approx(0.095, abs=1e-3)


def test_alpha_is_one_for_equals_and_undefined_for_nothing():
    assert krippendorff_alpha(numpy.array([[3, 0], [0, 2]])) == 1.0
    assert krippendorff_alpha(numpy.array([[1, 0], [0, 1]])) is None  # nobody looked twice
    assert krippendorff_alpha(numpy.array([[3, 0], [2, 0]])) is None  # one value only
    assert krippendorff_alpha(numpy.zeros((0, 2))) is None
    assert ranking_agreement([("a", "b", "c"), ("a", "b", "c")]) == 1.0
    assert ranking_agreement([("a", "b", "c"), ("c", "b", "a")]) < 0


def test_simulated_answers_do_not_depend_on_the_order_of_asking():
    people = annotators(Label(), ("ink", "chalk"), seed=5)
    seen = {name: Seen(i / 40, 0.0, "ink") for i, name in enumerate(IDS)}
    forward = {(p.pseudonym, name): judge_binary(p, name, seen[name], 5) for p in people for name in IDS}
    backward = {(p.pseudonym, name): judge_binary(p, name, seen[name], 5) for p in people[::-1] for name in IDS[::-1]}
    assert forward == backward
    one, other = IDS[:5], IDS[:5][::-1]
    assert judge_ranking(people[0], tuple(one), [seen[n] for n in one], 5) == judge_ranking(
        people[0], tuple(other), [seen[n] for n in other], 5
    )


def test_simulated_annotators_err_at_their_own_rates():
    people = annotators(Label(error_rate=0.1, annotators=3), ("ink", "chalk"), seed=1)
    assert numpy.mean([p.error_rate for p in people]) == pytest.approx(0.1) and len({p.error_rate for p in people}) == 3
    for person in people:
        said = [judge_binary(person, f"x{i}", Seen(1.0, 0.0, None), 1).value for i in range(3000)]
        answered = [value for value in said if value in ("present", "absent")]
        assert answered.count("absent") / len(answered) == pytest.approx(person.error_rate, abs=0.02)


def test_every_picture_is_judged_overlap_times_and_rankings_are_even():
    people = annotators(Label(annotators=4), (), seed=2)
    plan = binary_plan(people, IDS, seed=2)
    assert [name for name, _ in plan] == IDS and all(len(set(chosen)) == 4 for _, chosen in plan)
    share = [sum(p in chosen[:3] for _, chosen in plan) for p in people]
    assert max(share) - min(share) <= 1
    sets = ranking_plan(people, IDS, Label(annotators=4, overlap=2, rankings=8, ranking_size=5), seed=2)
    assert sum(len(chosen) for _, chosen in sets) == 32 and all(len(set(images)) == 5 for images, _ in sets)
    shown = [sum(name in images for images, _ in sets) for name in IDS]
    assert max(shown) == min(shown) == 2


def test_written_files_are_whole_or_absent(tmp_path):
    def broken():
        yield Judgement((IDS[0],), "ann", value="present")
        raise RuntimeError("stopped")

    (tmp_path / "out.jsonl").write_text("old\n")
    with pytest.raises(RuntimeError):
        write_judgements(broken(), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "old\n" and len(list(tmp_path.iterdir())) == 1
