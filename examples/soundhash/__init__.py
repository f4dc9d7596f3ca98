"""SoundHash: finds audio in videos, for users of several tenants."""
