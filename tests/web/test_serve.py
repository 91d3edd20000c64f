"""The server as a process: it starts without torch, prints one link, and stays on this machine until there are accounts."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from hfi.errors import HFIError
from hfi.feedback.web import serve
from hfi.feedback.web.server import is_loopback
from web_study import make_study

START = """
import sys, threading
from pathlib import Path
from hfi.feedback.web import serve
serve(Path(sys.argv[1]), port=0, open_browser=False)
"""


def test_it_starts_without_torch_and_prints_one_link(tmp_path):
    study = make_study(tmp_path / "study")
    code = START.replace("serve(Path", "assert 'torch' not in sys.modules\nserve(Path")
    server = subprocess.Popen([sys.executable, "-c", code, str(study.root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        link = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert link, line + server.stderr.read()
        with urllib.request.urlopen(link[0]) as page:
            assert page.status == 200 and b"Before you begin" in page.read()
        # what a slow start is made of; its seconds are measured by benchmarks/feedback_server.py
        mapped = Path(f"/proc/{server.pid}/maps").read_text()
        assert not [name for name in ("libtorch", "_multiarray_umath", "scipy", "sklearn") if name in mapped]
    finally:
        server.terminate()
        server.wait(20)


def test_another_address_needs_accounts(tmp_path):
    study = make_study(tmp_path / "study")
    with pytest.raises(HFIError, match="no accounts yet.*users add"):
        serve(study.root, host="0.0.0.0", port=0, open_browser=False)


def test_a_port_in_use_is_named(tmp_path):
    study = make_study(tmp_path / "study")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(HFIError, match="cannot listen on"):
            serve(study.root, port=taken.getsockname()[1], open_browser=False)


def test_a_study_without_pictures_is_named(tmp_path):
    with pytest.raises(HFIError, match="no pictures to judge yet"):
        serve(make_study(tmp_path / "empty", pictures=0).root, port=0, open_browser=False)


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("127.9.9.9", True),
        ("0.0.0.0", False),
        ("192.168.1.4", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_loopback(host, only_here):
    assert is_loopback(host) == only_here
