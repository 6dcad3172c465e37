"""knowshift: what a language model knew, what fine-tuning did to it, and how to get it back."""

__version__ = "0.1.0"
