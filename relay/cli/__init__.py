"""The command line: each command parses, calls relay.operations or the daemon, and prints."""

from __future__ import annotations

import click

from relay.cli.lazy import LazyGroup

__all__ = ["cli"]

_COMMANDS = {
    "demo": ("relay.cli.demo:demo", "See it work: a shop, a relay that is killed, a verdict."),
    "dev": ("relay.cli.dev:dev", "Migrate, run and listen on this machine, for development."),
    "listen": ("relay.cli.listen:listen", "Receive webhooks here, verify and print them."),
    "migrate": ("relay.cli.migrate:migrate", "Create or update the schema outbox."),
    "run": ("relay.cli.run:run", "Deliver: the relay itself."),
    "serve": ("relay.cli.serve:serve", "The HTTP API, and the pages of dashboard and portal."),
    "status": ("relay.cli.status:status", "Tell what is stuck, why, and whether anything was lost."),
    "reconcile": ("relay.cli.reconcile:reconcile", "Was anything lost? Compare what matched with what there is."),
    "statistics": ("relay.cli.statistics:statistics_command", "What arrived, what failed, how long it took."),
    "subscriptions": ("relay.cli.subscriptions:subscriptions", "Who gets which events where."),
    "tenants": ("relay.cli.tenants:tenants", "How fast tenants are sent to, how long theirs is kept."),
    "events": ("relay.cli.events:events", "Show what happened: recorded events."),
    "catalogue": ("relay.cli.catalogue:catalogue", "Event types: what is declared of each, and seen."),
    "explain": ("relay.cli.explain:explain", "One event from record to receiver, and why."),
    "deliveries": ("relay.cli.deliveries:deliveries", "One event for one subscription: what is under way."),
    "dead-letters": ("relay.cli.dead_letters:dead_letters", "Show or purge what was given up."),
    "inbox": ("relay.cli.inbox:inbox", "Show what the application received from others."),
    "pause-all": ("relay.cli.sending_switch:pause_all", "Stop all sending, everywhere; recording goes on."),
    "resume-all": ("relay.cli.sending_switch:resume_all", "Send again after pause-all."),
    "adopt": ("relay.cli.adopt:adopt", "Send from a database that was copied."),
    "replay": ("relay.cli.replay:replay", "Deliver again: dead letters, deliveries, events."),
    "bulk": ("relay.cli.bulk:bulk", "Put back very many deliveries, at a rate."),
    "schemes": ("relay.cli.schemes:schemes", "How requests are signed: the schemes that are known."),
    "secrets": ("relay.cli.secrets:secrets", "The keys that secrets are sealed to."),
    "tokens": ("relay.cli.tokens:tokens", "Who may call the HTTP API, and what each may do."),
    "portal": ("relay.cli.portal:portal", "Links into the portal, for a tenant's own customers."),
    "capture": ("relay.cli.capture:capture", "Record what anybody does to a table, by a trigger."),
    "audit": ("relay.cli.audit:audit", "Who changed what, when, and what it was before."),
    "prune": ("relay.cli.prune:prune", "Delete what is older than its retention."),
    "erase": ("relay.cli.erase:erase", "Erase a tenant, a key or a person, with a receipt."),
    "url-check": ("relay.cli.url_check:url_check", "Would the relay send to this URL? If not, why not."),
    "config": ("relay.cli.config:config", "Each option, its value, and where it came from."),
    "completion": ("relay.cli.completion:completion", "Print the completion script for your shell."),
}

_HELP = """Deliver what applications record in their own transactions: signed webhooks from PostgreSQL.

\b
  relay migrate                      once, and after each update
  relay subscriptions add URL TYPE…  who gets what
  relay run                          deliver
  relay status                       what is stuck, why, was anything lost

The database is given by --database-url, RELAY_DATABASE_URL or DATABASE_URL.
Exit codes: 0 done, 1 not so or failed, 2 usage, configuration or schema, 3 database unreachable,
4 a dry run of subscriptions apply or catalogue push would change something."""

cli = LazyGroup(
    "relay",
    commands_at=_COMMANDS,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
click.version_option(package_name="outbox-relay", prog_name="relay", message="%(prog)s %(version)s")(cli)
