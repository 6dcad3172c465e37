"""A model in memory back into a checkpoint folder that differs from its base in the weights alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from knowshift.models import contents

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def write_like(base: Path, model: PreTrainedModel, folder: Path) -> None:
    """Write ``model`` to ``folder`` as a variant of the checkpoint ``base``.

    The weights are cast (in place) to the types ``base`` stores them in. Configuration, generation settings and
    tokenizer are the base's own files byte for byte, because trainers like to touch them in memory.
    """
    from knowshift.models.load import cast_as_stored
    from knowshift.models.quiet import quiet

    with quiet():
        cast_as_stored(model, base)
        model.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    contents.copy_tokenizer(base, folder)
