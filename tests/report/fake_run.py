"""A whole run folder with made-up but plausible contents, as ``knowshift demo`` leaves one.

The draws are random; the figures in ``metrics.json`` are computed from the drawn tables, as a real run
computes them, so a test can recompute each of them from the Parquet files. Some facts carry hostile
texts: markup, a closing script tag, right-to-left marks and very long words.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

FRACTIONS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 0.6)
MODULES = {"q": 331776, "k": 110592, "v": 110592, "o": 331776, "gate": 884736, "up": 884736, "down": 884736}
TOPICS = {
    "id": ["capital_of_country", "country_of_city", "continent_of_country", "us_state_capital"],
    "ood": ["author_of_book", "element_of_symbol", "currency", "language", "sport_of_player"],
}
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)> & \' "quoted" {{ 7*7 }} {% raw %}',
    "Taumatawhakatangihangakoauauotamateaturipukakapikimaungahoronukupokaiwhenuakitanatahu" * 2,
    "東京都の首都はどこですか 🗼 \u202eright-to-left\u202c é̄̄",
]


def write(
    run: Path,
    *,
    seed: int = 0,
    facts: int = 1600,
    middle: bool = True,
    sweep: bool = True,
    examples: bool = True,
    gain: float = 0.25,
    null: float = 0.55,
) -> Path:
    """Write a run folder.

    Args:
        run: the folder to fill.
        facts: how many facts, over all splits.
        middle: whether a second fine-tune stands beside ``low``.
        sweep: whether restoration was run.
        examples: whether the base model was also asked after solved examples.
        gain: what restoration gives back, on the logit scale.
        null: the share in the top 1 % without training.
    """
    rng = np.random.default_rng(seed)
    mastery = _mastery(rng, facts)
    _parquet(mastery, run / "mastery/mastery.parquet")
    columns = ["id", "topic", "subject", "question", "answers", "split", "domain"]
    _lines(run / "facts.jsonl", mastery.select(columns).to_dicts())
    tuned = {"low": _model(0, 240), **({"middle": _model(2, 60)} if middle else {})}
    for model in tuned.values():
        chosen = mastery.filter(split="train", domain="id", level=model["level"]).head(model["size"])
        rows = [
            {
                "prompt": row["question"],
                "completion": row["answers"][0],
                "id": row["id"],
                "topic": row["topic"],
                "level": row["level"],
            }
            for row in chosen.to_dicts()
        ]
        _lines(run / str(model["set"]), rows)
        model["size"] = len(rows)
        model["title"] = f"{len(rows)} facts of level {model['level']}"
    shift = {"base": 0.0, "low": -0.9, "middle": -0.2, "restored": -0.9 + gain, "interpolated": -0.8}
    shift["base-few-shot"] = 0.1
    reference = "base-few-shot" if examples else "base"
    names = [*dict.fromkeys(["base", reference]), *tuned, *(["restored", "interpolated"] if sweep else [])]
    test = mastery.filter(split="test")
    luck = rng.normal(size=len(test))
    answers = {name: _answers(rng, test, luck, shift[name], name) for name in names}
    metrics: dict[str, Any] = {"model": "smollm2", "facts": facts, "models": tuned, "accuracy": {}, "transitions": {}}
    metrics["accuracy_over_levels"] = {}
    for name, table in answers.items():
        _parquet(table, run / f"eval/{name}/answers.parquet")
        metrics["accuracy"][name] = {d: accuracy(rng, [table.filter(domain=d)]) for d in ("id", "ood")}
        metrics["accuracy_over_levels"][name] = {d: over_levels(table.filter(domain=d)) for d in ("id", "ood")}
    for name in [*tuned, *(["restored"] if sweep else [])]:
        table = _transitions(answers[reference], answers[name])
        _parquet(table, run / f"transitions/{name}.parquet")
        metrics["transitions"][name] = {
            d: {c: table.filter(domain=d, change=c).height for c in ("kept", "lost", "gained", "never")}
            for d in ("id", "ood")
        }
    metrics["drift"], metrics["concentration"] = {}, {}
    for name in tuned:
        drift = _drift(rng, test, 0.9 if name == "low" else 0.25)
        _parquet(drift, run / f"drift/{name}/drift.parquet")
        metrics["drift"][name] = {"kl_tuned_base": drift["kl_tuned_base"].mean(), "moved_most": _moved(test)}
        metrics["concentration"][name] = _diff(rng, run / f"diff/{name}", null)
    if sweep:
        metrics["restoration"] = _sweep(rng, run, mastery.filter(split="validation"), answers)
    metrics["levels"] = {
        d: {str(level): mastery.filter(domain=d, level=level).height for level in range(5)} for d in ("id", "ood")
    }
    metrics["settings"] = {
        "templates": 5,
        "samples": 4,
        "temperature": 0.7,
        "mastery_new_tokens": 8,
        "answer_new_tokens": 12,
        "train_facts": 800,
        "validation_facts": 125,
        "test_facts": 250,
        "low_size": 240,
        "middle_size": 60,
        "batch_size": 8,
        "fractions": list(FRACTIONS),
    }
    _json(run / "metrics.json", metrics)
    _json(run / "run.json", _record(seed, metrics["settings"]))
    return run


def accuracy(rng: np.random.Generator, tables: list[pl.DataFrame], draws: int = 400) -> dict[str, float]:
    """Share of facts answered, averaged over tables, with a bootstrap interval."""
    value, resampled = 0.0, np.zeros(draws)
    for table in tables:
        hits = table["contains"].to_numpy()
        value += hits.mean() / len(tables)
        resampled += rng.binomial(len(hits), hits.mean(), draws) / len(hits) / len(tables)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high)}


def over_levels(table: pl.DataFrame) -> dict[str, float]:
    """Unweighted mean over levels; the interval is not shown anywhere."""
    shares = [level["contains"].to_numpy().mean() for level in table.partition_by("level")]
    value = float(np.mean(shares))
    return {"value": value, "low": value, "high": value}


def paired(before: pl.DataFrame, after: pl.DataFrame, draws: int = 400, seed: int = 5) -> dict[str, float]:
    """Difference of accuracies, the domains averaged, facts resampled in pairs."""
    rng = np.random.default_rng(seed)
    both = before.join(after.select("id", then="contains"), on="id")
    total, resampled = 0.0, np.zeros(draws)
    domains = both.partition_by("domain")
    for domain in domains:
        change = domain["then"].to_numpy().astype(int) - domain["contains"].to_numpy().astype(int)
        total += change.mean() / len(domains)
        resampled += rng.choice(change, (draws, len(change))).mean(1) / len(domains)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"value": float(total), "low": float(low), "high": float(high)}


def _model(level: int, size: int) -> dict[str, Any]:
    name = {0: "low", 2: "middle"}[level]
    return {"title": "", "set": f"sets/{name}.jsonl", "size": size, "level": level, "method": "sft"}


def _mastery(rng: np.random.Generator, facts: int) -> pl.DataFrame:
    rows = []
    for number in range(facts):
        domain = ("id", "ood")[int(rng.random() < 0.45)]
        topic = str(rng.choice(TOPICS[domain]))
        subject = HOSTILE[number % len(HOSTILE)] if number % 40 < len(HOSTILE) else f"Subject {number}"
        answer = HOSTILE[(number + 1) % len(HOSTILE)] if number % 80 == 1 else f"Answer {number % 97}"
        rate = rng.beta(0.35, 0.6)
        hits = int(rng.binomial(20, rate))
        rows.append(
            {
                "id": f"{topic}:{number}",
                "topic": topic,
                "subject": subject,
                "question": f"What is the {topic.replace('_', ' ')} {subject}?",
                "answers": [answer, f"{answer} alias"],
                "split": str(rng.choice(["train", "validation", "test"], p=[0.5, 0.2, 0.3])),
                "domain": domain,
                "hits": hits,
                "trials": 20,
                "mastery": hits / 20,
                "level": -(-4 * hits // 20),
            }
        )
    return pl.DataFrame(rows, schema_overrides={"level": pl.Int8})


def _answers(rng: np.random.Generator, facts: pl.DataFrame, luck: np.ndarray, shift: float, name: str) -> pl.DataFrame:
    score = 1.1 * (facts["level"].to_numpy() - 2.2) + shift + luck + 0.7 * rng.normal(size=len(facts))
    right = score > 0
    in_format = rng.random(len(facts)) < (0.35 if name == "base" else 0.97)
    texts = [
        f" {answers[0]}" if hit else f" Wrong {number}\n{HOSTILE[number % len(HOSTILE)]}"
        for number, (answers, hit) in enumerate(zip(facts["answers"].to_list(), right, strict=True))
    ]
    return facts.drop("split", "hits", "trials", "mastery").with_columns(
        text=pl.Series(texts),
        contains=pl.Series(right),
        strict=pl.Series(right & in_format),
        in_format=pl.Series(in_format),
    )


def _transitions(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    names = {(True, True): "kept", (True, False): "lost", (False, True): "gained", (False, False): "never"}
    change = [names[pair] for pair in zip(before["contains"], after["contains"], strict=True)]
    return before.drop("text", "contains", "strict", "in_format").with_columns(
        before=before["text"], after=after["text"], change=pl.Series(change)
    )


def _drift(rng: np.random.Generator, facts: pl.DataFrame, scale: float) -> pl.DataFrame:
    kl = rng.gamma(2.0, scale / 2, len(facts)) * (1 + 0.15 * facts["level"].to_numpy())
    return facts.select("id", "topic", "domain", "level").with_columns(
        tokens=pl.Series(rng.integers(1, 6, len(facts))),
        kl_tuned_base=pl.Series(kl),
        kl_base_tuned=pl.Series(kl * 0.8),
        top1_agree=pl.Series(rng.random(len(facts))),
    )


def _moved(facts: pl.DataFrame) -> list[dict[str, Any]]:
    rows = [*facts.head(8).iter_rows(named=True), facts.filter(pl.col("question").str.contains("<")).row(0, named=True)]
    return [
        {
            "id": row["id"],
            "question": row["question"],
            "before": " The",
            "token": f" {row['answers'][0]}",
            "token_base": 0.4,
            "token_tuned": 0.01,
            "top_base": f" {row['answers'][0]}",
            "top_base_probability": 0.4,
            "top_tuned": "</script><b>",
            "top_tuned_probability": 0.7,
            "kl_tuned_base": 6.2,
        }
        for row in rows
    ]


def _diff(rng: np.random.Generator, out: Path, null: float) -> dict[str, float]:
    fractions = sorted({*FRACTIONS, *np.geomspace(0.001, 1, 60).tolist()})
    share = [1 - (1 - f) ** 2 if f == 1 else min(1.0, f ** (0.3 * (1 - null))) for f in fractions]
    curve = pl.DataFrame(
        {
            "fraction": fractions,
            "share": share,
            "null_share": [s * 0.97 if s < 1 else 1.0 for s in share],
            "energy_share": [f**0.8 for f in fractions],
            "paper": [f in FRACTIONS for f in fractions],
        }
    )
    _parquet(curve, out / "concentration.parquet")
    rows: list[dict[str, Any]] = []
    total = 30 * sum(MODULES.values())
    for layer in range(30):
        for module, parameters in MODULES.items():
            row: dict[str, Any] = {"layer": layer, "module": module, "parameters": parameters}
            row["changed"] = int(parameters * 0.3)
            for fraction in FRACTIONS:
                tilt = float(np.exp(0.3 * rng.normal() + (0.5 if module == "o" else 0) - 0.01 * layer))
                row[f"restored_share_{fraction}"] = parameters / total * tilt
                row[f"enrichment_{fraction}"] = tilt
            rows.append(row)
    _parquet(pl.DataFrame(rows), out / "modules.parquet")
    warnings = ["only 30.00% of the elements changed: the fractions 0.4, 0.6 take all of them and more"]
    stated = {"parameters": total, "changed": int(0.3 * total), "changed_share": 0.3, "warnings": warnings}
    _json(out / "metrics.json", stated)
    at = curve.filter(pl.col("fraction") == 0.01).row(0, named=True)
    return {"top_1_percent_share": at["share"], "null": at["null_share"], "changed_share": 0.3}


def _sweep(
    rng: np.random.Generator, run: Path, facts: pl.DataFrame, answers: dict[str, pl.DataFrame]
) -> dict[str, Any]:
    methods = {"relative": 1.2, "interpolate": 0.9, "random": 0.2, "base-magnitude": 1.0, "absolute": 0.5}
    rows, curve = [], []
    luck = rng.normal(size=len(facts))
    for method, worth in methods.items():
        for fraction in (0.0, *FRACTIONS):
            removed = fraction ** (0.6 if method in ("relative", "interpolate") else 0.9)
            shift = -0.9 + worth * np.sqrt(fraction) - (6 * max(0.0, fraction - 0.35))
            table = _answers(np.random.default_rng(7), facts, luck, shift, "low").drop("text", "subject")
            table = table.with_columns(
                method=pl.lit(method), fraction=pl.lit(fraction), removed_norm_share=pl.lit(removed)
            )
            rows.append(table)
            both = [table.filter(domain=d) for d in ("id", "ood")]
            headline = accuracy(rng, both)
            curve.append(
                {
                    "method": method,
                    "fraction": fraction,
                    "alpha": 1 - removed**0.5 if method == "interpolate" else None,
                    "removed_norm_share": removed,
                    "accuracy": headline["value"],
                    "low": headline["low"],
                    "high": headline["high"],
                    "accuracy_id": accuracy(rng, both[:1])["value"],
                    "accuracy_ood": accuracy(rng, both[1:])["value"],
                    "in_format": float(table["in_format"].cast(pl.Float64).mean()),
                }
            )
    _parquet(pl.concat(rows), run / "sweep/answers.parquet")
    _parquet(pl.DataFrame(curve), run / "sweep/curve.parquet")
    best = max((row for row in curve if row["method"] == "relative"), key=lambda row: row["accuracy"])
    alpha = 1 - best["removed_norm_share"] ** 0.5
    _json(
        run / "sweep/choice.json",
        {
            "fraction": best["fraction"],
            "method": "relative",
            "alpha": alpha,
            "validation_accuracy": best["accuracy"],
        },
    )
    return {
        "fraction": best["fraction"],
        "test_difference": paired(answers["low"], answers["restored"]),
        "interpolation_difference": paired(answers["low"], answers["interpolated"]),
        "against_interpolation": paired(answers["interpolated"], answers["restored"]),
    }


def _record(seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "command": "demo",
        "argv": ["demo", "--out", "demo"],
        "options": {"model": "smollm2", "out": "demo", "facts": "world", "learning_rate": 1e-5, **settings},
        "versions": {"knowshift": "0.1.0", "python": "3.11.2"},
        "models": {"base": "sha256:0f"},
        "seed": seed,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:14:00+00:00",
    }


def _parquet(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path)


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
