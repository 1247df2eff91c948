"""Checks of a data set: find, name and fix what is wrong with it before it costs a training run."""

from fasterrcnn.data.checks.check import Diagnosis, admit, check_data
from fasterrcnn.data.checks.repair import Policy, Repaired, repair

__all__ = ["Diagnosis", "Policy", "Repaired", "admit", "check_data", "repair"]
