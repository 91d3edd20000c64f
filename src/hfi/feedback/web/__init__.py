"""The labelling app: FastAPI, Jinja2 templates and one ES module. `serve` starts it; nothing here imports torch."""

from hfi.feedback.web.server import serve

__all__ = ["serve"]
