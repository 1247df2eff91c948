"""The data doctor: finds, names and mends what is wrong with a data set before it costs a training run."""

from fasterrcnn.data.doctor.check import Diagnosis, admit, check_data
from fasterrcnn.data.doctor.repair import Policy, Repaired, repair

__all__ = ["Diagnosis", "Policy", "Repaired", "admit", "check_data", "repair"]
