"""Fuzzing of every parser: what it is given (targets.py), what was ever interesting (corpus/), and how to run it.

`python -m tests.fuzz --seconds 600` hunts with coverage feedback (needs `pip install atheris`); the suite replays the
corpus and tries each target on random bytes for a moment (tests/unit/test_fuzz_targets.py).
"""
