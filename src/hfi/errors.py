"""Errors a person can act on: one line that names the file, the field and the remedy."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path


class HFIError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with `exit_code`."""

    exit_code = 2

    def __init__(self, problem: str, *, file: str | Path | None = None, field: str | None = None, remedy: str = ""):
        self.problem, self.file, self.field, self.remedy = problem, file, field, remedy
        where = ": ".join(str(part) for part in (file, field) if part)
        line = f"{where}: {problem}" if where else problem
        if remedy:
            line = f"{line.rstrip('.')}. {remedy}"
        super().__init__(" ".join(line.split()))


class NeedsPeople(HFIError):
    """The study waits for judgements that only people can give; nothing is wrong."""

    exit_code = 3


class Diverged(HFIError):
    """A loss or a weight became NaN or infinite; the last good checkpoint is kept."""

    exit_code = 4


@contextlib.contextmanager
def disk_errors(file: str | Path):
    """Turn the operating system's refusal to write into a line that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HFIError(
                "the disk is full",
                file=file,
                remedy="free some space and run the same command again; it continues from the last checkpoint",
            ) from error
        if error.errno == errno.EFBIG:
            raise HFIError(
                "the file may not grow any further (a limit on file sizes is set)",
                file=file,
                remedy="raise it ('ulimit -f unlimited') and run the same command again; it continues from the last checkpoint",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOENT, errno.ENOTDIR):
            raise HFIError(
                "this place cannot be written to", file=file, remedy="choose another study folder or change its permissions"
            ) from error
        raise
