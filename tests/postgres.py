"""A PostgreSQL server for tests and benchmarks, on loopback, from Debian's packages, in a folder that goes away with it.

    python tests/postgres.py COMMAND ...     runs a command with HFI_TEST_POSTGRES set to the server's URL
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "HFI_TEST_POSTGRES"


def programs() -> Path:
    """The folder of the newest PostgreSQL on this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        sys.exit("PostgreSQL is not installed; `make test-postgres` installs it (Debian: apt-get install postgresql)")
    return found[-1].parent


@contextlib.contextmanager
def server(durable: bool = False) -> Iterator[str]:
    """A server's URL; stopped and removed at the end.

    Args:
        durable: whether commits reach the disk, as they do outside tests (benchmarks want it).
    """
    folder = Path(tempfile.mkdtemp(prefix="hfi-postgres-"))
    as_postgres: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        as_postgres = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    quiet = {"stdout": subprocess.DEVNULL, "check": True, "cwd": "/"}
    initdb = [str(programs() / "initdb"), "-D", data, "-U", "hfi", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    subprocess.run([*as_postgres, *initdb], **quiet)
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "max_connections": 200}
    settings |= {} if durable else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process = subprocess.Popen([*as_postgres, str(programs() / "postgres"), "-D", data, *options],
                               stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"), cwd="/")  # fmt: skip
    try:
        _wait_for(port, process, folder / "log")
        yield f"postgresql://hfi@127.0.0.1:{port}/postgres"
    finally:
        stop = [str(programs() / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop"]
        subprocess.run([*as_postgres, *stop], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    import psycopg

    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=port, user="hfi", dbname="postgres", connect_timeout=5).close()
            return
        time.sleep(0.1)
    sys.exit(f"PostgreSQL did not start:\n{log.read_text()}")


@contextlib.contextmanager
def fresh_database(url: str) -> Iterator[str]:
    """The URL of an empty database on a server; dropped at the end."""
    import psycopg

    name = f"t{secrets.token_hex(8)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        yield url.rpartition("/")[0] + f"/{name}"
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":
    with server() as running:
        sys.exit(subprocess.run(sys.argv[1:], env={**os.environ, VARIABLE: running}).returncode)
