"""Bulk operations: what is asked for (request.py), how much it would be (plan.py), and its life (operations.py)."""
