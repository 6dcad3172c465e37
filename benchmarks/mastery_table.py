"""The figures of a comparison, recomputed from its turns: JSON for machines, a Markdown table for people."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mastery_ceiling import Needed, Shapes

from knowshift.files import atomic_file, write_json


def write(out: Path, about: dict[str, Any], turns: Sequence[dict[str, Any]]) -> None:
    """Write ``figures.json`` and ``table.md`` from the turns there are."""
    found = figures(about, turns)
    write_json(out / "figures.json", {"about": about, **found})
    with atomic_file(out / "table.md") as partial:
        partial.write_text(_table(found), "utf-8")


def figures(about: dict[str, Any], turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rates, hits, how they compare, and the ceiling; only chunks that every engine has answered count."""
    names = list(dict.fromkeys(turn["engine"] for turn in turns))
    done = {
        number
        for number in {turn["chunk"] for turn in turns}
        if len([turn for turn in turns if turn["chunk"] == number]) == len(about["engines"])
    }
    whole = [turn for turn in turns if turn["chunk"] in done]
    engines = {name: _engine([turn for turn in whole if turn["engine"] == name]) for name in names if whole}
    found: dict[str, Any] = {"chunks": len(done), "engines": engines}
    if "knowshift" in engines:
        ours = engines["knowshift"]
        for name, other in engines.items():
            if name != "knowshift":
                other["knowshift_times"] = ours["samples_per_second"] / other["samples_per_second"]
                other["hits_z"] = _z(ours["hits"], other["hits"], about["samples"])
        if ceiling := _ceiling(about, whole):
            found["ceiling"] = ceiling
            for engine in engines.values():
                engine["share_of_ceiling"] = engine["samples_per_second"] / ceiling["samples_per_second"]
    return found


def _engine(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    hits = [count for turn in turns for count in turn["hits"]]
    draws, seconds = sum(turn["draws"] for turn in turns), sum(turn["seconds"] for turn in turns)
    found = {
        "draws": draws,
        "seconds": seconds,
        "samples_per_second": draws / seconds,
        "slowest_and_fastest_turn": [f(turn["draws"] / turn["seconds"] for turn in turns) for f in (min, max)],
        "hit_share": sum(hits) / draws,
        "hits": hits,
    }
    for key in ("fed_tokens", "fed_prompt_tokens"):
        if key in turns[0]:
            found[key] = sum(turn[key] for turn in turns)
    if shares := [turn["vllm_busy_share"] for turn in turns if "vllm_busy_share" in turn]:
        found["vllm_busy_share_meanwhile"] = max(shares)
    return found


def _z(ours: Sequence[int], theirs: Sequence[int], samples: int) -> float:
    """How far two engines' hits lie apart, in standard errors.

    Draws of one prompt are independent with that prompt's own chance of a hit, so the variance is added up prompt by
    prompt: much narrower than treating all draws as one pool, since most prompts hit nearly always or never.
    """
    variance = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        share = (mine + other) / (2 * samples)
        variance += 2 * samples * share * (1 - share) * 2 * samples / (2 * samples - 1)
    return (sum(ours) - sum(theirs)) / math.sqrt(variance) if variance else 0.0


def _ceiling(about: dict[str, Any], turns: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Samples a second if only what must be computed were computed, at the rate of bare matrix products.

    What must be computed is read off the draws of the engines that share nothing (each its own estimate of the same
    tree, averaged), not off knowshift's own account.
    """
    rates = [turn["rate"] for turn in turns if "rate" in turn]
    trees: dict[str, Needed] = {}
    for turn in turns:
        if "needed" in turn:
            trees[turn["engine"]] = trees.get(turn["engine"], Needed()) + Needed(**turn["needed"])
    if not rates or not trees:
        return None
    shapes, rate = Shapes(**about["shapes"]), statistics.median(rates)
    by_tree = {name: tree.flop(shapes) / tree.draws for name, tree in trees.items()}
    flop = statistics.mean(by_tree.values())
    return {
        "samples_per_second": rate / flop,
        "gflop_per_second": rate / 1e9,
        "rows": statistics.mean(turn["rows"] for turn in turns if "rows" in turn),
        "mflop_per_sample": flop / 1e6,
        "mflop_per_sample_by_tree": {name: value / 1e6 for name, value in by_tree.items()},
        "trees": {name: vars(tree) for name, tree in trees.items()},
    }


def _table(found: dict[str, Any]) -> str:
    lines = [
        "| engine | samples/s | slowest-fastest turn | knowshift is | share of the ceiling | hits | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, engine in found["engines"].items():
        low, high = engine["slowest_and_fastest_turn"]
        times = f"{engine['knowshift_times']:.2f} x" if "knowshift_times" in engine else ""
        apart = f"{abs(engine['hits_z']):.1f} s.e." if "hits_z" in engine else ""
        share = f"{engine['share_of_ceiling']:.0%}" if "share_of_ceiling" in engine else ""
        lines.append(
            f"| {name} | {engine['samples_per_second']:.1f} | {low:.1f}-{high:.1f} | {times} | {share} "
            f"| {engine['hit_share']:.2%} of {engine['draws']} | {apart} |"
        )
    if "ceiling" in found:
        top = found["ceiling"]
        lines.append(f"| ceiling | {top['samples_per_second']:.1f} | | | 100% | | |")
        lines += [
            "",
            f"Ceiling: {top['mflop_per_sample']:.0f} MFLOP a sample must be computed, at {top['gflop_per_second']:.0f} "
            f"GFLOP/s, the rate of the model's own matrix products with {top['rows']:.0f} rows.",
        ]
        for name, tree in top["trees"].items():
            lines.append(
                f"By the draws of {name}: of {tree['all_tokens']} drawn tokens {tree['nodes']} must be decoded, and "
                f"{tree['prompt_tokens']} prompt tokens read."
            )
    ours = found["engines"].get("knowshift", {})
    if "fed_tokens" in ours:
        lines.append(f"knowshift decoded {ours['fed_tokens']} tokens and read {ours['fed_prompt_tokens']} of prompts.")
    return "\n".join(lines) + "\n"
