"""What runs on a developer's machine only: the demo, `relay dev`, a verifying receiver, an embedded PostgreSQL."""
