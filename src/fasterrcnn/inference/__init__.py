"""Using a trained detector: on images, folders and annotated data sets."""
