"""Layout 2: the labelling page. Items, leases, gold, tallies, preferences and events; undo rows, rounds and purposes of judgements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hfi.errors import HFIError
from hfi.feedback.database import protect, unprotect

revision = "0002"
down_revision = "0001"

KEPT = "id, annotator, guideline, task, target, image, value, ranking, excluded, seconds, created"


def _round() -> sa.Column:
    return sa.Column("round", sa.String(32), nullable=False, server_default="label")


def upgrade() -> None:
    op.add_column("image", _round())
    op.add_column("guideline", _round())
    op.create_table(
        "item",
        sa.Column("id", sa.Integer, primary_key=True),
        _round(),
        sa.Column("task", sa.String(8), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("images", sa.Text, nullable=False),
        sa.Column("gold", sa.Integer, nullable=False),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("imported", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.UniqueConstraint("round", "task", "target"),
        sa.CheckConstraint("task IN ('binary', 'ranking')"),
    )
    op.create_index("item_by_position", "item", ["round", "gold", "done", "position"])
    op.create_table(
        "lease",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("token", sa.String(32), nullable=False, unique=True),
        sa.Column("item", sa.Integer, sa.ForeignKey("item.id"), nullable=False),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotator.id"), nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("answered", sa.Integer, nullable=False),
        sa.UniqueConstraint("item", "annotator", "turn"),
    )
    op.create_index("lease_by_annotator", "lease", ["annotator", "answered", "number"])
    _judgement()
    op.create_table(
        "gold",
        sa.Column("image", sa.String(64), sa.ForeignKey("image.id"), primary_key=True),
        sa.Column("value", sa.String(16), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("quiz", sa.Integer, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.CheckConstraint("value IN ('present', 'absent')"),
    )
    op.create_table(
        "tally",
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotator.id"), primary_key=True),
        sa.Column("round", sa.String(32), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("answers", sa.Integer, nullable=False),
        sa.Column("flagged", sa.Integer, nullable=False),
    )
    op.create_table(
        "preference",
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotator.id"), primary_key=True),
        sa.Column("choices", sa.Text, nullable=False),
        sa.Column("changed", sa.String(32), nullable=False),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("annotator", sa.String(64)),
        sa.Column("route", sa.String(100), nullable=False),
        sa.Column("detail", sa.String(200), nullable=False),
    )


def _judgement() -> None:
    """The table anew, with every row it had: SQLite cannot change a check constraint in place."""
    connection = op.get_bind()
    unprotect(connection)
    op.drop_index("judgement_by_target", "judgement")
    op.drop_index("judgement_by_image", "judgement")
    op.rename_table("judgement", "judgement_1")
    op.create_table(
        "judgement",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotator.id"), nullable=False),
        sa.Column("guideline", sa.Integer, sa.ForeignKey("guideline.version"), nullable=False),
        sa.Column("task", sa.String(8), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("image", sa.String(64), sa.ForeignKey("image.id")),
        sa.Column("value", sa.String(16), nullable=False),
        sa.Column("ranking", sa.Text),
        sa.Column("excluded", sa.Text),
        sa.Column("seconds", sa.Float),
        sa.Column("created", sa.String(32), nullable=False),
        _round(),
        sa.Column("purpose", sa.String(16), nullable=False, server_default="work"),
        sa.Column("lease", sa.Integer, sa.ForeignKey("lease.number")),
        sa.Column("submission", sa.String(64), unique=True),
        sa.Column("withdraws", sa.Integer, sa.ForeignKey("judgement.id"), unique=True),
        sa.CheckConstraint("task IN ('binary', 'ranking')"),
        sa.CheckConstraint("value IN ('present', 'absent', 'unsure', 'skip', 'ranked', 'withdrawn')"),
        sa.CheckConstraint("purpose IN ('work', 'gold', 'quiz', 'repeat', 'adjudication')"),
        sa.CheckConstraint("(task = 'binary') = (image IS NOT NULL)"),
        sa.CheckConstraint("(task = 'binary' AND value != 'ranked') OR (task = 'ranking' AND value NOT IN ('present', 'absent'))"),
        sa.CheckConstraint("(value = 'ranked') = (ranking IS NOT NULL)"),
        sa.CheckConstraint("(value = 'withdrawn') = (withdraws IS NOT NULL)"),
        sa.CheckConstraint("seconds IS NULL OR seconds >= 0"),
    )
    op.execute(f"INSERT INTO judgement ({KEPT}) SELECT {KEPT} FROM judgement_1")
    op.drop_table("judgement_1")
    op.create_index("judgement_by_target", "judgement", ["annotator", "task", "target"])
    op.create_index("judgement_by_image", "judgement", ["image"])
    op.create_index("judgement_by_annotator", "judgement", ["annotator", "id"])
    op.create_index("judgement_by_lease", "judgement", ["lease"])
    protect(connection)


def downgrade() -> None:
    raise HFIError(
        "an older layout has no room for what this one holds",
        file="the feedback store",
        remedy="keep this version: judgements are never thrown away",
    )
