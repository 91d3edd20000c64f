"""Start the labelling app: one process, one link."""

from __future__ import annotations

import gc
import ipaddress
import socket
import sys
import threading
from pathlib import Path

from hfi.errors import HFIError
from hfi.workspace import Workspace

PORT = 8765
BACKLOG = 256
SWITCH_SECONDS = 0.0005


def serve(study: Path, host: str = "127.0.0.1", port: int = PORT, open_browser: bool = True) -> None:
    """Serve a study's labelling page until Ctrl-C.

    Args:
        study: the study's folder.
        host: an address of this machine; anything but loopback is refused until the study has accounts.
        port: 0 takes any free one.
        open_browser: also show the page.

    Prints one link when the page can be opened. Raises HFIError for a study without pictures, a host that may not be used and a
    port that is taken.
    """
    opened = Workspace.open(study)
    import uvicorn

    from hfi.feedback.web.app import create_app
    from hfi.feedback.web.state import State

    state = State(opened)
    try:
        if not is_loopback(host) and not state.accounts.exist():
            raise HFIError(
                f"{host} is not this machine alone, and the study has no accounts yet",
                field="--host",
                remedy=f"add one with 'hfi label users add {opened.root} NAME --role admin', or leave --host out",
            )
        if not state.has_pictures():
            raise HFIError("the study has no pictures to judge yet", file=opened.root, remedy=f"run 'hfi generate {opened.root}' first")
        listener = _listen(host, port)
        state.loopback = is_loopback(host)
        link = f"http://{_shown(host)}:{listener.getsockname()[1]}/"
        app = create_app(state)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            backlog=BACKLOG,
            proxy_headers=False,
            timeout_keep_alive=65,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)
        print(f"{opened.config.name}: {link}  (Ctrl-C stops; every answer is on disk as soon as the page says so)", flush=True)
        if open_browser:
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()
        _answer_promptly()
        server.run(sockets=[listener])
    finally:
        state.close()


def _answer_promptly() -> None:
    """Settings of the interpreter for a server that has a thread for requests and one for the database."""
    # a thread that waited for the disk gets the interpreter back within this time, not within 5 ms, and an answer waits for it ten times
    sys.setswitchinterval(SWITCH_SECONDS)
    # what was made up to here stays to the end: looking all of it over for garbage stops every request for a tenth of a second
    gc.collect()
    gc.freeze()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; the kernel takes connections from here on, so the link may be printed."""
    bare = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((bare, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or error
        raise HFIError(
            f"cannot listen on {host}:{port} ({why})", field="--port", remedy="choose another one, or 0 for any free one"
        ) from None
    return listener


def _shown(host: str) -> str:
    """The address as it stands in a link; all addresses of this machine are shown as its name."""
    bare = host.strip("[]")
    if bare in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{bare}]" if ":" in bare else bare
