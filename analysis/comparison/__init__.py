"""Two checkpoints beside each other: numbers, terminal, page."""
