"""SFT on TRL and accelerate: methods, settings, the log of a training run."""
