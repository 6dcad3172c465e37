"""Freeze: part of the weights is not trained, so it stays what it was, bit for bit.

Let S be the weights that the options name: those in one of ``regions``, of one of ``modules`` and in one of
``layers``, each only where it is given. S is frozen, or with ``others`` all but S. Without any of the three, S is
attention, and so the feed-forward part is trained. A tied head is its embedding: what freezes one freezes both.

Cost: none. A frozen weight has no gradient and no moments of the optimizer: 12 of 16 bytes a weight are saved, and
the time to compute its gradient. The backward pass ends at the first block that has anything to train.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from knowshift.errors import InputError
from knowshift.train.methods.method import Listed, Method, Run
from knowshift.weights.regions import EXPRESSION, classify, selector

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Test = Callable[[str], bool]


class Freeze(Method):
    """Weights that are not trained, by region, module and block."""

    title: ClassVar[str] = "Partial fine-tuning"
    source: ClassVar[str] = "common practice; of this project in what can be named"
    with_adapter: ClassVar[bool] = False

    regions: Listed | None = Field(
        default=None, description="blocks, attention, mlp, embeddings, all or re:EXPRESSION, separated by commas"
    )
    modules: Listed | None = Field(default=None, description="such as q,k,v,o,gate,up,down, as `diff` names them")
    layers: Listed | None = Field(default=None, description="blocks counted from 0, such as 0-11,20")
    others: bool = Field(default=False, description="freeze all but what is named")

    def prepare(self, model: PreTrainedModel, run: Run) -> None:
        """Take the gradient from what is frozen.

        Raises:
            InputError: what is named is not in this model, or nothing is left to train.
        """
        names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        tests = self._tests([name for own in names.values() for name in own])
        frozen = 0
        for parameter in model.parameters():
            if any(all(test(name) for test in tests) for name in names[id(parameter)]) != self.others:
                parameter.requires_grad = False
                frozen += 1
        if not frozen:
            raise InputError(f"--method {run.options.method}: --set freeze... freezes nothing of this model")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(f"--method {run.options.method}: all weights are frozen, nothing is left to train")

    def _tests(self, names: list[str]) -> list[Test]:
        """What a frozen tensor's name must pass, each checked to let a tensor of this model through."""
        tests: list[Test] = []
        if self.layers is not None:
            tests.append(self._in_layers(self.layers, names))
        if self.modules is not None:
            chosen = set(_split(self.modules))
            known = {classify(name).module for name in names}
            for module in sorted(chosen - known):
                raise InputError(
                    f"--set freeze.modules={self.modules}: {module!r} is none of {', '.join(sorted(known))}"
                )
            tests.append(lambda name: classify(name).module in chosen)
        if self.regions is not None or not tests:
            tests.append(self._in_regions(self.regions or "attention", names))
        if not any(all(test(name) for test in tests) for name in names):
            raise InputError("--set freeze...: no weight of this model is in all of the regions, modules and layers")
        return tests

    @staticmethod
    def _in_regions(text: str, names: list[str]) -> Test:
        # A regular expression may hold commas, so it is the last of the list.
        plain, mark, expression = text.partition(EXPRESSION)
        inside = []
        for region in [*_split(plain), *([mark + expression] if mark else [])]:
            try:
                test = selector(region)
            except InputError as error:
                raise InputError(str(error).replace("--region ", "--set freeze.regions=", 1)) from error
            if not any(map(test, names)):
                raise InputError(f"--set freeze.regions={text}: no weight of this model is in {region}")
            inside.append(test)
        return lambda name: any(test(name) for test in inside)

    @staticmethod
    def _in_layers(text: str, names: list[str]) -> Test:
        known = {layer for name in names if (layer := classify(name).layer) is not None}
        chosen: set[int] = set()
        for part in _split(text):
            first, dash, last = part.partition("-")
            try:
                span = range(int(first), int(last if dash else first) + 1)
            except ValueError as error:
                raise InputError(f"--set freeze.layers={text}: {part!r} is no block or range such as 0-11") from error
            if not span or not known.issuperset(span):
                raise InputError(f"--set freeze.layers={text}: {part!r} is not within 0-{max(known, default=0)}")
            chosen.update(span)
        return lambda name: classify(name).layer in chosen


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
