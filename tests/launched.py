"""What ``accelerate launch`` starts in tests: command lines of knowshift, one after another, read from a JSON file.

With ``--as-gpus`` CPUs are told to accelerate as GPUs, before anything of knowshift runs: it turns FSDP on for
accelerators alone, though torch divides a model among CPU processes as well. Nothing else is changed.
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

if "--as-gpus" in sys.argv:
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)

from knowshift.cli import main

for command in json.loads(Path(sys.argv[1]).read_text("utf-8")):
    if status := main(command):
        sys.exit(status)
