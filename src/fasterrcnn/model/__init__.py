"""Faster R-CNN, one file for each of its five components and for what joins them."""
