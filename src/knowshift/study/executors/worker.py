"""A worker process: does the cells it is sent, one after another, and never outlives who sends them."""

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from knowshift.errors import InputError
from knowshift.files import make_folder
from knowshift.study.cell import Task

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 1.0


def serve(pipe: "Connection[tuple[str, str | None], Task]", out: str, parent: int) -> None:
    """Do the cells that come through ``pipe`` until it is closed; answer each with its key and a traceback or None."""
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the scheduler decides what an interrupt means
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send((task.key, attempt(task, Path(out))))


def attempt(task: Task, out: Path) -> str | None:
    """Do one cell, what it prints going to ``log.txt`` in its folder.

    Returns:
        None if it is done, else a traceback, whose last line is what a user reads.
    """
    from knowshift.study.work import LOG, do

    try:
        _print_to(make_folder(task.folder(out)) / LOG)
        do(task, out)
    except InputError as error:
        return "".join(traceback.format_exception(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return f"{''.join(traceback.format_exception(error))}\n{place}{error.strerror or error}"
    except (Exception, SystemExit):
        return traceback.format_exc()
    return None


def _print_to(path: Path) -> None:
    """Send standard output and error to a file, those of libraries that know no Python among them."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _end_with(parent: int) -> None:
    """End this process when ``parent`` does, also when that was killed."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
