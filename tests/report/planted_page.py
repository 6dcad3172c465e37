"""A small planted study with its tables and its page, whose names and errors would do harm if they were not escaped."""

from pathlib import Path
from typing import Any

from knowshift.report import make
from knowshift.study.cell import Cell
from knowshift.study.index import Missing
from plantedstudy import Planted, Truth

MODEL = "<script>alert(1)</script>"
METHOD = 'lora rank="><img src=x onerror=alert(2)>'
ERROR = "level 4 holds 7 facts </script><script>alert(3)</script>"
SIZES: dict[str, Any] = {"levels": (0, 2), "sizes": (60, 240), "seeds": (0, 1), "facts": 6}


def write(out: Path, *, model: str = MODEL, methods: tuple[str, ...] = ("sft", METHOD), page: bool = True) -> Path:
    """Write the study's cells, tables and page; its folder. Seed 1 of level 2 and 60 facts was never done."""
    study = Planted(out, _truth(), model=model, methods=methods, **SIZES)
    labels = {"role": "tuned", "model": model, "level": 4, "asked_size": "60"}
    study.missing.append(Missing("train", labels, ERROR))

    def undone(cell: Cell) -> bool:
        return (cell.labels.get("level"), cell.labels.get("size"), cell.labels.get("seed")) == (2, 60, 1)

    study.write(without=undone)
    if page:
        make([out])
    return out


def _truth() -> Truth:
    return Truth(
        accuracy=lambda level, size, method: -0.1 if level == 0 else 0.0,
        restored=lambda name: 0.1 if name == "relative" else 0.0,
        ffn=1.2,
        between=0.05,
    )
