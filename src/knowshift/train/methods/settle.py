"""Settle: after training, each tensor keeps as much of its update as the task needs and the base's own text allows.

With theta0 the base and theta the trained weights, one coefficient a_m in [0, 1] for each tensor m is fitted so that
theta0_m + a_m * (theta_m - theta0_m) minimises

    task loss on examples held out of training + weight * KL(base || model) on text that the base wrote itself,

by ``steps`` steps from a = 1; the slope along a_m is <gradient, theta_m - theta0_m>, so a step is one backward pass
(``weights.coefficients``). Restoring whole matrices of the base (Ye et al., 2025, section 5) is the case of
coefficients 0 and 1, here chosen by what the method may see: no question about knowledge, only held-out task data and
what the base itself expects. With ``every`` the weights are settled in between, too, and training goes on from there.

Source: of this project; interpolation towards the base as in WiSE-FT (Wortsman et al., arXiv 2109.01903), by tensor.

Cost: texts the base writes before training; each step a forward and backward pass of ``batch`` examples and ``batch``
texts; a copy of the trained weights while it is fitted. The coefficients are written to ``coefficients.parquet``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr

from knowshift.errors import InputError
from knowshift.train.methods.method import Keeper, Method, Run

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel

    from knowshift.train.data import Pair
    from knowshift.train.origin import Origin
    from knowshift.train.own_text import OwnText


class Settle(Method):
    """One fitted coefficient for each tensor's update."""

    title: ClassVar[str] = "Settled fine-tuning"
    source: ClassVar[str] = "of this project, after Ye et al., 2025, and Wortsman et al., arXiv 2109.01903"
    with_adapter: ClassVar[bool] = False

    weight: float = Field(default=1, ge=0, allow_inf_nan=False, description="of the KL on the base's own text")
    steps: int = Field(default=16, ge=0, description="of each fit; 0 leaves the weights as trained")
    every: int = Field(default=0, ge=0, description="updates between fits; 0: only at the end")
    heldout: float = Field(default=0.1, gt=0, lt=1, allow_inf_nan=False, description="share of the examples to fit on")
    batch: int = Field(default=8, ge=1, description="examples, and texts, for a step")
    texts: int = Field(default=64, ge=1, description="texts that the base writes")
    tokens: int = Field(default=64, ge=1, description="of each text, at most")

    _held: list[Pair] = PrivateAttr(default_factory=list)
    _shared: dict[str, Any] = PrivateAttr(default_factory=dict)
    _found: dict[str, tuple[int, float]] = PrivateAttr(default_factory=dict)

    def examples(self, model: PreTrainedModel, run: Run) -> list[Pair]:
        """All but those held out.

        Raises:
            InputError: if nothing would be left to train on.
        """
        from knowshift.seeds import derive
        from knowshift.train.gradients import shuffled
        from knowshift.weights.ranking import exact

        share = exact(self.heldout)
        count = max(1, len(run.pairs) * share.numerator // share.denominator)
        if count >= len(run.pairs):
            raise InputError(f"{run.options.data}: settle holds an example out, so it needs at least 2")
        held = set(shuffled(len(run.pairs), derive(run.options.seed, "settle", "held out"))[:count])
        self._held = [run.pairs[place] for place in sorted(held)]
        return [pair for place, pair in enumerate(run.pairs) if place not in held]

    def prepare(self, model: PreTrainedModel, run: Run) -> None:
        """Find the base's values, and let the base write."""
        from knowshift.seeds import derive
        from knowshift.train.data import tokenize
        from knowshift.train.origin import Origin
        from knowshift.train.own_text import remembered, texts_of_base
        from knowshift.weights.checkpoint import Checkpoint

        assistant = bool(run.options.set.get("assistant_only_loss"))
        longest = int(1e9)  # what was read was checked
        tokens, _ = tokenize(run.options.data, self._held, run.tokenizer, longest, assistant=assistant)
        self._shared["origin"] = Origin(model, Checkpoint.open(run.base))
        self._shared["held"] = [{"input_ids": each.ids, "labels": each.labels} for each in tokens]
        if self.weight and self.steps:
            seed = derive(run.options.seed, "settle", "text")
            texts = texts_of_base(model, run.tokenizer, self.texts, self.tokens, seed)
            self._shared["text"] = remembered(model, texts)

    def keeper(self, run: Run) -> Keeper | None:
        """What fits and sets the weights."""
        return _Settler(self, run.options.seed, found=self._found, **self._shared) if self.steps else None

    def leave(self, folder: Path) -> None:
        """Write the coefficients of the last fit."""
        import polars as pl

        from knowshift.files import write_parquet
        from knowshift.weights.regions import classify

        rows = [
            {"tensor": name, "layer": classify(name).layer, "module": classify(name).module}
            | {"parameters": size, "coefficient": value}
            for name, (size, value) in self._found.items()
        ]
        if rows:
            write_parquet(folder / "coefficients.parquet", pl.DataFrame(rows, schema_overrides={"layer": pl.Int64}))


class _Settler(Keeper):
    edits: ClassVar[bool] = True

    def __init__(
        self,
        method: Settle,
        seed: int,
        *,
        origin: Origin,
        held: list[dict[str, Any]],
        found: dict[str, tuple[int, float]],
        text: OwnText | None = None,
    ) -> None:
        self.method, self.seed = method, seed
        self.origin, self.held, self.text, self.found = origin, held, text, found
        self.step = 0

    def join(self, trainer: Any) -> None:
        self.trainer = trainer

    def begin_update(self, model: Module, step: int, epoch: int) -> None:
        self.step = step + 1

    def after_update(self, model: Module, learning_rate: float) -> None:
        every = self.method.every
        if every and self.step % every == 0 and self.step < self.trainer.state.max_steps:
            self._settle(model)

    def finish(self, model: Module) -> None:
        self._settle(model)

    def _settle(self, model: Module) -> None:
        from knowshift.seeds import derive
        from knowshift.train.fitting import Fit

        fit = Fit(self.trainer, model, self.origin)
        values = fit.run(
            self.held,
            self.text,
            weight=self.method.weight,
            steps=self.method.steps,
            batch=self.method.batch,
            seed=derive(self.seed, "settle", self.step),
        )
        self.found.clear()
        self.found |= {name: (fit.sizes[name], value) for name, value in values.items()}
