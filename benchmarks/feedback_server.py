"""The labelling app's server under load, killed under load, with a large study, and from the key to the next picture.

    python benchmarks/feedback_server.py                      everything, on SQLite and PostgreSQL (25 to 40 minutes)
    python benchmarks/feedback_server.py --short              a small version of everything, to see that it works
    python benchmarks/feedback_server.py --databases sqlite --parts load,kills

The server is a real process (`hfi label STUDY`), the annotators are threads here with one connection each, logged in with accounts.
Parts: load (50 annotators, one judgement a second each, two minutes), kills (kill -9 under that load, 50 times), key (Chromium),
pages (200,000 images, a million judgements). Ends with one line of JSON: for each database "acknowledged", "stored", "lost",
"doubled" (both parts together), "p99_ms" (a save under load), "kills", "key_to_picture_ms", "slowest_page_ms" and what else was seen.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
PASSWORD = "correct horse battery"
PATIENCE = 120.0  # seconds that a client waits for an answer; longer than any honest machine takes
FULL = {"annotators": 50, "seconds": 120.0, "kills": 50, "images": 200_000, "judgements": 1_000_000, "keys": 200}
SHORT = {"annotators": 5, "seconds": 5.0, "kills": 2, "images": 2_000, "judgements": 10_000, "keys": 20}
PAGES = ("/label", "/progress", "/settings", "/guideline", "/consent", "/review", "/review/disagreements", "/review/gold",
         "/admin/accounts", "/admin/events", "/api/next", "/api/progress", "/api/history", "/api/session")  # fmt: skip


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


# --- a study and its server ------------------------------------------------------------------------------------------------------


def png(colour: int) -> bytes:
    """A 64x64 picture of one colour."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes((colour % 256, colour // 7 % 256, 128)) * 64 for _ in range(64))
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def make_study(folder: Path, images: int, overlap: int) -> Path:
    """A study whose pictures are drawn already (16 of them, under many names)."""
    from hfi.config import parse_config
    from hfi.workspace import Workspace

    queue = {"overlap": overlap, "break_every": 0}
    study = Workspace.create(folder, parse_config({"name": "load", "label": {"queue": queue}}, "benchmark"))
    (folder / "generate" / "images").mkdir(parents=True)
    for k in range(16):
        (folder / "generate" / "images" / f"{k}.png").write_bytes(png(1000 * k))
    with (folder / "generate" / "images.jsonl").open("w") as stream:
        for k in range(images):
            stream.write(json.dumps({"id": f"p{k:06d}", "file": f"images/{k % 16}.png"}) + "\n")
    (folder / "generate" / "manifest.json").write_text("{}")
    return study.root


class Server:
    """`hfi label STUDY` as a process of its own, always on the same port; none is left behind."""

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def __init__(self, study: Path, database: str | None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.study, self.process = study, None
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **({"HFI_DATABASE_URL": database} if database else {})}
        if database is None:
            self.environment.pop("HFI_DATABASE_URL", None)
        self.starts: list[float] = []

    def start(self) -> None:
        """Start it and wait for its link; the seconds that this took are kept."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "hfi.cli", "label", str(self.study), "--no-browser", "--port", str(self.port)]
        self.log = (self.study.parent / "server.log").open("a")
        self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if "http://" not in line:
            sys.exit(f"the server did not start: {line}{(self.study.parent / 'server.log').read_text()[-2000:]}")
        while self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
                break
        self.starts.append(time.perf_counter() - began)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def memory_mib(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


# --- annotators ------------------------------------------------------------------------------------------------------------------


@dataclass
class Client:
    """One annotator's browser: a cookie, a form token, a connection that is made anew when it breaks."""

    port: int
    cookie: str = ""
    csrf: str = ""
    connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, dict, bytes]:
        """(status, headers, body); raises OSError or HTTPException when the server is away."""
        headers = {"cookie": self.cookie, "x-csrf-token": self.csrf, "host": f"127.0.0.1:{self.port}"}
        if body is not None:
            headers["content-type"] = kind
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            self.connection.connect()
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            raise
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                self.cookie = value.split(";")[0]
        return answer.status, dict(answer.getheaders()), data

    def form(self, path: str, fields: dict[str, str]) -> int:
        """Fill in a page's form, with the token that the page carries."""
        _, _, page = self.ask("GET", path)
        found = re.search(rb'name="csrf" value="([^"]+)"', page)
        self.csrf = found[1].decode() if found else self.csrf
        return self.ask("POST", path, urlencode({**fields, "csrf": self.csrf}).encode(), "application/x-www-form-urlencoded")[0]

    def begin(self, name: str | None) -> None:
        """Log in (where there are accounts) and accept the consent page."""
        if name is not None and (status := self.form("/login", {"name": name, "password": PASSWORD})) != 303:
            sys.exit(f"{name} could not log in ({status})")
        status, _, found = self.ask("GET", "/api/session")
        if status != 200:
            sys.exit(f"no session ({status}): {found[:200]!r}")
        self.csrf = json.loads(found)["csrf"]
        if (status := self.form("/consent", {"choice": "agree"})) != 303:
            sys.exit(f"the consent page answered {status}")
        self.csrf = json.loads(self.ask("GET", "/api/session")[2])["csrf"]


