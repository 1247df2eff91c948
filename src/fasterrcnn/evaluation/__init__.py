"""Measuring detections against the truth. Needs no torch."""
