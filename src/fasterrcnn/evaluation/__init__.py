"""Measuring detections against the ground truth: numbers, what is behind them, and why. Needs no torch."""
