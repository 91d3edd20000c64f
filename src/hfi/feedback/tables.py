"""The feedback store's tables. Judgements are append-only: the database itself refuses to change or delete one.

A later judgement of the same annotator on the same pictures supersedes the earlier; an undo is a row of value "withdrawn" that
names the row it withdraws. All of them stay. Nothing here holds a name, an address or any other personal data: an annotator is a
pseudonym. Flags are 0 or 1, for SQLite and PostgreSQL agree on integers.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

APPLICATION_ID = 0x48464931  # "HFI1": tells this SQLite file from any other
SCHEMA_VERSION = 2  # the newest of hfi.feedback.migrations

KINDS = ("human", "simulated", "machine")
TASKS = ("binary", "ranking")
LABELS = ("present", "absent", "unsure", "skip")
RANKED = "ranked"  # the value of a ranking that was given; a ranking can also be "unsure" or "skip"
WITHDRAWN = "withdrawn"  # the value of an undo's row
PURPOSES = ("work", "gold", "quiz", "repeat", "adjudication")  # why a judgement was asked for
LABEL_ROUND = "label"  # the round that the reward learns from; others are human evaluations


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})")


def _round() -> Column:
    return Column("round", String(32), nullable=False, server_default=LABEL_ROUND)


metadata = MetaData()

study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("concept", Text, nullable=False),
    Column("created", String(32), nullable=False),
)
image = Table(
    "image",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("file", Text, nullable=False),  # relative to the study's folder
    Column("added", String(32), nullable=False),
    _round(),
)
annotator = Table(
    "annotator",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pseudonym", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("created", String(32), nullable=False),
    _one_of("kind", KINDS),
)
guideline = Table(
    "guideline",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("text", Text, nullable=False),  # Markdown
    Column("created", String(32), nullable=False),
    _round(),
)
assignment = Table(  # what a simulated annotator is asked; done once a judgement of that annotator has the same target
    "assignment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("annotator", ForeignKey("annotator.id"), nullable=False),
    Column("task", String(8), nullable=False),
    Column("target", Text, nullable=False),
    Column("images", Text, nullable=False),  # JSON list, in the order shown
    Column("created", String(32), nullable=False),
    UniqueConstraint("annotator", "task", "target"),
    _one_of("task", TASKS),
)
item = Table(  # what people are asked
    "item",
    metadata,
    Column("id", Integer, primary_key=True),
    _round(),
    Column("task", String(8), nullable=False),
    Column("target", Text, nullable=False),
    Column("images", Text, nullable=False),  # JSON list, in the order shown
    Column("gold", Integer, nullable=False),  # 1: the answer is known
    Column("wanted", Integer, nullable=False),  # judgements by people; gold items are asked of everybody
    Column("imported", Integer, nullable=False),  # how many of those came by a file
    Column("done", Integer, nullable=False),  # 1: as many judgements as are wanted; never for gold items
    Column("position", BigInteger, nullable=False),  # random, from the study's seed: the order in which items come up
    Column("created", String(32), nullable=False),
    UniqueConstraint("round", "task", "target"),
    _one_of("task", TASKS),
)
Index("item_by_position", item.c.round, item.c.gold, item.c.done, item.c.position)
lease = Table(  # an item in one annotator's hands, for a time or, once answered, for good
    "lease",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("token", String(32), nullable=False, unique=True),  # random: the item's id outside
    Column("item", ForeignKey("item.id"), nullable=False),
    Column("annotator", ForeignKey("annotator.id"), nullable=False),
    Column("turn", Integer, nullable=False),  # 1: the same item a second time, to measure consistency
    Column("until", Float, nullable=False),  # seconds since 1970
    Column("answered", Integer, nullable=False),
    UniqueConstraint("item", "annotator", "turn"),
)
Index("lease_by_annotator", lease.c.annotator, lease.c.answered, lease.c.number)
judgement = Table(
    "judgement",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("annotator", ForeignKey("annotator.id"), nullable=False),
    Column("guideline", ForeignKey("guideline.version"), nullable=False),
    Column("task", String(8), nullable=False),
    Column("target", Text, nullable=False),  # the picture's id, or the ranked pictures' ids sorted, with spaces between
    Column("image", ForeignKey("image.id")),  # binary: the picture
    Column("value", String(16), nullable=False),
    Column("ranking", Text),  # JSON list of ids, the concept strongest first
    Column("excluded", Text),  # JSON list of ids marked "X"
    Column("seconds", Float),
    Column("created", String(32), nullable=False),
    _round(),
    Column("purpose", String(16), nullable=False, server_default="work"),
    Column("lease", ForeignKey("lease.number")),  # null: it came by a file, from a machine or by adjudication
    Column("submission", String(64), unique=True),  # the client's UUID: the same answer sent twice is stored once
    Column("withdraws", ForeignKey("judgement.id"), unique=True),  # an undo: the row that no longer counts
    _one_of("task", TASKS),
    _one_of("value", (*LABELS, RANKED, WITHDRAWN)),
    _one_of("purpose", PURPOSES),
    CheckConstraint("(task = 'binary') = (image IS NOT NULL)"),
    CheckConstraint("(task = 'binary' AND value != 'ranked') OR (task = 'ranking' AND value NOT IN ('present', 'absent'))"),
    CheckConstraint("(value = 'ranked') = (ranking IS NOT NULL)"),
    CheckConstraint("(value = 'withdrawn') = (withdraws IS NOT NULL)"),
    CheckConstraint("seconds IS NULL OR seconds >= 0"),
)
Index("judgement_by_target", judgement.c.annotator, judgement.c.task, judgement.c.target)
Index("judgement_by_image", judgement.c.image)
Index("judgement_by_annotator", judgement.c.annotator, judgement.c.id)
Index("judgement_by_lease", judgement.c.lease)
gold = Table(  # pictures whose answer is known
    "gold",
    metadata,
    Column("image", ForeignKey("image.id"), primary_key=True),
    Column("value", String(16), nullable=False),
    Column("note", Text, nullable=False),  # why; shown after a quiz item
    Column("quiz", Integer, nullable=False),
    Column("created", String(32), nullable=False),
    _one_of("value", ("present", "absent")),
)
tally = Table(  # answers of one annotator on one day, so that progress costs no walk over the judgements
    "tally",
    metadata,
    Column("annotator", ForeignKey("annotator.id"), primary_key=True),
    Column("round", String(32), primary_key=True),
    Column("day", String(10), primary_key=True),  # UTC
    Column("answers", Integer, nullable=False),
    Column("flagged", Integer, nullable=False),  # pictures seen that were flagged, by this annotator or by another one before
)
preference = Table(
    "preference",
    metadata,
    Column("annotator", ForeignKey("annotator.id"), primary_key=True),
    Column("choices", Text, nullable=False),  # JSON
    Column("changed", String(32), nullable=False),
)
refusal = Table(  # requests that were not granted; no address, nothing personal
    "event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("status", Integer, nullable=False),
    Column("annotator", String(64)),  # pseudonym, where one is known
    Column("route", String(100), nullable=False),
    Column("detail", String(200), nullable=False),
)

# Rows that count: not undone, and no undo themselves. Then the last one of each annotator on each target.
_STANDS = "{j}.value != 'withdrawn' AND NOT EXISTS (SELECT 1 FROM judgement AS undo WHERE undo.withdraws = {j}.id)"
CURRENT = f"""
    SELECT j.id, j.annotator, a.pseudonym, a.kind, j.task, j.target, j.value, j.ranking, j.excluded, j.seconds, j.guideline, j.created,
           j.round, j.purpose
    FROM judgement AS j JOIN annotator AS a ON a.id = j.annotator
    WHERE {_STANDS.format(j="j")}
    AND NOT EXISTS (SELECT 1 FROM judgement AS later WHERE later.annotator = j.annotator AND later.task = j.task
                    AND later.target = j.target AND later.id > j.id AND {_STANDS.format(j="later")})
"""
