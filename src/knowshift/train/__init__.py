"""Fine-tuning on prompt/completion sets, on TRL's trainer."""
