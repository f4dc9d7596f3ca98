"""A relay stops, or is cut off, at each place where it waits for the database: the others go on within the bound.

The places are those of each verb of the engine and of each round of housekeeping: before the first answer, and after
each part of what is read, which is at each statement of a transaction. Every one has a database and relays of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from queue import SimpleQueue

from sqlalchemy.engine import make_url

from tests.support import databases
from tests.support.application import Application, staged
from tests.support.crashing import rounds, steps
from tests.support.namespace import Namespace, namespace, reachable_server, why_not
from tests.support.processes import ReceiverProcess
from tests.support.stopping import hold_nobody

PLACES_MAX = 12  # of one step: what is read in more parts is the same again
OUTSIDE = ("HttpSender.", "Attempts.", "Settler.", "Store.recover", "Store.close")  # they ask the database nothing
_SAYING = threading.Lock()


class Worker:
    """What one thread plays with: a server, a receiver, and the link that it cuts, if any."""

    def __init__(self, server_url: str, folder: Path, link: Namespace | None) -> None:
        self._server_url, self._folder, self._link = server_url, folder, link
        folder.mkdir()
        self.receiver = ReceiverProcess(folder, link.name if link else "")

    def try_step(self, step: str) -> list[str]:
        """Try each place of a step; return those where somebody was held up, or that were never reached."""
        failed = []
        for number in range(1, PLACES_MAX + 1):
            place = f"{step}:inside:{number}"
            try:
                reached = self._try_place(step, number)
            except AssertionError as error:
                _say(f"{place}: FAILED: {error}")
                failed.append(place)
                continue
            if not reached:
                return failed if number > 1 else [place]
            _say(f"{place}: nobody was held up")
        return failed

    def _try_place(self, step: str, number: int) -> bool:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        with databases.database(self._server_url) as url:
            databases.migrate(url)
            with staged(folder, url, self.receiver) as app:
                return hold_nobody(app, step, number, self._cut(app))

    def _cut(self, app: Application) -> Callable[[], None]:
        link = self._link
        if link is None:
            return lambda: None
        link.mend()
        there = make_url(app.stage.database_url).set(host=link.outside).render_as_string(hide_password=False)
        app.stage.cut_off = {"RELAY_DATABASE_URL": there, **link.environment}
        return link.cut


def run(options: argparse.Namespace) -> int:
    """Try every place; return 0 when nobody was held up at any."""
    if options.cut and (reason := why_not()):
        raise SystemExit(reason)
    asked = [step for step in (*steps(), *rounds()) if not step.startswith(OUTSIDE) and options.only in step]
    folder = Path(tempfile.mkdtemp(prefix="outbox-chaos-stops-"))
    with _workers(options, folder) as workers, ThreadPoolExecutor(options.workers) as threads:

        def one(step: str) -> list[str]:
            worker = workers.get()
            try:
                return worker.try_step(step)
            finally:
                workers.put(worker)

        failed = [place for places in threads.map(one, asked) for place in places]
    print(f"logs: {folder}")
    print("verdict: " + ("; ".join(failed) if failed else f"nobody was held up: {len(asked)} steps"))
    return 1 if failed else 0


@contextmanager
def _workers(options: argparse.Namespace, folder: Path) -> Iterator[SimpleQueue[Worker]]:
    workers: SimpleQueue[Worker] = SimpleQueue()
    with ExitStack() as stack:
        links = [stack.enter_context(namespace()) if options.cut else None for _ in range(options.workers)]
        cut = [link for link in links if link is not None]
        url = stack.enter_context(reachable_server(cut) if cut else databases.server())
        for number, link in zip(count(), links, strict=False):
            worker = Worker(url, folder / str(number), link)
            stack.callback(worker.receiver.end)
            workers.put(worker)
        yield workers


def _say(line: str) -> None:
    with _SAYING:
        print(line, flush=True)
