"""The explorer of the API: its description as a page that can be read without JavaScript, and tried with ours.

Nothing is loaded from elsewhere, and nothing stands inline, so the strictest Content-Security-Policy holds.
"""

from relay.web.explorer.explorer import router

__all__ = ["router"]
