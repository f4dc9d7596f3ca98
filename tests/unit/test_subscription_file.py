"""The plan of a file of subscriptions is a pure function; a bad file has a line for each fault, and no secret in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.secret import Secret
from outbox.subscriptions.fields import COLUMNS, SECRETS
from outbox.subscriptions.fingerprints import fingerprint_of, is_fingerprint_of
from outbox.subscriptions.managed import KnownSecret, StoredSubscription
from relay.operations.subscription_file.document import FileError, read_document
from relay.operations.subscription_file.plan import KEEP, SIGNING, Declared, GivenSecret, Plan, Step, plan_file
from relay.operations.subscription_file.references import Place

DEFAULTS = {one.name: one.default for one in COLUMNS}
MANAGERS = ("shop", "other")
TEXTS = st.sampled_from(["a" * 8, "b" * 8])
KIND = "authentication"
IDENTITIES = [(tenant, name) for tenant in ("", "acme") for name in ("a", "b", "c")]

a_column_change = st.fixed_dictionaries(
    {},
    optional={
        "timeout_seconds": st.sampled_from([15, 16]),
        "description": st.sampled_from(["", "x"]),
        "metadata": st.sampled_from([{}, {"n": "1"}]),
        "schedule_seconds": st.sampled_from([(), (1, 2)]),
        "ordered": st.booleans(),
    },
)


def columns_of(name: str, changed: dict[str, Any]) -> dict[str, Any]:
    return {**DEFAULTS, "url": "https://a.example/", "types": ("*",), "name": name, **changed}


@st.composite
def declared_lists(draw: Any) -> list[Declared]:
    found = draw(st.lists(st.sampled_from(IDENTITIES), unique=True))
    return [
        Declared(
            tenant=tenant,
            name=name,
            columns=columns_of(name, draw(a_column_change)),
            secrets={
                **{one.name: None for one in SECRETS},
                **{kind: draw(st.none() | TEXTS.map(given_secret)) for kind in (SIGNING, KIND)},
            },
            given={},
        )
        for tenant, name in found
    ]


@st.composite
def stored_lists(draw: Any) -> list[StoredSubscription]:
    found = draw(st.lists(st.sampled_from(IDENTITIES), unique=True))
    return [
        StoredSubscription(
            id=UUID(int=number),
            tenant=tenant,
            name=name,
            scheme="standard",
            managed_by=draw(st.sampled_from([None, *MANAGERS])),
            version=number,
            columns=columns_of(name, draw(a_column_change)),
            secrets=draw(
                st.fixed_dictionaries({SIGNING: TEXTS.map(known_secret)}, optional={KIND: TEXTS.map(known_secret)})
            ),
        )
        for number, (tenant, name) in enumerate(found, 1)
    ]


def given_secret(text: str) -> GivenSecret:
    return GivenSecret(Secret(text), "bearer", "from env X")


def known_secret(text: str) -> KnownSecret:
    return KnownSecret("bearer", clear=Secret(text))


def applied(plan: Plan, declared: list[Declared], stored: list[StoredSubscription]) -> list[StoredSubscription]:
    """What is stored when a plan was carried out: of each step's fields the declared value, and nothing else."""
    there = {(one.tenant, one.name): one for one in stored}
    wanted = {(one.tenant, one.name): one for one in declared}
    for number, step in enumerate(plan.steps, 100):
        key = (step.tenant, step.name)
        if step.action == "remove":
            del there[key]
        elif step.action in ("create", "change"):
            there[key] = carried_out(step, wanted[key], there.get(key), plan.manager, number)
    return list(there.values())


def carried_out(step: Step, one: Declared, was: StoredSubscription | None, manager: str, number: int) -> Any:
    fields = {change.field for change in step.changes}
    columns = columns_of(one.name, {}) if was is None else dict(was.columns)
    known = {SIGNING: known_secret("made")} if was is None else dict(was.secrets)
    columns |= {name: value for name, value in one.columns.items() if name in fields}
    for kind, secret in one.secrets.items():
        if ("secret" if kind == SIGNING else kind) in fields and (secret is not None or kind != SIGNING):
            known.pop(kind, None)
            known |= {kind: KnownSecret(secret.hint, clear=secret.text)} if isinstance(secret, GivenSecret) else {}
    return StoredSubscription(
        id=UUID(int=number) if was is None else was.id,
        tenant=one.tenant,
        name=one.name,
        scheme=one.scheme,
        managed_by=manager if was is None else was.managed_by,
        version=number,
        columns=columns,
        secrets=known,
    )


@given(declared_lists(), stored_lists(), st.booleans())
def test_what_was_planned_and_carried_out_leaves_nothing_to_plan(
    declared: list[Declared], stored: list[StoredSubscription], prune: bool
) -> None:
    plan, faults = plan_file("shop", declared, stored, prune=prune)
    if faults:
        return
    after = applied(plan, declared, stored)
    again, faults = plan_file("shop", declared, after, prune=prune)
    assert (again.is_empty, faults) == (True, ())
    there = {(one.tenant, one.name): one for one in after}
    for one in declared:
        assert there[one.tenant, one.name].columns == one.columns


