"""Our checkpoints inside other people's tools, where those are installed."""
