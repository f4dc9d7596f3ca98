"""The web face: the HTTP API, and the pages of dashboard and portal, in one ASGI application.

`app` makes it, `serving` runs it, `mounting` puts it into another application. `every_request` holds for each request,
`admission` bounds how many there are at once, `rate_limits` how many a token makes. `access` knows who calls the API,
`pages/visits` who visits a page, `pages/csrf` whether a page of ours sent a form. `database` opens the transaction of a
request, `idempotency` repeats an answer; `api`, `pages` and `portal` have routes.
"""
