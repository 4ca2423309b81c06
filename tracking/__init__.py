"""Decisions about measured commits: what asv stores, a reviewer can trust. docs/benchmarking.md says how.

Not part of the library and not installed with it: run from the repository as `python -m tracking`, by the Python that
`scripts/bootstrap bench` makes. asv builds, discovers and stores; this package adds what it lacks.
"""
