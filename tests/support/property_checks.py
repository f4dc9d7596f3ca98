"""Which checks of Hypothesis are off in a test of this suite; the others are off for all, in tests/conftest.py."""

from __future__ import annotations

from hypothesis import HealthCheck

__all__ = ["BESIDE_FIXTURES"]

BESIDE_FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""For a property test that has a fixture: its examples share it, and each begins by clearing what it left there."""
