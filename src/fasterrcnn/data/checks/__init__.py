"""Checks of a data set: find, name and fix what is wrong with it before it costs a training run."""

from fasterrcnn.data.checks.check import DataReport, check_and_repair, check_data
from fasterrcnn.data.checks.repair import BadBoxPolicy, Repaired, repair

__all__ = ["BadBoxPolicy", "DataReport", "Repaired", "check_and_repair", "check_data", "repair"]
