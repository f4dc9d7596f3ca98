"""A shop on Django: an order and its event in one transaction, the outbox kept by `migrate` and shown in the admin.

DATABASE_URL=postgresql+psycopg://localhost/shop and DJANGO_SETTINGS_MODULE=examples.django_shop.settings tell where it
is; RELAY_ALLOW_NETWORKS=127.0.0.0/8 and RELAY_ALLOW_HTTP=true let its relay call this machine. Where `python -m django`
stands here, your project has `./manage.py`: `python -m django migrate`, `… runserver`, `… relay run`.
"""
