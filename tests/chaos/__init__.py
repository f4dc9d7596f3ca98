"""Slow fault hunts, run by hand or at night: `python -m tests.chaos kills`, `python -m tests.chaos restarts`,
`python -m tests.chaos order`.
"""
