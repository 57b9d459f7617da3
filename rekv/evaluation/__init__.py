"""Evaluation: benchmarks, honest about time; what a run answered and cost; what that says.

One unit of work is one video with its questions (`unit`). Everything else feeds it or reads what it wrote.
"""
