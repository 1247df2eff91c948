"""Using a trained detector: on pictures, folders and annotated data sets."""
