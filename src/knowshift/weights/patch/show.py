"""What a patch is: which pair, how much of it, where."""

import hashlib
import shlex
from pathlib import Path
from typing import Any

from knowshift.weights.patch.container import Patch
from knowshift.weights.patch.manifest import Entry
from knowshift.weights.regions import classify


def describe(path: Path) -> dict[str, Any]:
    """The facts of a patch file, without reading its blocks.

    Returns:
        file, bytes, written_by; base, tuned, settings, command; tuned_digest and restored_digest, of the content of
        each side however it is cut into files; parameters and tensors of the model, changed and changed_tensors;
        bits_per_change; modules: layer (None outside of blocks), module, parameters, changed.

    Raises:
        InputError: as ``Patch``.
    """
    patch = Patch(path)
    manifest = patch.manifest
    changed = sum(entry.changed for entry in manifest.tensors)
    return {
        "file": str(path),
        "bytes": patch.bytes,
        "written_by": f"knowshift {manifest.written_by}",
        "base": manifest.origin.base,
        "tuned": manifest.origin.tuned,
        "settings": manifest.origin.settings,
        "command": list(manifest.origin.command),
        "tuned_digest": _digest(manifest.tensors, "tuned"),
        "restored_digest": _digest(manifest.tensors, "restored"),
        "parameters": sum(entry.size for entry in manifest.tensors),
        "tensors": len(manifest.tensors),
        "changed": changed,
        "changed_tensors": len(manifest.changed),
        "bits_per_change": 8 * patch.bytes / changed if changed else None,
        "modules": _modules(manifest.tensors),
    }


def render(facts: dict[str, Any]) -> str:
    """``describe``'s facts in a few lines and a table of modules, summed over the layers, most changed first.

    What stands in a patch was written by whoever made it: nothing of it reaches a terminal unescaped.
    """
    rows = {
        "from": facts["tuned"],
        "towards": facts["base"],
        **{name: value for name, value in facts["settings"].items() if value is not None},
        "changes": f"{facts['changed']:,} of {facts['parameters']:,} weights in {facts['changed_tensors']} of "
        f"{facts['tensors']} tensors",
        "size": f"{facts['bits_per_change']:.2f} bits for each" if facts["changed"] else "nothing to change",
        "tuned side": facts["tuned_digest"],
        "restored side": facts["restored_digest"],
        "made by": shlex.join(facts["command"]),
    }
    label = min(max(map(len, rows)), 24)
    lines = [f"{facts['file']}: {facts['bytes']:,} bytes, written by {facts['written_by']}"]
    lines += [f"{name:{label}}  {value}" for name, value in rows.items()]
    sums: dict[str, list[int]] = {}
    for row in facts["modules"]:
        total = sums.setdefault(row["module"], [0, 0])
        total[0] += row["parameters"]
        total[1] += row["changed"]
    width = min(max([6, *(len(printable(module)) for module in sums)]), 32)
    lines.append(f"{'module':{width}} {'weights':>16} {'changed':>16} {'share':>7}")
    shares = {module: changed / parameters for module, (parameters, changed) in sums.items() if changed}
    lines += [
        f"{printable(module):{width}} {sums[module][0]:16,} {sums[module][1]:16,} {shares[module]:7.2%}"
        for module in sorted(shares, key=lambda module: -shares[module])
    ]
    return "\n".join(map(printable, lines))


def printable(text: str) -> str:
    """``text`` with everything that could move a cursor or hide itself spelled out."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _modules(entries: tuple[Entry, ...]) -> list[dict[str, Any]]:
    rows: dict[tuple[int | None, str], dict[str, Any]] = {}
    for entry in entries:
        place = classify(entry.name)
        blank = {"layer": place.layer, "module": place.module, "parameters": 0, "changed": 0}
        row = rows.setdefault((place.layer, place.module), blank)
        row["parameters"] += entry.size
        row["changed"] += entry.changed
    return list(rows.values())


def _digest(entries: tuple[Entry, ...], side: str) -> str:
    total = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.name):
        total.update(f"{entry.name}\0{entry.dtype}\0{list(entry.shape)}\0{getattr(entry, side)}\n".encode())
    return f"sha256:{total.hexdigest()}"
