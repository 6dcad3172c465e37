"""Full fine-tuning: every weight is trained (paper, section 3)."""

from typing import ClassVar

from knowshift.train.methods.method import Method


class Sft(Method):
    """Nothing beyond the common settings."""

    title: ClassVar[str] = "Full fine-tuning"
    source: ClassVar[str] = "Ye et al., 2025, section 3"
