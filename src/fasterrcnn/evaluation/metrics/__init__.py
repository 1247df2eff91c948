"""The numbers of an evaluation, one file for each family of metrics. Needs no torch."""
