"""Data sets: reading pictures and annotations, and turning them into batches."""
