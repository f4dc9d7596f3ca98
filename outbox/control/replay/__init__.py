"""Deliver again what was delivered, given up or never matched: which (replayable.py), and how (replay.py)."""
