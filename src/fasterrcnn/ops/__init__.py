"""Pure functions on tensors: the arithmetic of Faster R-CNN, without weights and without state."""
