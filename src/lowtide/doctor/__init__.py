"""Is everything there that a deployment needs, and what to do when it is not."""

from lowtide.doctor.examine import CHECKS, examine
from lowtide.doctor.finding import Finding, Level

__all__ = ["CHECKS", "Finding", "Level", "examine"]
