"""What the relay says of itself: log lines (logs.py), with secrets taken out of them (redaction.py)."""
