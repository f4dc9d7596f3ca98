"""n8n, as the application sees it: it verifies, and its workflow approves each demo by calling back."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import smtplib
import threading
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

from examples.receiver import receiver

TOLERANCE_SECONDS = 300
SMTP_PORT = os.environ.get("SMTP_PORT", "")
SECRET = os.environ.get("N8N_WEBHOOK_SECRET", "")


def generate_signature(body: bytes, secret: str) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def verify(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Check the signature and the timestamp, five minutes of tolerance; then run the workflow."""
    signed = hmac.compare_digest(generate_signature(body, secret), headers.get("x-webhook-signature-256", ""))
    sent_at = _time_of(headers.get("x-webhook-timestamp", ""))
    verified = signed and abs(time.time() - sent_at) <= TOLERANCE_SECONDS
    if verified:
        run_workflow(json.loads(body))
    return verified


def _time_of(text: str) -> float:
    return float(text) if text.isdecimal() else datetime.fromisoformat(text).astimezone(UTC).timestamp()


def run_workflow(message: Mapping[str, Any]) -> None:
    """Approve a demo whose approval is asked for, unless somebody approves it by hand; write e-mails of alarms."""
    data = message["data"]
    if message["event"].startswith("relay.") and SMTP_PORT:
        threading.Thread(target=send_alarm, args=(message["event"], data), daemon=True).start()
    if message["event"] == "approval_requested" and "lead_id" in data and os.environ.get("N8N_APPROVES") == "true":
        body = {"callback_id": f"demo-{data['id']}", "demo_id": data["id"], "approved": True}
        threading.Thread(target=call_back, args=("demo-approval", body), daemon=True).start()


def call_back(name: str, body: Mapping[str, Any]) -> None:
    """POST a signed callback to the application."""
    content = json.dumps(body).encode()
    headers = {
        "Content-Type": "application/json",
        "X-Webhook-Signature-256": generate_signature(content, SECRET),
        "X-Webhook-Timestamp": str(int(time.time())),
    }
    url = f"{os.environ['APPLICATION_URL']}/api/v1/webhooks/n8n/{name}"
    urllib.request.urlopen(urllib.request.Request(url, content, headers), timeout=30).close()


def send_alarm(event: str, data: Mapping[str, Any]) -> None:
    """E-mail whoever is on duty, as n8n's node Send Email does."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "n8n@leads.example", "duty@leads.example", f"{event}: {data['host']}"
    mail.set_content(json.dumps(data, indent=2))
    with smtplib.SMTP("127.0.0.1", int(SMTP_PORT), timeout=30) as server:
        server.send_message(mail)


app = receiver(verify, SECRET)