@given(declared_lists(), stored_lists(), st.booleans())
def test_each_subscription_has_one_step_and_only_the_managers_own_go(
    declared: list[Declared], stored: list[StoredSubscription], prune: bool
) -> None:
    plan, faults = plan_file("shop", declared, stored, prune=prune)
    theirs = {(one.tenant, one.name) for one in stored if one.managed_by == "other"}
    wanted = {(one.tenant, one.name) for one in declared}
    mine = {(one.tenant, one.name) for one in stored if one.managed_by == "shop"}
    assert {(fault.tenant, fault.name) for fault in faults} == theirs & wanted
    steps = [(step.tenant, step.name) for step in plan.steps]
    assert sorted(steps) == sorted((wanted - theirs) | (mine - wanted))
    gone = {(step.tenant, step.name) for step in plan.steps if step.action in ("remove", "left")}
    assert gone == mine - wanted
    assert all((step.action == "remove") == prune for step in plan.steps if (step.tenant, step.name) in gone)


@given(declared_lists(), stored_lists())
def test_a_change_names_the_fields_that_differ_and_no_secret(
    declared: list[Declared], stored: list[StoredSubscription]
) -> None:
    plan, _ = plan_file("shop", declared, stored, prune=False)
    there = {(one.tenant, one.name): one for one in stored}
    wanted = {(one.tenant, one.name): one for one in declared}
    for step in plan.steps:
        if step.action == "change":
            one, was = wanted[step.tenant, step.name], there[step.tenant, step.name]
            fields = {change.field for change in step.changes} - {"secret", KIND}
            assert fields == {name for name in DEFAULTS if one.columns[name] != was.columns[name]}
            assert all(change.before != change.after for change in step.changes)
    assert "aaaaaaaa" not in repr(plan)
    assert "bbbbbbbb" not in repr(plan)


def test_keep_needs_something_to_keep() -> None:
    secrets = {**{one.name: None for one in SECRETS}, SIGNING: None, "headers": KEEP}
    one = Declared(tenant="", name="a", columns={**columns_of("a", {}), "url": KEEP}, secrets=secrets, given={})
    plan, faults = plan_file("shop", [one], [], prune=False)
    assert plan.is_empty
    assert [fault.problem.partition(":")[0] for fault in faults] == ["url", "headers"]


def test_a_scheme_changes_with_a_secret_of_its_own_and_never_to_none() -> None:
    stored = StoredSubscription(
        id=UUID(int=1), tenant="", name="a", scheme="standard", managed_by=None, version=1,
        columns=columns_of("a", {}), secrets={SIGNING: known_secret("a" * 8)},
    )  # fmt: skip

    def planned(scheme: str, secret: GivenSecret | None) -> tuple[list[str], list[str]]:
        secrets = {**{one.name: None for one in SECRETS}, SIGNING: secret}
        one = Declared(tenant="", name="a", scheme=scheme, columns=columns_of("a", {}), secrets=secrets, given={})
        plan, faults = plan_file("shop", [one], [stored], prune=False)
        changed = [change.field for step in plan.steps for change in step.changes]
        return changed, [fault.problem.partition(":")[0] for fault in faults]

    assert planned("github", given_secret("a" * 8)) == (["scheme", "secret"], [])
    assert planned("github", None) == ([], ["scheme"])
    assert planned("none", None) == ([], ["scheme"])


