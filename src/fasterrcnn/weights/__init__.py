"""Weights in and out: maps of keys and rows for each family, our own files, and pre-trained starts."""
