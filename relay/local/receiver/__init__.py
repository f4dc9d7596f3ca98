"""Receivers on this machine, for development and the demo: a small HTTP server, and a listener that verifies."""
