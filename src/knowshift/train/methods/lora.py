"""LoRA: the update of each weight matrix is a product of two thin ones, W + s B A, by PEFT.

The scale s is alpha / rank, with ``rslora`` alpha / sqrt(rank) (Kalajdzievski, 2023). The adapter's matrices are
float32. Rank 16, alpha 32 on every linear layer inside the blocks are common defaults; the paper compares with LoRA
once and does not give its settings.

How A and B begin (``init``): ``kaiming`` A random, B zero (Hu et al.); ``gaussian`` likewise, A normal;
``orthogonal`` both random with B A = 0; ``pissa`` the largest singular vectors of W (Meng et al., arXiv 2404.02948);
``olora`` its QR decomposition (Büyükakyüz, arXiv 2406.01775). The last two take s B A out of W first, so that adapter
belongs to no base that exists: they are written merged.

Cost: gradients and moments for the adapter alone, a fraction of a percent to a few percent of the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from knowshift.errors import InputError
from knowshift.train.methods.method import Listed, Method, Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Lora(Method):
    """A low-rank adapter on linear layers."""

    title: ClassVar[str] = "LoRA"
    source: ClassVar[str] = "Hu et al., arXiv 2106.09685"
    adapter: ClassVar[bool] = True
    name: ClassVar[str] = "lora"

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0, allow_inf_nan=False)
    dropout: float = Field(default=0, ge=0, lt=1)
    targets: Listed = Field(default="all-linear", description="module names, separated by commas")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank)")
    init: Literal["kaiming", "gaussian", "orthogonal", "pissa", "olora"] = Field(
        default="kaiming", description="how the adapter begins; pissa and olora need --merge"
    )

    @property
    def keeps_base(self) -> bool:
        """Whether the base's weights stay what they were while the adapter is trained."""
        return self.init not in ("pissa", "olora")

    def arguments(self, model: PreTrainedModel, run: Run) -> dict[str, Any]:
        """The adapter's configuration for TRL to apply.

        Raises:
            InputError: if a target names no module of the model, or the settings do not go together.
        """
        from peft import LoraConfig

        if not (self.keeps_base or run.options.merge):
            raise InputError(f"--set {self.name}.init={self.init}: changes the base's weights, so it needs --merge")
        if self.init == "orthogonal" and self.rank % 2:
            raise InputError(f"--set {self.name}.init=orthogonal: needs an even rank, not {self.rank}")
        targets: str | list[str] = self.targets
        if targets != "all-linear":
            targets = [name.strip() for name in self.targets.split(",") if name.strip()]
            modules = {name for name, _ in model.named_modules()}
            for target in targets:
                if not any(name == target or name.endswith(f".{target}") for name in modules):
                    raise InputError(f"--set {self.name}.targets={target}: no module of this model has this name")
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            use_rslora=self.rslora,
            use_dora=isinstance(self, Dora),
            init_lora_weights=True if self.init == "kaiming" else self.init,
            task_type="CAUSAL_LM",
        )
        return {"peft_config": config}


class Dora(Lora):
    """LoRA for the direction of each column of a weight matrix; its length is trained apart.

    W' = m * (W + s B A) / |W + s B A|, the norm taken for each output, m beginning as that of W.
    Cost beside LoRA: that norm in each forward pass, which takes the product B A as a whole matrix.
    """

    title: ClassVar[str] = "DoRA"
    source: ClassVar[str] = "Liu et al., arXiv 2402.09353"
    name: ClassVar[str] = "dora"
