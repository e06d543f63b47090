"""Short trainings that differ in one thing each: what helps, what does not, what it costs. What ``tools/ablate.py`` runs."""

from .plans import OWN_DATA, PLANS, Run
from .training import results_folder, run_plan, table

__all__ = ['OWN_DATA', 'PLANS', 'Run', 'results_folder', 'run_plan', 'table']
