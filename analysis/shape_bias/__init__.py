"""Shape or texture: numbers, figures, the matrix of answers."""