@dataclass
class Tally:
    """What all annotators together saw."""

    acknowledged: list[str] = field(default_factory=list)  # submissions
    save_ms: list[float] = field(default_factory=list)  # of saves that went through at the first try
    next_ms: list[float] = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)  # status -> number
    retries: int = 0


def annotate(client: Client, tally: Tally, stop: threading.Event, phase: float) -> None:
    """Judge one picture a second until told to stop; what is not acknowledged is sent again, as the browser's outbox does."""
    items: list[dict] = []
    tick = time.monotonic() + phase
    while not stop.is_set():
        if not items:
            began = time.perf_counter()
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _, found = client.ask("GET", "/api/next?count=8")
                tally.next_ms.append(1000 * (time.perf_counter() - began))
                if status == 200:
                    items = json.loads(found)["items"]
                else:
                    tally.refused[status] += 1
            if not items:
                stop.wait(0.2)
                continue
        if stop.wait(max(0.0, tick - time.monotonic())):
            return  # not due yet: else all would send at once as the run ends
        tick = max(tick + 1.0, time.monotonic())
        send(client, tally, items.pop(0)["id"], stop)


def send(client: Client, tally: Tally, item: str, stop: threading.Event) -> None:
    submission = str(uuid.uuid4())
    value = random.choice(("present", "absent", "absent"))
    body = json.dumps({"submission": submission, "item": item, "value": value, "seconds": 1.0}).encode()
    first, pause = True, 0.1
    while True:
        began = time.perf_counter()
        try:
            status = client.ask("POST", "/api/answers", body)[0]
        except (OSError, http.client.HTTPException):
            status = 0
        if status == 200:
            tally.acknowledged.append(submission)
            if first:
                tally.save_ms.append(1000 * (time.perf_counter() - began))
            return
        if 400 <= status < 500:
            tally.refused[status] += 1
            return
        first, tally.retries = False, tally.retries + 1
        if stop.is_set() and pause > 1:  # the run is over and the server is not there
            return
        time.sleep(pause)
        pause = min(2.0, 1.5 * pause)


