"""Layout 1: studies, images, annotators, guidelines, assignments, judgements (SQLite only in the wild)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hfi.errors import HFIError
from hfi.feedback.database import protect

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "study",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("concept", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
    )
    op.create_table(
        "image",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("added", sa.String(32), nullable=False),
    )
    op.create_table(
        "annotator",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("pseudonym", sa.String(64), nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.CheckConstraint("kind IN ('human', 'simulated', 'machine')"),
    )
    op.create_table(
        "guideline",
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
    )
    op.create_table(
        "assignment",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotator.id"), nullable=False),
        sa.Column("task", sa.String(8), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("images", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.UniqueConstraint("annotator", "task", "target"),
        sa.CheckConstraint("task IN ('binary', 'ranking')"),
    )
    op.create_table(
        "judgement",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotator.id"), nullable=False),
        sa.Column("guideline", sa.Integer, sa.ForeignKey("guideline.version"), nullable=False),
        sa.Column("task", sa.String(8), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("image", sa.String(64), sa.ForeignKey("image.id")),
        sa.Column("value", sa.String(8), nullable=False),
        sa.Column("ranking", sa.Text),
        sa.Column("excluded", sa.Text),
        sa.Column("seconds", sa.Float),
        sa.Column("created", sa.String(32), nullable=False),
        sa.CheckConstraint("task IN ('binary', 'ranking')"),
        sa.CheckConstraint("value IN ('present', 'absent', 'unsure', 'skip', 'ranked')"),
        sa.CheckConstraint("(task = 'binary') = (image IS NOT NULL)"),
        sa.CheckConstraint("(task = 'binary' AND value != 'ranked') OR (task = 'ranking' AND value NOT IN ('present', 'absent'))"),
        sa.CheckConstraint("(value = 'ranked') = (ranking IS NOT NULL)"),
        sa.CheckConstraint("seconds IS NULL OR seconds >= 0"),
    )
    op.create_index("judgement_by_target", "judgement", ["annotator", "task", "target"])
    op.create_index("judgement_by_image", "judgement", ["image"])
    protect(op.get_bind())


def downgrade() -> None:
    raise HFIError(
        "an older layout has no room for what this one holds",
        file="the feedback store",
        remedy="keep this version: judgements are never thrown away",
    )
