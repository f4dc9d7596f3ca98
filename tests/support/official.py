"""The libraries of Standard Webhooks, Svix, Stripe and GitHub, from PyPI and npm, as judges of what was sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import standardwebhooks.webhooks
import stripe
import svix.webhooks

from tests.support.npm import Npm


@dataclass(frozen=True)
class Case:
    """A message as a receiver has it. `headers` in lower case; the signature may be missing when it is asked for."""

    secret: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def told(self) -> dict[str, object]:
        """As JSON for another language."""
        return {"secret": self.secret, "headers": dict(self.headers), "body": base64.b64encode(self.body).decode()}


@dataclass(frozen=True)
class Judgement:
    """The signature a library would make, and the type of the event in the body if it accepted the message."""

    signature: str
    type: str | None


Judge = Callable[[Sequence[Case]], list[Judgement]]
"""A library that verifies and signs: what it says of each case."""


def from_pypi(scheme: str) -> Judge:
    """Return the library of this environment that stands for a scheme."""
    judge = {"standard": _standardwebhooks, "svix": _svix, "stripe": _stripe}[scheme]
    return lambda cases: [judge(case) for case in cases]


def from_npm(scheme: str, npm: Npm) -> Judge:
    """Return the library from npm that stands for a scheme."""
    script = _READ + {"standard": _STANDARDWEBHOOKS, "svix": _SVIX, "stripe": _STRIPE, "github": _OCTOKIT}[scheme]
    return lambda cases: [Judgement(**found) for found in npm.run(script, [case.told for case in cases])]


def _standardwebhooks(case: Case) -> Judgement:
    webhook = standardwebhooks.webhooks.Webhook(case.secret)
    at = datetime.fromtimestamp(int(case.headers["webhook-timestamp"]), UTC)
    signature = webhook.sign(case.headers["webhook-id"], at, case.body.decode())
    try:
        return Judgement(signature, webhook.verify(case.body, dict(case.headers))["type"])
    except standardwebhooks.webhooks.WebhookVerificationError:
        return Judgement(signature, None)


def _svix(case: Case) -> Judgement:
    webhook = svix.webhooks.Webhook(case.secret)
    at = datetime.fromtimestamp(int(case.headers["svix-timestamp"]), UTC)
    signature = webhook.sign(case.headers["svix-id"], at, case.body.decode())
    try:
        webhook.verify(case.body, dict(case.headers))
    except svix.webhooks.WebhookVerificationError:
        return Judgement(signature, None)
    return Judgement(signature, json.loads(case.body)["type"])


def _stripe(case: Case) -> Judgement:
    header = case.headers["stripe-signature"]
    at = int(header.removeprefix("t=").partition(",")[0])
    made = stripe.WebhookSignature.generate_signature_header(case.body.decode(), case.secret, at)
    signature = made.partition(",v1=")[2]
    try:
        stripe.WebhookSignature.verify_header(case.body, header, case.secret, tolerance=300)
    except stripe.SignatureVerificationError:
        return Judgement(signature, None)
    return Judgement(signature, json.loads(case.body)["type"])


_READ = """
const told = JSON.parse(require("fs").readFileSync(0));
const cases = told.map((one) => ({ ...one, bytes: Buffer.from(one.body, "base64") }));
const typeIn = (bytes) => JSON.parse(bytes).type;
"""
_STANDARDWEBHOOKS = """
const { Webhook, WebhookVerificationError } = require("standardwebhooks");
console.log(JSON.stringify(cases.map(({ secret, headers, bytes }) => {
  const webhook = new Webhook(secret), at = new Date(headers["webhook-timestamp"] * 1000);
  const signature = webhook.sign(headers["webhook-id"], at, bytes);
  try {
    return { signature, type: webhook.verify(bytes, headers).type };
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    return { signature, type: null };
  }
})));
"""
_SVIX = """
const { Webhook, WebhookVerificationError } = require("svix");
console.log(JSON.stringify(cases.map(({ secret, headers, bytes }) => {
  const webhook = new Webhook(secret), at = new Date(headers["svix-timestamp"] * 1000);
  const signature = webhook.sign(headers["svix-id"], at, bytes);
  try {
    webhook.verify(bytes, headers);
    return { signature, type: typeIn(bytes) };
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    return { signature, type: null };
  }
})));
"""
_STRIPE = """
const Stripe = require("stripe"), { webhooks } = new Stripe("sk_test_of_nobody");
console.log(JSON.stringify(cases.map(({ secret, headers, bytes }) => {
  const header = headers["stripe-signature"], timestamp = Number(header.split(",")[0].slice(2));
  const made = webhooks.generateTestHeaderString({ payload: bytes.toString(), secret, timestamp });
  const signature = made.split(",v1=")[1];
  try {
    return { signature, type: webhooks.constructEvent(bytes, header, secret).type };
  } catch (error) {
    if (error.type !== "StripeSignatureVerificationError") throw error;
    return { signature, type: null };
  }
})));
"""
# The middleware is what receivers use: it refuses a request that lacks one of GitHub's headers.
_OCTOKIT = """
const http = require("http");
async function judge({ secret, headers, bytes }, { Webhooks, createNodeMiddleware }) {
  const webhooks = new Webhooks({ secret, log: { debug() {}, info() {}, warn() {}, error() {} } });
  const seen = [];
  webhooks.onAny(({ id, name }) => seen.push([id, name]));
  const signature = await webhooks.sign(bytes.toString());
  const server = http.createServer(createNodeMiddleware(webhooks, { path: "/" }));
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const { host, "content-length": _, connection, ...sent } = headers;
  const options = { method: "POST", port: server.address().port, host: "127.0.0.1", headers: sent };
  const status = await new Promise((answered, failed) => {
    http.request(options, (answer) => { answer.resume(); answered(answer.statusCode); }).on("error", failed).end(bytes);
  });
  server.close();
  const accepted = status === 200 && seen.length === 1 && seen[0][0] === headers["webhook-id"];
  return { signature, type: accepted ? seen[0][1] : null };
}
(async () => {
  const octokit = await import(require.resolve("@octokit/webhooks"));
  const judged = [];
  for (const one of cases) judged.push(await judge(one, octokit));
  console.log(JSON.stringify(judged));
})();
"""
