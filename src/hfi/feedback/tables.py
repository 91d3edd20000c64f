"""The feedback store's tables. Judgements are append-only: the database itself refuses to change or delete one.

A later judgement of the same annotator on the same pictures supersedes the earlier; both stay. Nothing here holds a name,
an address or any other personal data: an annotator is a pseudonym.
"""

from __future__ import annotations

from sqlalchemy import (
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
SCHEMA_VERSION = 1

KINDS = ("human", "simulated", "machine")
TASKS = ("binary", "ranking")
LABELS = ("present", "absent", "unsure", "skip")
RANKED = "ranked"  # the value of a ranking that was given; a ranking can also be "unsure" or "skip"


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})")


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
    Column("text", Text, nullable=False),
    Column("created", String(32), nullable=False),
)
assignment = Table(  # what an annotator is asked; done once a judgement of that annotator has the same target
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
judgement = Table(
    "judgement",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("annotator", ForeignKey("annotator.id"), nullable=False),
    Column("guideline", ForeignKey("guideline.version"), nullable=False),
    Column("task", String(8), nullable=False),
    Column("target", Text, nullable=False),  # the picture's id, or the ranked pictures' ids sorted, with spaces between
    Column("image", ForeignKey("image.id")),  # binary: the picture
    Column("value", String(8), nullable=False),
    Column("ranking", Text),  # JSON list of ids, the concept strongest first
    Column("excluded", Text),  # JSON list of ids marked "X"
    Column("seconds", Float),
    Column("created", String(32), nullable=False),
    _one_of("task", TASKS),
    _one_of("value", (*LABELS, RANKED)),
    CheckConstraint("(task = 'binary') = (image IS NOT NULL)"),
    CheckConstraint("(task = 'binary' AND value != 'ranked') OR (task = 'ranking' AND value NOT IN ('present', 'absent'))"),
    CheckConstraint("(value = 'ranked') = (ranking IS NOT NULL)"),
    CheckConstraint("seconds IS NULL OR seconds >= 0"),
)
Index("judgement_by_target", judgement.c.annotator, judgement.c.task, judgement.c.target)
Index("judgement_by_image", judgement.c.image)

TRIGGERS = (
    """CREATE TRIGGER IF NOT EXISTS judgement_never_changes BEFORE UPDATE ON judgement
       BEGIN SELECT RAISE(ABORT, 'judgements are append-only: record a later one instead'); END""",
    """CREATE TRIGGER IF NOT EXISTS judgement_never_goes BEFORE DELETE ON judgement
       BEGIN SELECT RAISE(ABORT, 'judgements are append-only: record a later one instead'); END""",
    # INSERT OR REPLACE would delete the old row without asking the trigger above
    """CREATE TRIGGER IF NOT EXISTS judgement_never_replaced BEFORE INSERT ON judgement
       WHEN EXISTS (SELECT 1 FROM judgement WHERE id = NEW.id)
       BEGIN SELECT RAISE(ABORT, 'judgements are append-only: record a later one instead'); END""",
)

# The judgements that count: the last one of each annotator on each target.
CURRENT = """
    SELECT j.id, j.annotator, a.pseudonym, a.kind, j.task, j.target, j.value, j.ranking, j.excluded, j.seconds, j.guideline, j.created
    FROM judgement AS j JOIN annotator AS a ON a.id = j.annotator
    WHERE NOT EXISTS (SELECT 1 FROM judgement AS later WHERE later.annotator = j.annotator AND later.task = j.task
                      AND later.target = j.target AND later.id > j.id)
"""
