"""The API answers as its own description says, whatever it is asked. More of it: python -m tests.fuzz_api"""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI

from tests.fuzz_api import fuzz, seeded

EXAMPLES = 2  # of each operation and mode


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_operation_answers_as_it_is_described(app: FastAPI, database_url: str) -> None:
    app.state.rate_limits = type(app.state.rate_limits)(1_000_000)
    tried = [name for name, trial in fuzz(app, seeded(database_url), EXAMPLES) if trial() is None]
    assert len(tried) > 45


def test_the_description_is_of_openapi_3_1_and_names_every_problem(app: FastAPI) -> None:
    described = app.openapi()
    assert described["openapi"].startswith("3.1.")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert {"401", "403", "404", "422", "429", "500", "503"} <= set(operation["responses"]), (method, path)
            assert operation["security"] == [{"HTTPBearer": []}], (method, path)


def test_nothing_in_the_description_is_named_for_us_alone(app: FastAPI) -> None:
    described = app.openapi()
    assert [name for name in described["components"]["schemas"] if not re.fullmatch(r"[A-Z][A-Za-z0-9]+", name)] == []
    ids = [one["operationId"] for methods in described["paths"].values() for one in methods.values()]
    assert len(set(ids)) == len(ids)
