"""Ask the HTTP API what its own description allows, and what it does not: python -m tests.fuzz_api [--examples N]

Schemathesis makes the requests. Every answer is one that the description names, with the body and headers that it says;
none is a 500. `tests/integration/web/test_api_description.py` does the same with few examples.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from outbox import subscriptions
from relay.config.options import Config
from relay.operations import tokens
from relay.operations.tokens import RIGHTS
from relay.web.app import create_app
from tests.support import databases, seeding
from tests.support.loopback import allow_loopback

# A description cannot say all that a field may hold: a URL that may be called, an expression that can be evaluated.
EXCLUDED = [positive_data_acceptance]


def fuzz(app: FastAPI, token: str, examples: int, seed: int | None = None) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the name of each operation and what tries it with so many examples of each mode."""
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    for found in schema.get_all_operations():
        operation = found.ok()
        yield operation.label, _trial(operation, token, examples)


def _trial(operation: Any, token: str, examples: int) -> Callable[[], None]:
    def run() -> None:
        for mode in GenerationMode:
            _tried(operation, token, examples, mode)()

    return run


def _tried(operation: Any, token: str, examples: int, mode: GenerationMode) -> Callable[[], None]:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    def run(case: Any) -> None:
        assume([] not in (case.query or {}).values())  # it is in no URL: the request has nothing that is wrong
        case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, excluded_checks=EXCLUDED)

    return run


def seeded(url: str) -> str:
    """Put something of each kind into a database, and return a token of every tenant with every right."""
    with databases.engine_on(url) as engine, engine.begin() as connection:
        for tenant in ("", "acme"):
            name = subscriptions.add(connection, "http://127.0.0.1:9009/hooks", ["*"], tenant=tenant).id
            event = seeding.record(connection, tenant=tenant)
            for made, verdict in zip(
                seeding.resolve(connection, event, name, name, name), ("retry", "dead", "delivered"), strict=True
            ):
                seeding.attempt(connection, made, verdict)
        return tokens.create(connection, None, name="fuzz", rights=RIGHTS, whose=None).text


def main() -> int:
    """Fuzz on a database of its own and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=500, help="of each operation and mode")
    given_examples = parser.parse_args().examples
    allow_loopback()
    failed = 0
    with databases.server() as server_url, databases.database(server_url) as url:
        databases.migrate(url)
        app = create_app(Config(database_url=url, requests_per_minute=1_000_000))
        for name, trial in fuzz(app, seeded(url), given_examples):
            try:
                trial()
            except (Exception, BaseExceptionGroup) as error:  # all that is found is printed
                failed += 1
                print(f"FAILED {name}\n{error}")
                for one in getattr(error, "exceptions", ()):
                    print(f"  {one}")
            else:
                print(f"ok {name}", flush=True)
        app.state.database.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
