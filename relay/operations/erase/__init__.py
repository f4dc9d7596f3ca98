"""Erasure: what is asked for and how much it is (request.py), and how it is done, with its receipt (erasure.py)."""
