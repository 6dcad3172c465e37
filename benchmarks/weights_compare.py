"""Whole processes in turns: what each needs in wall time and anonymous memory."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

PAPER = ("0.01", "0.03", "0.05", "0.1", "0.2", "0.4", "0.6")
_SUM = """
import sys
from safetensors import safe_open
total = 0.0
for folder in sys.argv[1:]:
    with safe_open(folder + "/model.safetensors", "pt") as tensors:
        total += sum(float(tensors.get_tensor(name).sum()) for name in tensors.keys())
print(total)
"""
_BREADCRUMBS = """
merge_method: breadcrumbs
base_model: {base}
models:
  - model: {tuned}
    parameters: {{weight: 1.0, density: 0.8, gamma: 0.2}}
dtype: bfloat16
"""
_ARITHMETIC = """
merge_method: task_arithmetic
base_model: {base}
models:
  - model: {tuned}
    parameters: {{weight: 0.8}}
dtype: bfloat16
"""


def timed(command: list[str], *, environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Wall seconds of a process and its peak anonymous memory in GB, sampled every 10 ms over it and its children."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, _anonymous(process.pid))
        time.sleep(0.01)
    wall = time.perf_counter() - started
    error = process.stderr.read().decode()[-500:] if process.stderr else ""
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:200]}: exit {process.returncode}\n{error}")
    return wall, peak * 1024 / 1e9


def _anonymous(process: int) -> int:
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    own = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)
    return own + sum(_anonymous(int(child)) for child in children)


class Comparison:
    """All commands over one pair."""

    def __init__(self, pair: Path, out: Path, peers: Path | None) -> None:
        self.base, self.tuned, self.out, self.peers = pair / "base", pair / "tuned", out, peers
        self.scratch = out / "scratch"
        self.figures: dict[str, list[tuple[float, float]]] = {}

    def commands(self) -> dict[str, list[str]]:
        """Name to command line; what they write goes to ``scratch``."""
        sides = [str(self.base), str(self.tuned)]
        ours = [sys.executable, "-m", "knowshift"]
        scratch = str(self.scratch)
        fractions = [part for fraction in PAPER for part in ("--fraction", fraction)]
        found = {
            "torch-sum": [sys.executable, "-c", _SUM, *sides],
            "copy": ["cp", str(self.tuned / "model.safetensors"), f"{scratch}/copy"],
            "copy-seven": [
                "sh",
                "-c",
                f"for i in 1 2 3 4 5 6 7; do cp {sides[1]}/model.safetensors {scratch}/$i; done",
            ],
            "diff": [*ours, "diff", *sides, "--out", f"{scratch}/diff"],
            "diff-first": [*ours, "diff", *sides, "--out", f"{scratch}/first"],
            "restore": [*ours, "restore", *sides, "--fraction", "0.2", "--out", f"{scratch}/one"],
            "restore-seven": [*ours, "restore", *sides, *fractions, "--out", f"{scratch}/seven"],
            "help": [*ours, "--help"],
        }
        if self.peers:
            for name, text in (("breadcrumbs", _BREADCRUMBS), ("task-arithmetic", _ARITHMETIC)):
                plan = self.out / f"{name}.yaml"
                plan.write_text(text.format(base=self.base.resolve(), tuned=self.tuned.resolve()))
                found[name] = [str(self.peers / "mergekit/bin/mergekit-yaml"), str(plan), f"{scratch}/{name}"]
            found["weightscope"] = [
                str(self.peers / "weightscope/bin/weightscope"),
                "diff",
                *sides,
                "-o",
                f"{scratch}/w",
            ]
            found["modeldelta"] = [str(self.peers / "modeldelta/bin/modeldelta"), *sides, "-o", f"{scratch}/m.json"]
        return found

    def run(self, turns: int, only: list[str]) -> None:
        """Each command once a turn; the table is written anew every time."""
        self.out.mkdir(parents=True, exist_ok=True)
        for _ in range(turns):
            for name, command in self.commands().items():
                if only and name not in only:
                    continue
                shutil.rmtree(self.scratch, ignore_errors=True)
                self.scratch.mkdir()
                subprocess.run(["cat", *map(str, self.base.parent.glob("*/*.safetensors"))], stdout=subprocess.DEVNULL)
                # A first run digests both models; later ones find the digests in the user's cache.
                cache = {"KNOWSHIFT_CACHE": str(self.scratch / "cache")} if name == "diff-first" else None
                self.figures.setdefault(name, []).append(timed(command, environment=cache))
                self.write()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def write(self) -> None:
        """``figures.json`` and ``table.md``."""
        (self.out / "figures.json").write_text(json.dumps(self.figures, indent=2))
        rows = ["| command | seconds, median | lowest | peak anonymous GB |", "|---|---|---|---|"]
        for name, figures in self.figures.items():
            walls = [wall for wall, _ in figures]
            peak = max(peak for _, peak in figures)
            rows.append(f"| {name} | {statistics.median(walls):.2f} | {min(walls):.2f} | {peak:.2f} |")
        (self.out / "table.md").write_text("\n".join(rows) + "\n")
