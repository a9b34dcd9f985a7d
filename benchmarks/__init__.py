"""Measured figures: what lowtide costs. Not tests: they compare runs on the same machine.

`python -m benchmarks` runs one module per figure. Each alternates a baseline and lowtide in the
same run, and what is reported is the median of the ratios.
"""
