"""Cells that do no work, or fail as told: what scheduling costs and survives is measured with them."""

import os
import signal
import time
from pathlib import Path

from knowshift.errors import InputError
from knowshift.files import digest_file, make_folder, write_json
from knowshift.study.cell import Task


def stub(task: Task, out: Path, folder: Path) -> None:
    """Write ``stub.json``: the digest of what each input wrote.

    Options: ``seconds`` to take, ``bytes`` to hold meanwhile, ``fail`` with this message, ``die``: be killed in so
    many tries. ``places`` may hold ``broken``, a file while which exists the cell fails.
    """
    options = task.options
    tries = folder / "tries"
    tried = int(tries.read_text("ascii")) if tries.exists() else 0
    tries.write_text(str(tried + 1), "ascii")
    if tried < options.get("die", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    held = bytearray(options.get("bytes", 0))
    time.sleep(options.get("seconds", 0.0))
    if "fail" in options or Path(task.places.get("broken", "")).is_file():
        raise InputError(options.get("fail", "broken, as long as that file is there"))
    read = {kind: digest_file(task.input(out, kind) / "stub.json") for kind in task.inputs}
    for kind in task.inputs:
        if kind == "stub-model" and not (task.input(out, kind) / "model" / "model.safetensors").is_file():
            raise InputError(f"{task.input(out, kind)}: its model is gone")
    write_json(folder / "stub.json", {"options": options, "read": read, "held": len(held)})


def model(task: Task, out: Path, folder: Path) -> None:
    """As ``stub``, and a model of one weight that follows from the options."""
    import numpy as np
    from safetensors.numpy import save_file

    made = make_folder(folder / "model")
    weight = np.full((1,), float(task.options.get("weight", 0)), np.float32)
    save_file({"weight": weight}, made / "model.safetensors")
    write_json(made / "config.json", {})
    stub(task, out, folder)
