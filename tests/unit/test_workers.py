"""How the suite is handed out to its workers."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.xdist_group("workers")


def test_a_group_goes_to_one_worker(request: pytest.FixtureRequest) -> None:
    """xdist knows it by the end of the test's id; a pytest that it does not know yet ignores the mark, silently."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("there are no workers: -n0")
    assert request.node.nodeid.endswith("@workers")
