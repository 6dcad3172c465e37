"""The paper's claims of restoration (section 5): beyond fine-tuning, beyond its controls, beyond LoRA; first layers.

What a sweep chose on validation is asked on test beside the model it was made of; every model that was swept counts
the same. Accuracy is the unweighted mean over levels, mean of the domains.
"""

from collections.abc import Sequence

from knowshift.study.claims.claim import Claim
from knowshift.study.claims.contrasts import contrast, made, plain, trained
from knowshift.study.claims.rules import Part, of_seeds
from knowshift.study.measures import Measures
from knowshift.study.panel import Panel
from knowshift.study.tables.table import Config, configs

RANKED = "relative"
CONTROL = "interpolate"
LAYERS = "layers"


def beyond_tuning(measures: Measures, model: str) -> Claim:
    """Restoration beats fine-tuning: restored, by the fraction chosen on validation, less tuned, on test."""
    claim = "Putting back the most changed weights improves on fine-tuning."
    panel, own = _confirmed(measures, model)
    mean, lacking = (
        contrast(panel, "contains", [(one, made(panel, RANKED)) for one in own], [(one, trained(panel)) for one in own])
        if panel
        else (None, None)
    )
    part = of_seeds(_says("restored models against tuned ones: {}", own), mean, why=lacking)
    return _claim("restoration", claim, model, [part], lacking)


def beyond_interpolation(measures: Measures, model: str) -> Claim:
    """Which weights, not how much: restored less interpolated to the same removed squared norm, on test."""
    claim = "Which weights are put back matters, beyond how much of the update goes."
    panel, own = _confirmed(measures, model)
    mean, lacking = (
        contrast(
            panel,
            "contains",
            [(one, made(panel, RANKED)) for one in own],
            [(one, made(panel, CONTROL)) for one in own],
        )
        if panel
        else (None, None)
    )
    part = of_seeds(
        _says("restored models against the update scaled down by the same norm: {}", own), mean, why=lacking
    )
    return _claim("restoration-interpolation", claim, model, [part], lacking)


def beyond_lora(measures: Measures, model: str) -> Claim:
    """Restored fine-tunes less LoRA models of the same sets and seeds, on test; every LoRA of the plan
    must be passed."""
    claim = "Restored fine-tunes know more than LoRA models of the same training sets."
    panel, own = _confirmed(measures, model)
    if panel is None or not own:
        return _claim("restoration-lora", claim, model, [of_seeds("", None, why=None)], None)
    asked = configs(measures.index, "eval", lacking=False, model=model, split="test", role="tuned", form="trained")
    names = list(dict.fromkeys(str(one.labels["method"]) for one in asked))
    loras = [name for name in names if "lora" in name.split()[0].split("+")]
    if not loras:
        return _claim("restoration-lora", claim, model, [of_seeds("", None, why="no LoRA model was trained")], None)
    parts, limits = [], []
    for name in loras:
        rivals = {_set(one): one for one in asked if one.labels["method"] == name}
        both = [one for one in own if _set(one) in rivals]
        mean, lacking = contrast(
            panel,
            "contains",
            [(one, made(panel, RANKED)) for one in both],
            [(rivals[_set(one)], trained(panel)) for one in both],
        )
        why = lacking if both else f"{name} was trained on none of the sets that were restored"
        parts.append(of_seeds(_says(f"restored models against {name}: {{}}", both), mean, why=why))
        limits += [lacking] if lacking else []
    return _claim("restoration-lora", claim, model, parts, "; ".join(limits) or None)


def first_layers(measures: Measures, model: str) -> Claim:
    """First layers matter: putting the first block of layers back costs more than the mean of the other blocks.

    On validation, where blocks are swept: nothing is chosen by it.
    """
    claim = "The first layers' update cannot be taken back without losing accuracy."
    panel = measures.answers.get((model, "validation"))
    own = configs(measures.index, "sweep", lacking=False, model=model, method=plain(measures, model))
    blocks = _blocks(panel)
    if panel is None or len(blocks) < 2:
        part = of_seeds("", None, why="blocks of layers were not put back")
        return Claim("first-layers", claim, model, [part], "parts", {"model": model})
    first, others = blocks[0], blocks[1:]
    mean, lacking = contrast(
        panel,
        "contains",
        [(one, made(panel, LAYERS, block)) for one in own for block in others],
        [(one, made(panel, LAYERS, first)) for one in own],
    )
    lost, _ = contrast(
        panel,
        "contains",
        [(one, trained(panel)) for one in own],
        [(one, made(panel, LAYERS, first)) for one in own],
    )
    name = first.partition("=")[2]
    parts = [
        of_seeds(
            f"accuracy lost without the update of layers {name}, against another block of layers: {{}}",
            mean,
            why=lacking,
        ),
        of_seeds("against the tuned models: {}", lost, why=lacking),
    ]
    limits = [lacking] if lacking else []
    return Claim("first-layers", claim, model, parts, "parts", {"model": model, "restoration": LAYERS}, limits)


def _blocks(panel: Panel | None) -> list[str]:
    """Settings of the blocks that were put back, from the first layer on."""
    found = [] if panel is None else panel.models.filter(restoration=LAYERS)["setting"].drop_nulls().unique().to_list()
    return sorted(found, key=lambda setting: int(setting.partition("=")[2].partition("-")[0]))


def _confirmed(measures: Measures, model: str) -> tuple[Panel | None, list[Config]]:
    own = configs(measures.index, "confirm", lacking=False, model=model, method=plain(measures, model))
    panel = measures.answers.get((model, "test"))
    return (panel if own else None), own


def _set(one: Config) -> tuple[object, ...]:
    return tuple(one.labels[name] for name in ("level", "mix", "asked_size"))


def _says(text: str, own: Sequence[Config]) -> str:
    return f"{text} ({len(own)} training sets)"


def _claim(name: str, claim: str, model: str, parts: Sequence[Part], lacking: str | None) -> Claim:
    return Claim(
        name, claim, model, parts, "confirmed", {"model": model, "domain": "both"}, [lacking] if lacking else []
    )
