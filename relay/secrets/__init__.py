"""The keys that open sealed secrets: keyring.py. Sealing anew what lies in clear or to an old key: resealing.py."""
