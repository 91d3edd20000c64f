"""What the page's module asks and sends: items, answers, undo. Every answer is on disk when its receipt is sent."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from hfi.feedback.judgements import MAX_RANKED
from hfi.feedback.queue import MOST, Answer, Entry, Item, Receipt
from hfi.feedback.tables import LABEL_ROUND
from hfi.feedback.web.guard import needs, token
from hfi.feedback.web.state import Person, State

router = APIRouter(prefix="/api")
Annotator = Annotated[Person, Depends(needs("annotator"))]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
Round = Annotated[str, Query(pattern=r"^[a-z0-9-]{1,32}$", description="label, or an evaluation round")]
Version = Annotated[int, Field(ge=1, lt=2**31)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(Model):
    """Every refusal."""

    error: str
    remedy: str
    kind: str


class ItemOut(Model):
    id: str
    task: Literal["binary", "ranking"]
    images: list[str]
    lease_until: str


class ProgressOut(Model):
    done: int
    left: int
    pace_per_minute: float
    today: int
    flagged_seen_today: int
    daily_cap: int
    capped: bool
    break_due: bool
    opted_out: bool


class NextOut(Model):
    items: list[ItemOut]
    progress: ProgressOut
    guideline: int


class AnswerIn(Model):
    submission: UUID
    item: Word
    value: Literal["present", "absent", "unsure", "skip", "ranked"]
    ranking: list[Word] = Field([], max_length=MAX_RANKED)
    excluded: list[Word] = Field([], max_length=MAX_RANKED)
    seconds: float | None = Field(None, ge=0, le=86400, allow_inf_nan=False)
    guideline: Version | None = None
    revises: UUID | None = None


class AnswerOut(Model):
    value: str
    ranking: list[str]
    excluded: list[str]
    seconds: float | None
    guideline: int | None


class ReceiptOut(Model):
    submission: str
    item: str
    answer: AnswerOut
    created: str
    withdrawn: bool


class UndoIn(Model):
    submission: UUID


class EntryOut(Model):
    position: int
    submission: str
    id: str
    task: Literal["binary", "ranking"]
    images: list[str]
    answer: AnswerOut
    created: str
    counts: bool


class SessionOut(Model):
    who: str
    csrf: str


REFUSALS = {status: {"model": Problem} for status in (400, 401, 403, 404, 409, 413, 422, 429, 503)}


@router.get("/session", responses=REFUSALS)
async def session(request: Request, person: Annotator) -> SessionOut:
    """Whose session this is, and its form token (an open page asks for it after a restart or a new login)."""
    return SessionOut(who=person.pseudonym, csrf=person.csrf)


@router.get("/next", responses=REFUSALS)
async def next_items(
    request: Request, person: Annotator, count: Annotated[int, Query(ge=1, le=MOST)] = 8, round: Round = LABEL_ROUND
) -> NextOut:
    """One's own open items first, then new ones; asking keeps them reserved."""
    state: State = request.app.state.hfi
    return await state.desk.ask(_next, state, person.pseudonym, count, round)


def _next(state: State, pseudonym: str, count: int, round: str) -> NextOut:
    queue = state.queue_of(round)
    items, progress = queue.ask(pseudonym, count)
    progress_out = ProgressOut(**asdict(progress))
    return NextOut(items=[item_out(item) for item in items], progress=progress_out, guideline=state.guideline(round)[1])


@router.post("/answers", responses=REFUSALS, dependencies=[Depends(token)])
async def answers(request: Request, person: Annotator, sent: AnswerIn) -> ReceiptOut:
    """Record an answer. The same submission again gives the same receipt and stores nothing."""
    state: State = request.app.state.hfi
    answer = Answer(sent.value, tuple(sent.ranking), tuple(sent.excluded), sent.seconds, sent.guideline, sent.revises and str(sent.revises))
    return receipt_out(await state.desk.save(state.queue.submit, person.pseudonym, sent.item, answer, str(sent.submission)))


@router.post("/undo", responses=REFUSALS, dependencies=[Depends(token)])
async def undo(request: Request, person: Annotator, sent: UndoIn) -> ReceiptOut:
    """Withdraw an answer by a new row; twice is once."""
    state: State = request.app.state.hfi
    return receipt_out(await state.desk.save(state.queue.undo, person.pseudonym, str(sent.submission)))


@router.get("/history", responses=REFUSALS)
def history(
    request: Request,
    person: Annotator,
    before: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    count: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[EntryOut]:
    """One's own answers, newest first."""
    state: State = request.app.state.hfi
    return [entry_out(entry) for entry in state.queue.history(person.pseudonym, before, count)]


@router.get("/progress", responses=REFUSALS)
def progress(request: Request, person: Annotator, round: Round = LABEL_ROUND) -> ProgressOut:
    """Where one stands."""
    state: State = request.app.state.hfi
    return ProgressOut(**asdict(state.queue_of(round).progress(person.pseudonym)))


def item_out(item: Item) -> ItemOut:
    return ItemOut(id=item.id, task=item.task, images=list(item.images), lease_until=item.lease_until)


def entry_out(entry: Entry) -> EntryOut:
    return EntryOut(
        position=entry.position,
        submission=entry.submission,
        id=entry.item_id,
        task=entry.task,
        images=list(entry.images),
        answer=_answer_out(entry.answer),
        created=entry.created,
        counts=entry.counts,
    )


def receipt_out(receipt: Receipt) -> ReceiptOut:
    return ReceiptOut(
        submission=receipt.submission,
        item=receipt.item_id,
        answer=_answer_out(receipt.answer),
        created=receipt.created,
        withdrawn=receipt.withdrawn,
    )


def _answer_out(answer: Answer) -> AnswerOut:
    return AnswerOut(
        value=answer.value, ranking=list(answer.ranking), excluded=list(answer.excluded), seconds=answer.seconds, guideline=answer.guideline
    )