@contextlib.contextmanager
def at_work(clients: list[Client]) -> Iterator[Tally]:
    """All clients judge while the block runs."""
    tally, stop = Tally(), threading.Event()
    phases = [k / len(clients) for k in range(len(clients))]
    threads = [threading.Thread(target=annotate, args=(client, tally, stop, phase)) for client, phase in zip(clients, phases, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def compare(study: Path, database: str | None, acknowledged: list[str]) -> dict:
    """What the database holds of what was acknowledged: {"stored", "lost", "doubled"}."""
    from sqlalchemy import text

    from hfi.feedback.store import Store

    with Store(database or study / "feedback.sqlite", "load", "weapon") as store, store.reading() as connection:
        kept = Counter(connection.scalars(text("SELECT submission FROM judgement WHERE submission IS NOT NULL")))
        twice = connection.scalar(text("""SELECT count(*) FROM (SELECT 1 FROM judgement WHERE value != 'withdrawn' AND purpose != 'repeat'
                                          GROUP BY annotator, task, target HAVING count(*) > 1) AS twice"""))
    doubled = sum(number - 1 for number in kept.values()) + twice
    return {"stored": len(kept), "lost": len(set(acknowledged) - set(kept)), "doubled": doubled}


# --- parts -----------------------------------------------------------------------------------------------------------------------


def load_and_kills(stack: contextlib.ExitStack, folder: Path, database: str | None, size: dict, parts: set[str]) -> dict:
    """Annotators at one judgement a second each, first in peace, then with a server that is killed again and again."""
    from hfi.feedback.accounts import Accounts
    from hfi.workspace import Workspace

    wanted = int(2 * size["annotators"] * (size["seconds"] + 6 * size["kills"]))
    study = make_study(folder / "load", max(400, wanted), overlap=3)
    server = stack.enter_context(Server(study, database))
    with environment(server.environment):
        accounts = Accounts.of(Workspace.open(study))
        names = [f"annotator{k}" for k in range(size["annotators"])]
        for name in names:
            accounts.add(name, PASSWORD, "admin" if name == names[0] else "annotator")
        accounts.close()
    server.start()
    clients = [Client(server.port) for _ in names]
    for client, name in zip(clients, names, strict=True):
        client.begin(name)
    found: dict = {"acknowledged": 0, "first_start_s": round(server.starts[0], 2)}
    acknowledged: list[str] = []
    if "load" in parts:
        with at_work(clients) as tally:
            time.sleep(size["seconds"] * 0.25)
            before = server.memory_mib()
            time.sleep(size["seconds"] * 0.75)
            after = server.memory_mib()
        acknowledged += tally.acknowledged
        found |= {
            "p99_ms": round(percentile(tally.save_ms, 0.99), 1), "median_ms": round(percentile(tally.save_ms, 0.5), 1),
            "next_p99_ms": round(percentile(tally.next_ms, 0.99), 1), "saves_a_second": round(len(tally.acknowledged) / size["seconds"], 1),
            "memory_mib": {"at_a_quarter": round(before, 1), "at_the_end": round(after, 1)}, "refused_under_load": dict(tally.refused),
        }  # fmt: skip
        print(f"  load: {len(tally.acknowledged)} saves, median {found['median_ms']} ms, p99 {found['p99_ms']} ms", flush=True)
    if "kills" in parts:
        done = 0
        with at_work(clients) as tally:
            for _ in range(size["kills"]):
                time.sleep(random.uniform(0.5, 2.0))
                server.kill()
                server.start()
                done += 1
            time.sleep(3)
        acknowledged += tally.acknowledged
        found |= {"kills": done, "acknowledged_under_kills": len(tally.acknowledged), "retries": tally.retries,
                  "restart_s": round(percentile(server.starts[1:], 0.5), 2), "refused_under_kills": dict(tally.refused)}  # fmt: skip
        print(f"  kills: {done}, {len(tally.acknowledged)} saves acknowledged between them", flush=True)
    server.kill()
    with environment(server.environment):
        return found | {"acknowledged": len(acknowledged)} | compare(study, database, acknowledged)


def pages(stack: contextlib.ExitStack, folder: Path, database: str | None, size: dict) -> dict:
    """A large study: how long each page takes, the first time after a start included."""
    study = make_study(folder / "pages", size["images"], overlap=6)
    server = stack.enter_context(Server(study, database))
    server.start()
    first = Client(server.port)
    first.begin(None)
    first.ask("GET", "/api/next?count=8")
    server.kill()
    began = time.perf_counter()
    fill(study, database, size["images"], size["judgements"])
    print(f"  pages: filled in {time.perf_counter() - began:.0f} s", flush=True)
    server.start()
    client = Client(server.port)
    client.begin(None)
    slowest: dict[str, float] = {}
    for turn in range(4):
        for page in PAGES:
            began = time.perf_counter()
            status, _, _ = client.ask("GET", page)
            spent = 1000 * (time.perf_counter() - began)
            if status not in (200, 303):
                slowest[f"{page} answered {status}"] = float("inf")
            slowest[page] = max(slowest.get(page, 0.0), spent)
        item = json.loads(client.ask("GET", "/api/next?count=8")[2])["items"][0]["id"]
        body = json.dumps({"submission": str(uuid.uuid4()), "item": item, "value": "absent", "seconds": 1.0}).encode()
        began = time.perf_counter()
        status = client.ask("POST", "/api/answers", body)[0]
        slowest["save"] = max(slowest.get("save", 0.0), 1000 * (time.perf_counter() - began))
        assert status == 200, status
        time.sleep(0 if turn == 0 else 6)  # so that figures that are kept for five seconds are counted anew
    start = server.starts[-1]
    server.kill()
    shown = dict(sorted(((page, round(spent)) for page, spent in slowest.items()), key=lambda pair: -pair[1])[:6])
    print(f"  pages: slowest {shown}", flush=True)
    return {"slowest_page_ms": round(max(slowest.values())), "slowest_pages_ms": shown, "large_study_start_s": round(start, 2)}


def fill(study: Path, database: str | None, images: int, judgements: int) -> None:
    """Judgements as 20 people would have given them on the page, laid in by SQL: per person and picture once, one in ten present."""
    from sqlalchemy import text

    from hfi.feedback.store import Store

    numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
    with Store(database or study / "feedback.sqlite", "load", "weapon") as store:
        for k in range(20):
            store.add_annotator(f"person{k:02d}")
        with store.writing() as connection:
            first = connection.scalar(text("SELECT min(id) FROM annotator WHERE pseudonym LIKE 'person%'"))
            item = connection.scalar(text("SELECT min(id) FROM item"))
            guideline = connection.scalar(text("SELECT max(version) FROM guideline"))
            where = {"last": judgements - 1, "images": images, "first": first, "item": item, "guideline": guideline}
            who = "CAST(:first AS INTEGER) + (i % :images + 3 * (i / :images)) % 20"
            connection.execute(text(f"""{numbers} INSERT INTO lease (token, item, annotator, turn, until, answered)
                SELECT 't' || i, CAST(:item AS INTEGER) + i % :images, {who}, 0, 0, 1 FROM n"""), where)
            connection.execute(text("""INSERT INTO judgement
                (annotator, guideline, task, target, image, value, seconds, created, lease, submission)
                SELECT l.annotator, :guideline, 'binary', t.target, t.target,
                CASE WHEN (l.item * 7 + l.annotator % 2) % 10 = 0 THEN 'present' ELSE 'absent' END,
                1.5, '2026-01-01T00:00:00.000Z', l.number, 'bulk-' || l.token
                FROM lease AS l JOIN item AS t ON t.id = l.item WHERE l.answered = 1 ORDER BY l.number"""), where)
            connection.execute(text("""INSERT INTO tally (annotator, round, day, answers, flagged)
                SELECT annotator, 'label', '2026-01-01', count(*), 0 FROM lease WHERE answered = 1 GROUP BY annotator"""))
            connection.exec_driver_sql("ANALYZE")
    if database:  # as PostgreSQL does by itself while judgements come in over weeks, and here else during the first pages
        import psycopg

        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")


WATCH = """() => {
  const picture = () => document.querySelector("#item .item.binary img");
  let shown = picture().getAttribute("src"); // of the frame before: when this listener is called, the page has answered already
  window.seen = [];
  addEventListener("keydown", (event) => {
    const look = () => {
      const image = picture();
      if (image && image.getAttribute("src") !== shown && image.complete && image.naturalWidth) {
        shown = image.getAttribute("src");
        requestAnimationFrame(() => window.seen.push(performance.now() - event.timeStamp));
      } else if (performance.now() - event.timeStamp < 3000) requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }, true);
}"""


def key_to_picture(stack: contextlib.ExitStack, folder: Path, database: str | None, size: dict) -> dict:
    """Milliseconds from a key's press to the frame that shows the next picture, in Chromium, at three keys a second."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return {"key_to_picture_ms": "not measured: playwright is not installed (make test-browser installs it)"}
    study = make_study(folder / "key", 4 * size["keys"] + 100, overlap=1)
    server = stack.enter_context(Server(study, database))
    server.start()
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", headless=True, args=flags)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/consent")
        page.click("button[value=agree]")
        page.goto(f"http://127.0.0.1:{server.port}/label")
        page.wait_for_function("document.querySelector('#item .item.binary img')?.naturalWidth > 0")
        keys = json.loads(page.evaluate("document.body.dataset.person"))["keys"]
        page.evaluate(WATCH)
        for k in range(size["keys"]):
            page.keyboard.press(keys["absent" if k % 3 else "present"])
            page.wait_for_timeout(300)
        seen = page.evaluate("window.seen")
        browser.close()
    server.kill()
    found = {"median": round(percentile(seen, 0.5), 1), "p99": round(percentile(seen, 0.99), 1), "keys": len(seen)}
    print(f"  key to picture: {found}", flush=True)
    return {"key_to_picture_ms": found}


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """This process's HFI_DATABASE_URL as the server's."""
    before = os.environ.get("HFI_DATABASE_URL")
    os.environ.pop("HFI_DATABASE_URL", None)
    if "HFI_DATABASE_URL" in variables:
        os.environ["HFI_DATABASE_URL"] = variables["HFI_DATABASE_URL"]
    yield
    os.environ.pop("HFI_DATABASE_URL", None)
    if before is not None:
        os.environ["HFI_DATABASE_URL"] = before


def measure(database: str, size: dict, parts: set[str]) -> dict:
    """All parts on one kind of database; each part has a database of its own."""
    found: dict = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hfi-feedback-")))
        running = None
        if database == "postgresql":
            import postgres

            running = stack.enter_context(postgres.server(durable=True))

        def fresh() -> str | None:
            return stack.enter_context(postgres.fresh_database(running)) if running else None

        if parts & {"load", "kills"}:
            found |= load_and_kills(stack, folder, fresh(), size, parts)
        if "key" in parts:
            found |= key_to_picture(stack, folder, fresh(), size)
        if "pages" in parts:
            found |= pages(stack, folder, fresh(), size)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a small version, to see that it works")
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--parts", default="load,kills,key,pages")
    for name, value in FULL.items():
        parser.add_argument(f"--{name}", type=type(value), default=None)
    options = parser.parse_args()
    size = {**(SHORT if options.short else FULL), **{name: getattr(options, name) for name in FULL if getattr(options, name) is not None}}
    results = {}
    for database in options.databases.split(","):
        print(f"{database}: {size}", flush=True)
        results[database] = measure(database, size, set(options.parts.split(",")))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
