"""What the relay tells about itself: log lines (logs.py), with secrets redacted (redaction.py), from a thread
(writing.py)."""
