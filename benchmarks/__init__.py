"""The measured table: `python -m benchmarks`. Every figure comes from a relay that runs as a user runs it."""
