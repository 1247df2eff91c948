"""Synthetic road scenes: a data set that is drawn, for the demo and for tests."""
