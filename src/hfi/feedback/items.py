"""What people are asked: one item per picture or ranking, how many judgements each still wants, and which are gold."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, text

from hfi.config import Label
from hfi.feedback import tables
from hfi.feedback.database import insert_missing
from hfi.feedback.events import Invalid, Unknown
from hfi.feedback.judgements import now
from hfi.feedback.tables import LABEL_ROUND
from hfi.seeds import derive

UNASKED = text("""SELECT image.id FROM image LEFT JOIN item ON item.round = image.round AND item.task = 'binary' AND item.target = image.id
                  WHERE image.round = :round AND item.id IS NULL ORDER BY image.id""")
# judgements of people that came by a file count towards what an item wants; here the items whose count has changed
BY_FILE = text("""SELECT item.id, came.number FROM item JOIN
                  (SELECT j.task, j.target, count(DISTINCT j.annotator) AS number FROM judgement AS j
                   JOIN annotator AS a ON a.id = j.annotator
                   WHERE j.lease IS NULL AND j.round = :round AND j.purpose = 'work' AND a.kind = 'human'
                   AND j.value IN ('present', 'absent', 'ranked') GROUP BY j.task, j.target) AS came
                  ON came.task = item.task AND came.target = item.target
                  WHERE item.round = :round AND item.imported != came.number""")
ANSWERED = "(SELECT count(*) FROM lease WHERE lease.item = item.id AND lease.turn = 0 AND lease.answered = 1)"
SETTLE = f"""UPDATE item SET done = CASE WHEN imported + {ANSWERED} >= wanted THEN 1 ELSE 0 END WHERE gold = 0"""
SETTLE_ONE = text(f"{SETTLE} AND id = :item")


def bring_up_to_date(connection: Connection, settings: Label, seed: int, round: str) -> None:
    """Items for all pictures of a round that have none, by the study's settings; what came by files since is counted.

    Evaluation rounds get their items from whoever builds them; here only their counts are looked after.
    """
    again = 0
    if round == LABEL_ROUND:
        if settings.judgement != "ranking":
            add(connection, [(name,) for name in connection.scalars(UNASKED, {"round": round})], settings.queue.overlap, seed, round)
        if settings.judgement != "binary":
            add(connection, _rankings(connection, settings, seed, round), settings.queue.overlap, seed, round)
        where = {"round": round, "overlap": settings.queue.overlap}
        change = text("UPDATE item SET wanted = :overlap WHERE round = :round AND gold = 0 AND wanted != :overlap")
        again = connection.execute(change, where).rowcount
    counted = [row._asdict() for row in connection.execute(BY_FILE, {"round": round})]
    if counted:
        connection.execute(text("UPDATE item SET imported = :number WHERE id = :id"), counted)
    if again or counted:
        connection.execute(text(f"{SETTLE} AND round = :round"), {"round": round})


def add(connection: Connection, tasks: Iterable[tuple[str, ...]], wanted: int, seed: int, round: str) -> int:
    """Items for tasks (one id: binary, several: a ranking) that are not known yet; returns how many were new."""
    return insert_missing(connection, tables.item, [_row(names, wanted, seed, round) for names in tasks])


def _row(names: tuple[str, ...], wanted: int, seed: int, round: str) -> dict:
    task, target = "binary" if len(names) == 1 else "ranking", " ".join(sorted(names))
    position = derive(seed, "queue", round, task, target)
    return {"round": round, "task": task, "target": target, "images": json.dumps(names), "gold": 0, "wanted": wanted, "imported": 0,
            "done": 0, "position": position, "created": now()}  # fmt: skip


def _rankings(connection: Connection, settings: Label, seed: int, round: str) -> Iterator[tuple[str, ...]]:
    """`label.rankings` sets of `label.ranking_size` pictures; the pictures are dealt out like cards, shuffled anew when they run out."""
    known = connection.scalar(text("SELECT count(*) FROM item WHERE round = :round AND task = 'ranking'"), {"round": round})
    names = list(connection.scalars(text("SELECT id FROM image WHERE round = :round ORDER BY id"), {"round": round}))
    if known or len(names) < settings.ranking_size:
        return
    dealt: list[str] = []
    for deal in itertools.count():
        dealt = sorted(names, key=lambda name, deal=deal: derive(seed, "ranking", deal, name))
        for _ in range(len(dealt) // settings.ranking_size):
            if known == settings.rankings:
                return
            known, set_, dealt = known + 1, dealt[: settings.ranking_size], dealt[settings.ranking_size :]
            yield tuple(set_)


def settle(connection: Connection, item: int) -> None:
    """Note whether an item has all the judgements that it wants."""
    connection.execute(SETTLE_ONE, {"item": item})


def set_gold(connection: Connection, image: str, value: str, note: str, quiz: bool, seed: int, round: str) -> None:
    """Make a picture's answer known; raises Unknown, Invalid."""
    if value not in ("present", "absent"):
        raise Invalid(f"{value!r:.40} cannot be a gold answer", field="value", remedy="use present or absent")
    if connection.scalar(text("SELECT 1 FROM image WHERE id = :image"), {"image": image}) is None:
        raise Unknown("no such picture", field=f"{image!r:.80}", remedy="choose a picture of this study")
    add(connection, [(image,)], 1, seed, round)
    connection.execute(text("DELETE FROM gold WHERE image = :image"), {"image": image})
    row = {"image": image, "value": value, "note": note[:2000], "quiz": int(quiz), "created": now()}
    connection.execute(tables.gold.insert(), row)
    mark = text("UPDATE item SET gold = 1, done = 0 WHERE round = :round AND task = 'binary' AND target = :image")
    connection.execute(mark, {"round": round, "image": image})


def drop_gold(connection: Connection, image: str, wanted: int, round: str) -> None:
    """Make a gold picture an ordinary one again; raises Unknown."""
    if not connection.execute(text("DELETE FROM gold WHERE image = :image"), {"image": image}).rowcount:
        raise Unknown("is no gold picture", field=f"{image!r:.80}", remedy="choose one of the list")
    where = {"round": round, "image": image, "wanted": wanted}
    chosen = "round = :round AND task = 'binary' AND target = :image"
    connection.execute(text(f"UPDATE item SET gold = 0, wanted = :wanted WHERE {chosen}"), where)
    connection.execute(text(f"{SETTLE} AND {chosen}"), where)