GOOD = 'name = "a"\nurl = "https://a.example/"\ntypes = ["*"]\n'
SECRET = "s3cret-in-the-file"
TABLES = {
    "name is missing": ('url = "https://a.example/"\ntypes = ["*"]', "subscription number 1: name: is missing"),
    "name is an id": (GOOD.replace('"a"', '"sub_1"'), "subscription number 1: name: 'sub_1' has the form of an id"),
    "url is missing": ('name = "a"\ntypes = ["*"]', "subscription a: url: "),
    "a type": (GOOD + 'timeout_seconds = "5"', "subscription a: timeout_seconds: '5' is not a whole number"),
    "a date": (GOOD + "description = 2026-01-01", "subscription a: description: must be a str, not date"),
    "a misspelt field": (GOOD + "timeout_second = 5", "'timeout_second': there is no such field; did you mean timeout"),
    "an id": (GOOD + 'id = "sub_1"', "subscription a: 'id': there is no such field"),
    "filter": (GOOD + 'filter = "{"', "subscription a: filter: is no JSON"),
    "two conditions": (GOOD + "filter = { payload = { a = { \"$x\" = 1 } } }", "subscription a: filter"),
    "tenant": (GOOD + "tenant = 5", "subscription a: tenant: must be a str"),
    "both tenants": (GOOD + 'tenant = "x"\nevery_tenant = true', "subscription a: every_tenant: excludes tenant"),
    "scheme": (GOOD + 'scheme = "nope"', "subscription a: scheme: choose one of"),
    "settings": (GOOD + "format_settings = { nope = 1 }", "subscription a: format_settings: 'nope' is no setting"),
    "a secret as text": (GOOD + f'secret = "{SECRET}"', "subscription a: secret: a secret does not belong in the file"),
    "a token as text": (
        GOOD + f'authentication = {{ type = "bearer", token = "{SECRET}" }}',
        "subscription a: authentication.token: a secret does not belong",
    ),
    "a header as text": (GOOD + f'headers = {{ X-Api-Key = "{SECRET}" }}', "headers.X-Api-Key: a secret does not"),
    "a key as text": (GOOD + f'tls = {{ client_key = "{SECRET}" }}', "tls.client_key: a secret does not belong"),
    "a URL that is one": (
        GOOD.replace("https://a.example/", f"https://hooks.slack.com/services/T0/{SECRET}"),
        "subscription a: url: holds a credential",
    ),
    "a URL with one": (GOOD.replace("example/", f"example/?token={SECRET}"), "subscription a: url: holds a credential"),
    "no variable": (GOOD + 'secret = { env = "NOT_SET" }', "secret: the environment variable NOT_SET is not set"),
    "a secret for a variable": (GOOD + f'secret = {{ env = "{SECRET}" }}', "secret: env must be the name of"),
    "an empty variable": (GOOD + 'secret = { env = "EMPTY" }', "secret: env EMPTY is empty"),
    "no file": (GOOD + 'secret = { file = "none.txt" }', "secret: the file 'none.txt' cannot be read: No such file"),
    "a directory": (GOOD + 'secret = { file = "." }', "secret: the file '.' cannot be read: Is a directory"),
    "two places": (GOOD + 'secret = { file = "a", env = "B" }', "subscription a: secret: is no reference"),
    "no secret of the scheme": (GOOD + 'secret = { env = "WEAK" }', "subscription a: secret: "),
    "no JSON": (GOOD + 'authentication = { env = "WEAK" }', "authentication: what the reference stands for is no JSON"),
    "a secret unsigned": (GOOD + 'scheme = "none"\nsecret = { env = "WEAK" }', "scheme: none signs nothing"),
}  # fmt: skip
PLACE = Place({"EMPTY": " ", "WEAK": SECRET}, Path(__file__).parent)


@pytest.mark.parametrize("case", TABLES)
def test_a_fault_names_file_table_and_field_and_quotes_no_secret(case: str) -> None:
    table, told = TABLES[case]
    with pytest.raises(FileError) as refused:
        read_document(f'manager = "shop"\n[[subscription]]\n{table}\n', "subs.toml", PLACE)
    (line,) = str(refused.value).splitlines()
    assert line.startswith("subs.toml: subscription ")
    assert told in line
    assert SECRET not in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'manager = "{SECRET}', "subs.toml: is no TOML: "),
        ('[[subscription]]\nname = "a"\nname = "b"', "subs.toml: is no TOML: Cannot overwrite a value"),
        ("x = " + "9" * 5_000, "subs.toml: is no TOML: a number has too many digits"),
        ("x = 1e99999999999999999999", "subs.toml: is no TOML: a number has too many digits"),
        ("x = " + "[" * 5_000, "subs.toml: is no TOML: nested too deeply"),
        ("", "subs.toml: manager: is missing"),
        ("manager = 1", "subs.toml: manager: 1 is no name"),
        ('manager = "shop"\nsubscriptions = 1', "subs.toml: 'subscriptions': there is no such key; did you mean"),
        ('manager = "shop"\nsubscription = 1', "subs.toml: subscription: write each as a table of its own"),
        ('manager = "shop"\n[subscription.a]\nb = 1', "subs.toml: subscription: write each as a table of its own"),
    ],
)  # fmt: skip
def test_a_file_as_a_whole_is_refused_in_a_line(text: str, told: str) -> None:
    with pytest.raises(FileError) as refused:
        read_document(text, "subs.toml", PLACE)
    assert str(refused.value).startswith(told)
    assert SECRET not in str(refused.value)


def test_every_fault_of_a_file_is_told_at_once() -> None:
    table = f"[[subscription]]\n{GOOD}"
    with pytest.raises(FileError) as refused:
        read_document(f'x = 1\n{table}timeout_seconds = 0\nordered = 1\n{table}{table}tenant = "b"\n', "f", PLACE)
    lines = str(refused.value).splitlines()
    assert [line.partition(" is ")[0] for line in lines[2:4]] == [
        "f: subscription a: timeout_seconds: 0",
        "f: subscription a: ordered: 1",
    ]
    assert lines[-1].startswith("f: subscription a: name: number 1 has it already")
    assert len(lines) == 5


def test_a_fingerprint_knows_its_text_and_no_other() -> None:
    made = fingerprint_of(SECRET)
    assert is_fingerprint_of(made, SECRET)
    assert not is_fingerprint_of(made, SECRET + " ")
    assert SECRET not in made
    assert fingerprint_of(SECRET) != made, "its salt is its own"
    assert not any(
        is_fingerprint_of(odd, SECRET) for odd in ("", "scrypt:1:", "scrypt:1:?:?", made.replace("1", "2", 1))
    )
