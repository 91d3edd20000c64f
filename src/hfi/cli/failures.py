"""What a person reads when something goes wrong: one line with the remedy, and the exit code that goes with it."""

from __future__ import annotations

import os
import sqlite3
import sys

from hfi.errors import HFIError, disk_errors

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "std::bad_alloc")


def explain(error: BaseException, arguments: list[str]) -> tuple[str, int]:
    """One line and an exit code: 2 what the user can mend, 3 people are needed, 4 numbers diverged, 130 stopped, 1 a defect."""
    if isinstance(error, HFIError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "stopped; the same command continues", 130
    if is_out_of_memory(error):
        return ("out of memory. Use a smaller batch_size, e.g. --set generate.batch_size=1 --set evaluate.batch_size=1 "
                "--set invert.batch_size=1 --set attack.batch_size=1, or close other programs; the same command continues"), 2
    if isinstance(error, OSError):
        try:
            with disk_errors(error.filename or "the study's folder"):
                raise error
        except HFIError as known:
            return str(known), known.exit_code
        except OSError:
            pass
    if "database or disk is full" in str(error) or "disk I/O error" in str(error):
        return ("feedback.sqlite: the disk is full or not writable. Free some space and run the same command again; "
                "no judgement that was confirmed is lost"), 2
    if isinstance(_origin(error), sqlite3.DatabaseError) and "not a database" in str(error) or "malformed" in str(error):
        return "feedback.sqlite: damaged. Restore it from a copy, or from 'hfi label STUDY --export FILE' made earlier", 2
    usage = getattr(error, "format_message", None)
    if usage is not None:  # a mistake in the command line itself
        from hfi.cli.reference import COMMANDS

        command = next((word for word in arguments if word in COMMANDS), "")
        return f"{' '.join(usage().split()).rstrip('.')}. See 'hfi {command + ' ' if command else ''}--help'", 2
    first = (str(error).strip().splitlines() or [""])[0][:160]
    return f"unexpected {type(error).__name__}{': ' + first if first else ''}. Run it again with --debug to see where, and report it", 1


def is_out_of_memory(error: BaseException) -> bool:
    """Python's MemoryError, torch's on an accelerator, its allocator's on the CPU, or the system's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


def quiet_stdout() -> None:
    """Send what is left of stdout nowhere, so that Python's own goodbye does not complain about a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _origin(error: BaseException) -> BaseException:
    return getattr(error, "orig", None) or error  # SQLAlchemy wraps the database's own error
