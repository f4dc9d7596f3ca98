"""Runs one of the applications with what a test needs: `python -m tests.moves.start FOLDER WHAT [ARGUMENT…]`.

WHAT is a Python file of the folder, or `serve PORT`, or `serve-until-a-commit PORT`: then SIGKILL comes right after the
first transaction has committed. Receivers on this machine may be subscribed, tasks of Celery run at once, and what
sleeps between two attempts sleeps a hundredth of it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

from tests.support.loopback import allow_loopback


def main(folder: str, what: str, *arguments: str) -> None:
    sys.path[:0] = [folder]
    allow_loopback()
    shorten_sleeps()
    serve = serve_django if (Path(folder) / "manage.py").exists() else serve_fastapi
    if what.endswith(".py"):
        sys.argv = [what, *arguments]
        runpy.run_path(str(Path(folder) / what), run_name="__main__")
    else:
        serve(int(arguments[0]), die=what == "serve-until-a-commit")


def shorten_sleeps() -> None:
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds / 100)


def serve_fastapi(port: int, *, die: bool) -> None:
    import uvicorn
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    module: Any = __import__("shop")
    if celery := getattr(sys.modules["webhooks"], "celery", None):
        celery.conf.task_always_eager = True
    if die:
        event.listen(Session, "after_commit", lambda _: end())
    uvicorn.run(module.app, port=port, log_level="warning")


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def serve_django(port: int, *, die: bool) -> None:
    from django.core.wsgi import get_wsgi_application
    from django.db.backends.base.base import BaseDatabaseWrapper

    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    application = get_wsgi_application()
    commit = BaseDatabaseWrapper.commit
    if die:
        BaseDatabaseWrapper.commit = lambda self: (commit(self), end())
    make_server("127.0.0.1", port, application, server_class=Server).serve_forever()


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
