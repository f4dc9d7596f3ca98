"""The relay's configuration: one frozen value, each option declared once, as a field of `Config`.

An option `x_y` is the flag `--x-y`, the environment variable `RELAY_X_Y` and the TOML key `x_y`. The first one given
wins: flag, environment (a secret may be in the file that `RELAY_X_Y_FILE` names), TOML file (`--config` or
`RELAY_CONFIG`), default. The database's address may also come from `DATABASE_URL`, after all of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from outbox.secret import Secret
from relay.config import kinds, portal_kinds
from relay.config.database_url import conninfo_of, sqlalchemy_url_of
from relay.config.option import ConfigError, Option, checked
from relay.config.secret_files import read_secret

if TYPE_CHECKING:
    from outbox.signing.schemes import SchemeDeclaration
    from relay.config.egress_proxy import EgressProxy
    from relay.config.kinds import Kind, Network

__all__ = ["Config", "config_table", "options", "options_of"]


Right = Literal["read", "write", "operate", "admin"]
RUN, SERVE, BOTH = ("run",), ("serve",), ("run", "serve")


def _option(kind: Kind, default: Any, meaning: str, commands: tuple[str, ...] = RUN) -> Any:
    return field(default=default, metadata={"kind": kind, "meaning": meaning, "commands": commands})


@dataclass(frozen=True, kw_only=True)
class Config:
    """The value of every option. Making one checks it; ConfigError names the refused value."""

    database_url: Secret = _option(  # noqa: RUF009 - a field
        kinds.database_url(),
        Secret(""),
        "PostgreSQL, postgresql://user:password@host:5432/name. Also read from DATABASE_URL.",
        BOTH,
    )
    secret_key: tuple[Secret, ...] = _option(
        kinds.private_keys(),
        (),
        "Private keys that open sealed secrets, newest first (`relay secrets keygen`). Better given as a file.",
        BOTH,
    )
    processes: int = _option(kinds.integer(1, 64), 1, "Processes that deliver.")
    max_in_flight: int = _option(kinds.integer(1, 10_000), 256, "Deliveries under way at once, in each process.")
    max_in_flight_per_endpoint: int = _option(
        kinds.integer(1, 10_000),
        64,
        "Of these, at most so many to one subscription, so that nobody waits for a slow one.",
    )
    drain_seconds: int = _option(
        kinds.integer(0, 3600),
        30,
        "After SIGTERM, how long to wait for requests under way, and for a slow database to store results.",
        BOTH,
    )
    allow_networks: tuple[Network, ...] = _option(
        kinds.networks(),
        (),
        "Networks that may be called besides the public internet, e.g. 127.0.0.0/8,10.1.0.0/16.",
        BOTH,
    )
    allow_ports: tuple[int, ...] = _option(
        kinds.ports(),
        (),
        "Ports that may be called, no others; empty: all but those of other protocols, such as 25.",
        BOTH,
    )
    allow_http: bool = _option(
        kinds.boolean(),
        False,  # noqa: FBT003
        "Allow endpoints without TLS (http://).",
        BOTH,
    )
    egress_proxy: EgressProxy | None = _option(  # noqa: RUF009 - a field
        kinds.egress_proxy(),
        None,
        "Proxy that every request goes through: http://, https:// or socks5://user:password@host:port. It must filter.",
        BOTH,
    )
    schemes: tuple[SchemeDeclaration, ...] = _option(
        kinds.schemes(),
        (),
        "Signature schemes of your own: tables `[schemes.NAME]`; as flag or variable, the TOML or JSON file with them.",
        BOTH,
    )
    keep_responses: Literal["failures", "all"] = _option(
        kinds.choice("failures", "all"),
        "failures",
        "Keep the response's headers and excerpt of failed attempts, or of all.",
    )
    asynchronous_commit: bool = _option(
        kinds.boolean(),
        False,  # noqa: FBT003
        "Relay commits do not wait for the disk. A crash of PostgreSQL then repeats deliveries, loses none.",
    )
    idle_poll_milliseconds: int = _option(
        kinds.integer(10, 10_000),
        250,
        "How long an idle relay rests between two looks, from ten minutes after the last event on.",
    )
    priority_step_seconds: int = _option(
        kinds.integer(1, 86_400),
        600,
        "How much earlier an event counts as due for each step of its priority (0 to 3).",
    )
    events_retention_days: int = _option(
        kinds.integer(1, 36_500), 30, "How long payloads of events with nothing left to deliver are kept."
    )
    attempts_retention_days: int = _option(
        kinds.integer(1, 36_500), 90, "How long the record of attempts is kept; at least as long as events."
    )
    resolutions_retention_days: int = _option(
        kinds.integer(1, 36_500),
        90,
        "How long it is kept how many subscriptions each event matched; as long as events.",
    )
    statistics_retention_days: int = _option(
        kinds.integer(1, 36_500),
        400,
        "How long statistics are kept by the day; by the hour for 40 days, by the minute for 26 hours at most.",
    )
    metrics_listen: kinds.ListenAddress | None = _option(  # noqa: RUF009 - a field
        kinds.address(optional=True),
        None,
        "Answer /live, /ready and /metrics there, e.g. 127.0.0.1:9464. To whoever asks: keep it in a private network.",
        BOTH,
    )
    ready_max_due_seconds: int = _option(
        kinds.integer(0, 31_536_000),
        0,
        "Not /ready while anything has been due for longer than this; 0: ready whatever is due.",
    )
    dead_letters_retention_days: int = _option(
        kinds.integer(0, 36_500), 0, "How long dead letters are kept; 0: until they are replayed or purged."
    )
    audit_retention_days: int = _option(
        kinds.integer(0, 36_500), 0, "How long the audit is kept, 30 days at least; 0: for good."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _option(
        kinds.choice("debug", "info", "warning", "error"),
        "info",
        "The least that is logged.",
        BOTH,
    )
    log_format: Literal["text", "json"] = _option(
        kinds.choice("text", "json"),
        "text",
        "Log lines for people, or one JSON object a line.",
        BOTH,
    )
    listen: kinds.ListenAddress = _option(  # noqa: RUF009 - a field
        kinds.address(), kinds.ListenAddress("127.0.0.1", 8080), "Where `relay serve` listens, host:port.", SERVE
    )
    requests_per_minute: int = _option(
        kinds.integer(1, 1_000_000), 600, "Requests that one token may make of each `relay serve` process.", SERVE
    )
    sign_in_header: str = _option(
        kinds.header_name(),
        "",
        "Header in which a proxy before `relay serve` names who signed in, such as X-Forwarded-Email; empty: none.",
        SERVE,
    )
    sign_in_proxies: tuple[Network, ...] = _option(
        kinds.networks(), (), "Proxies whose `sign_in_header` is believed, as networks: 10.0.0.5/32.", SERVE
    )
    sign_in_rights: tuple[Right, ...] = _option(
        kinds.choices("read", "write", "operate", "admin"),
        ("read",),
        "What whoever signs in by the proxy may do, for every tenant: read, write, operate, admin.",
        SERVE,
    )
    portal_url: str = _option(
        portal_kinds.base_url(),
        "",
        "Where customers reach the portal, https://hooks.example.com/portal; `relay portal link` makes links to it.",
        SERVE,
    )
    portal_name: str = _option(portal_kinds.title(), "Webhooks", "The portal's name, above its pages.", SERVE)
    portal_logo: str = _option(
        portal_kinds.logo(), "", "Its logo: a picture's file (512 KiB at most), or its https:// URL.", SERVE
    )
    portal_colours: tuple[str, ...] = _option(
        portal_kinds.colours(), (), "Its colour in light, and in dark; made legible where it is not.", SERVE
    )
    portal_language: str = _option(
        portal_kinds.language(), "en", "Its language: en, de, or the file of a translation (*.toml).", SERVE
    )
    portal_frame_ancestors: tuple[str, ...] = _option(
        portal_kinds.origins(), (), "Pages that may show it in an iframe, as origins: https://app.example.com.", SERVE
    )
    portal_types: tuple[str, ...] = _option(
        portal_kinds.patterns(), ("*",), "Event types that customers may subscribe to, as patterns.", SERVE
    )
    portal_filters: bool = _option(
        kinds.boolean(),
        False,  # noqa: FBT003
        "Let customers give their endpoints filters on payloads.",
        SERVE,
    )
    portal_descriptions: bool = _option(
        kinds.boolean(),
        False,  # noqa: FBT003
        "Show customers the description of each of their endpoints, and let them write it: their own words for it.",
        SERVE,
    )
    portal_max_endpoints: int = _option(
        kinds.integer(1, 1000), 20, "How many endpoints a tenant may have, for customers to add more.", SERVE
    )
    _database_url_file = ""  # no field, since it is no option

    def __post_init__(self) -> None:
        for option in options():
            object.__setattr__(self, option.name, checked(option, getattr(self, option.name), option.name))
        for name in ("attempts_retention_days", "resolutions_retention_days"):
            if getattr(self, name) < self.events_retention_days:
                raise ConfigError(
                    f"{name}: {getattr(self, name)} is less than events_retention_days "
                    f"({self.events_retention_days}); what was done with an event must outlive it: "
                    "raise the one or lower the other"
                )
        if self.sign_in_header and not self.sign_in_proxies:
            raise ConfigError(
                f"sign_in_header: {self.sign_in_header} could be sent by anybody; name the proxy that sends it with "
                "sign_in_proxies, such as 10.0.0.5/32"
            )

    def reading_again(self, database_url_file: str) -> Config:
        """Return this configuration, which reads the file of database_url again for each connection.

        Passwords are changed under a running relay.
        """
        object.__setattr__(self, "_database_url_file", database_url_file)
        return self

    def conninfo(self, **settings: str) -> str:
        """Return the conninfo for psycopg; `settings` (libpq parameters) override the URL."""
        return conninfo_of(self._required_database_url(), **settings)

    def sqlalchemy_url(self, **settings: str) -> Any:
        """Return the address as a SQLAlchemy URL on psycopg; `settings` as in `conninfo`."""
        return sqlalchemy_url_of(self._required_database_url(), **settings)

    def _required_database_url(self) -> str:
        if not self.database_url:
            raise ConfigError(
                "database_url: not set; give --database-url, RELAY_DATABASE_URL (or …_FILE) or DATABASE_URL"
            )
        return (self._reread_database_url() or self.database_url).reveal()

    def _reread_database_url(self) -> Secret | None:
        """Return what the file says now; None where there is none, or while it is being written."""
        if not self._database_url_file:
            return None
        (option,) = (option for option in options() if option.name == "database_url")
        try:
            value: Secret = checked(option, read_secret(option, self._database_url_file), option.env)
        except ConfigError:
            return None
        return value


def options() -> list[Option]:
    """Return every option, in the order of declaration."""
    return [Option(name=item.name, default=item.default, **item.metadata) for item in fields(Config)]


def options_of(command: Literal["run", "serve"]) -> list[Option]:
    """Return the options that are flags of this command."""
    return [option for option in options() if command in option.commands]


def config_table() -> list[dict[str, str]]:
    """Return name, flag, environment variable, default and meaning of every option as text."""
    return [
        {
            "name": option.name,
            "flag": option.flag,
            "env": option.env,
            "default": option.text_of(option.default),
            "meaning": option.meaning,
        }
        for option in options()
    ]
