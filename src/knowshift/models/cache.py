"""The user's cache of prepared models: where it is, and how a folder in it is made exactly once.

Knows nothing of what is in the folders.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from knowshift.files import atomic_folder, make_folder


def cache_folder() -> Path:
    """``$KNOWSHIFT_CACHE``, or the platform's cache folder for knowshift."""
    named = os.environ.get("KNOWSHIFT_CACHE")
    return Path(named).expanduser().absolute() if named else platformdirs.user_cache_path("knowshift")


def once(folder: Path, build: Callable[[Path], None]) -> Path:
    """``folder``, built by ``build(partial)`` unless it is there already.

    Two processes may ask at once: one builds, the other waits for it. A folder that exists is complete,
    because it is renamed into place only after ``build`` returned.
    """
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            # Under the lock nobody else is writing: what is left here belongs to a process that was killed.
            for stale in folder.parent.glob(f".{folder.name}.*.partial"):
                shutil.rmtree(stale, ignore_errors=True)
            with atomic_folder(folder) as partial:
                build(partial)
    return folder
