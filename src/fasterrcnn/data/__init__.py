"""Data sets: reading images and annotations, and turning them into batches."""
