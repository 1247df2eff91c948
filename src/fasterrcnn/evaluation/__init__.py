"""Measuring detections against the truth: numbers, what is behind them, and why. Needs no torch."""
