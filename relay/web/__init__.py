"""The web face: the HTTP API, and the pages of dashboard and portal, in one ASGI application.

`app` makes it, `access` knows who calls, `database` opens the transaction of a request; `api` and `pages` have routes.
"""
