"""Two small applications that sent webhooks by themselves, and the same two after their move to this library.

docs/from-celery.md and docs/django.md say how they were moved; tests/integration/test_moves.py runs all four.
"""
