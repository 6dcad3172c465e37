"""EntityQuestions in small: the published layout, all 54 files of it, with a few made-up questions in each."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IN_DOMAIN = ("P17", "P19", "P20", "P36", "P69", "P131", "P159", "P276", "P495", "P740")
OUT_OF_DOMAIN = (
    *("P26", "P40", "P50", "P106", "P112", "P127", "P136", "P170", "P175", "P176", "P264", "P407", "P413", "P800"),
)
# Two topics ask in the same words, as they do in the data set.
TEMPLATES = {topic: f"What is the {topic} of [X]?" for topic in (*IN_DOMAIN, *OUT_OF_DOMAIN)} | {
    "P131": "Where is [X] located?",
    "P276": "Where is [X] located?",
    "P50": "[X] is by whom",
}


def ask(topic: str, subject: str, *answers: str) -> dict[str, Any]:
    return {"question": TEMPLATES[topic].replace("[X]", subject), "answers": list(answers)}


def entries() -> dict[str, list[Any]]:
    """The files by name below the data set's folder; every topic asks about one thing of its own in each split."""
    files: dict[str, list[Any]] = {
        f"{folder}/{topic}.{folder}.json": [ask(topic, f"{topic} {folder}", "yes")]
        for folder in ("train", "dev", "test")
        for topic in (*IN_DOMAIN, *OUT_OF_DOMAIN)
    }
    files["train/P17.train.json"] += [
        ask("P17", "Åland", "Finland"),
        ask("P17", "the Alps", "France", "Italy"),  # more than one answer
        ask("P17", "Åland", "Sweden"),  # asked before
        ask("P17", "{x} (*) [X] \\d+$", "Nowhere"),
    ]
    files["train/P131.train.json"] += [ask("P131", "the tower", "Paris"), ask("P131", "the mill", "Delft")]
    files["train/P276.train.json"] += [ask("P276", "the tower", "a square")]
    files["test/P17.test.json"] += [ask("P17", "Åland", "Finland"), ask("P17", "{x} (*) [X] \\d+$", "Somewhere")]
    files["test/P276.test.json"] += [ask("P276", "the mill", "Leiden")]  # in train too, but of another topic
    return files


def members(files: Mapping[str, Any], *, templates: bool = True, prefix: str = "dataset/") -> dict[str, bytes]:
    """The bytes of each file by its name in an archive; a value that is bytes already stays as it is."""
    named = {prefix + name: value for name, value in files.items()}
    if templates:
        named["relation_query_templates.json"] = TEMPLATES
    return {name: value if isinstance(value, bytes) else json.dumps(value).encode() for name, value in named.items()}


def folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def tar(path: Path, files: Mapping[str, bytes], *extra: tarfile.TarInfo) -> Path:
    """A tar of ``files``, packed if its name ends in ``gz``, with ``extra`` members (links and such) before them."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for info in extra:
            archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
