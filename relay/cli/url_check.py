"""`relay url-check`: would the relay send to a URL? The sender's own parser and policy answer."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from outbox.errors import SubscriptionError
from outbox.subscriptions.addresses import literal_address
from outbox.subscriptions.url import parse_url
from relay.cli.options import config_option, flags_of, load_config
from relay.config.options import options
from relay.http.configured import make_policy
from relay.http.dial import DialError, checked_addresses
from relay.http.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from outbox.subscriptions.addresses import AddressPolicy
    from outbox.subscriptions.url import Url

    Judgement = tuple[bool, str]
    Judge = Callable[[Url], Judgement]

__all__ = ["url_check"]

RESOLVE_SECONDS = 10.0
_OPTIONS = [option for option in options() if option.name in ("allow_networks", "allow_http", "allow_ports")]


@click.command("url-check")
@click.argument("urls", nargs=-1, required=True, metavar="URL… | -")
@click.option("--resolve", is_flag=True, help="Look the name up too, and judge every address it has.")
@config_option
@flags_of(_OPTIONS)
def url_check(*, urls: tuple[str, ...], resolve: bool, config_file: str | None, **flags: Any) -> int:
    """Say whether the relay would send to a URL, and if not, why not. Nothing is sent, no database is asked.

    Prints one JSON object a line: {"url": as given, "allow": true or false, "reason": why}. With - it reads one
    JSON string a line from standard input and answers each line, broken ones too, as it comes.

    \b
    Without --resolve a name is judged as written; the relay judges its addresses each time it dials.
    Exit code: 0, or 1 when a URL given as an argument is refused.
    """
    if "-" in urls and len(urls) > 1:
        raise click.UsageError("- reads URLs from standard input and stands alone; give it no other")
    policy = make_policy(load_config(flags, config_file).config)
    judge: Judge = _resolving(policy) if resolve else _as_written
    if urls == ("-",):
        _print(_answers_to_lines(sys.stdin.buffer if sys.stdin else (), policy, judge))
        return 0
    return 0 if _print((url, _judgement(url, policy, judge)) for url in urls) else 1


def _print(answers: Iterable[tuple[str, Judgement]]) -> bool:
    """Print each answer as soon as it is there; return whether all were allowed."""
    every = True
    for url, (allow, reason) in answers:
        sys.stdout.write(json.dumps({"url": url, "allow": allow, "reason": reason}) + "\n")
        sys.stdout.flush()
        every = every and allow
    return every


def _answers_to_lines(lines: Iterable[bytes], policy: AddressPolicy, judge: Judge) -> Iterator[tuple[str, Judgement]]:
    for line in lines:
        url = _json_string(line)
        if url is None:
            yield _text_of(line), (False, 'the line is not one JSON string; write e.g. "https://example.com/hooks"')
        else:
            yield url, _judgement(url, policy, judge)


def _json_string(line: bytes) -> str | None:
    text = line.strip()
    if not text.startswith(b'"'):  # no string, so it is not parsed: it may be nested too deep
        return None
    try:
        value = json.loads(text.decode("utf-8"))
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _text_of(line: bytes) -> str:
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "backslashreplace")


def _judgement(text: str, policy: AddressPolicy, judge: Judge) -> Judgement:
    try:
        url = parse_url(text)
    except SubscriptionError as error:
        return False, str(error)
    refusal = policy.refusal_of_url(url)
    return (False, refusal) if refusal else judge(url)


def _as_written(url: Url) -> Judgement:
    if literal_address(url.host):
        return True, "the address may be dialled"
    return True, "the name may be resolved; its addresses are judged each time it is dialled"


def _resolving(policy: AddressPolicy) -> Judge:
    """Return a judge that resolves the host and checks every address, as the sender does before it dials."""

    async def addresses(host: str) -> str:
        resolver = Resolver()
        try:
            deadline = asyncio.get_running_loop().time() + RESOLVE_SECONDS
            return ", ".join(await checked_addresses(policy, resolver, host, deadline))
        finally:
            await resolver.close()

    def judge(url: Url) -> Judgement:
        try:
            return True, f"may be dialled at {asyncio.run(addresses(url.host))}"
        except DialError as error:
            return False, str(error)

    return judge
