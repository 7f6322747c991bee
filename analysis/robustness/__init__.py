"""Accuracy on corrupted and shifted images: numbers and figures."""
