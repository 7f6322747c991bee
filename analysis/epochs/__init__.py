"""One metric over pretraining epochs: lines, differences, figures, tables."""
