"""Open sealed secrets with the relay's private keys (keyring.py), and seal stored ones again (resealing.py)."""
