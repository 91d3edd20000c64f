"""A study served by a real process that can be killed and started again, and the browser that looks at it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from hfi.workspace import Workspace

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
CODE = """
import sys
from pathlib import Path
from hfi.feedback.web import serve
serve(Path(sys.argv[1]), port=int(sys.argv[2]), open_browser=False)
"""


class Served:
    """One study behind one address, whatever becomes of the process."""

    def __init__(self, study: Workspace):
        self.study, self.process = study, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> Served:
        self.process = subprocess.Popen([sys.executable, "-c", CODE, str(self.study.root), str(self.port)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/static/icon.svg", timeout=5):
                    return self
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None:
                    raise RuntimeError(f"the server ended with {self.process.returncode}") from None
                time.sleep(0.1)
        raise RuntimeError("the server does not answer")

    def kill(self) -> None:
        """As a power cut would."""
        if self.process and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


def launch(playwright):
    """Debian's Chromium, headless, talking to nobody."""
    assert CHROMIUM, "no Chromium here: run `make test-browser`"
    return playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


def axe_source() -> str | None:
    """axe-core's script where `make test-browser` has put it, else None."""
    path = Path(__file__).parents[2] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
    return path.read_text(encoding="utf-8") if path.exists() else None
