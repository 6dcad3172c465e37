"""What a model still knows while it trains: a panel of known facts, scored between the steps of any trainer."""
