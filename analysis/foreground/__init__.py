"""What crops leave of the object: numbers, figures, table."""
