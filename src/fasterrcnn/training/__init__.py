"""Fine-tuning: the recipe, the loop, and `fit` which runs them over a data set."""
