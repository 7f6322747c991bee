"""Metrics: arrays in, Estimates out. Pure NumPy; nothing here imports torch."""
