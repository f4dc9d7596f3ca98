"""Configuration: every option declared once, one order of sources, and no secret in any message."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from relay.config import sources
from relay.config.database_url import normalised, redacted
from relay.config.option import ConfigError
from relay.config.options import Config, config_table, options
from relay.config.sources import load

PASSWORD = "s3cret-pa55"
URL = f"postgresql://relay:{PASSWORD}@db:5432/shop"


def loaded(flags=None, environ=None, config_file=None):
    return load(flags or {}, environ or {}, config_file)


def toml(directory: Path, text: str, mode: int = 0o600) -> str:
    file = directory / "relay.toml"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return str(file)


@pytest.mark.field("F102")
class TestDangers:
    """What is dangerous and allowed is said once, when it is read."""

    @pytest.mark.parametrize(
        ("networks", "named"),
        [
            (
                "0.0.0.0/1,128.0.0.0/1",
                ["every address", "loopback", "private", "link-local (cloud metadata)"],
            ),
            ("0.0.0.0/2,64.0.0.0/2", ["loopback", "private", "shared (carrier NAT)"]),
            ("8.0.0.0/5", ["private"]),
            ("126.0.0.0/7", ["loopback"]),
            ("::/1,8000::/1", ["every address", "loopback", "private", "every IPv4 address, mapped"]),
            ("::ffff:0:0/96", ["every IPv4 address, mapped"]),
            ("64:ff9b::/96", ["every IPv4 address, by NAT64"]),
            ("2002:7f00::/24", ["every IPv4 address, by 6to4"]),
            ("169.254.0.0/16", ["cloud metadata services"]),
            ("169.254.169.254/32", ["cloud metadata services"]),
            ("fd00:ec2::/32", ["cloud metadata services"]),
        ],
    )
    def test_networks_that_open_more_than_one_are_named(self, networks, named):
        (warning,) = loaded({"allow_networks": networks}).warnings
        assert warning.startswith("allow_networks: opens more than one network: ")
        told = warning.partition(": opens more than one network: ")[2].partition(";")[0].split(", ")
        assert set(", ".join(named).split(", ")) <= set(told)

    def test_a_network_that_is_wanted_is_no_warning(self):
        for networks in (
            "127.0.0.0/8,::1/128",
            "10.1.0.0/16",
            "10.0.0.0/9,10.128.0.0/9",
            "fd12::/32",
            "8.8.8.0/24",
        ):
            assert loaded({"allow_networks": networks}).warnings == ()

    @pytest.mark.parametrize(
        ("name", "value", "secret"),
        [
            ("database_url", URL, True),
            ("database_url", "postgresql://relay@db/shop?password=s3cret-pa55", True),
            ("database_url", "postgresql://relay@db/shop", False),
            ("egress_proxy", f"http://user:{PASSWORD}@proxy.example.com:3128", True),
            ("egress_proxy", "http://proxy.example.com:3128", False),
        ],
    )
    def test_a_password_on_the_command_line_is_warned_of_and_the_better_way_named(self, name, value, secret):
        warnings = loaded({name: value}).warnings
        assert loaded(environ={f"RELAY_{name.upper()}": value}).warnings == ()
        assert bool(warnings) == secret
        for warning in warnings:
            assert warning.startswith(f"{name}: anyone on this machine can read a flag")
            assert f"RELAY_{name.upper()}_FILE" in warning
            assert PASSWORD not in warning


class TestOrderOfSources:
    def test_flag_then_variable_then_file_then_default(self, tmp_path):
        file = toml(tmp_path, "processes = 4\n")
        environ = {"RELAY_PROCESSES": "3"}
        assert loaded({"processes": "2"}, environ, file).config.processes == 2
        assert loaded({"processes": None}, environ, file).config.processes == 3
        assert loaded({}, {}, file).config.processes == 4
        assert loaded().config.processes == 1

    def test_each_value_knows_its_origin(self, tmp_path):
        file = toml(tmp_path, "drain_seconds = 5\n")
        origins = loaded({"processes": "2"}, {"RELAY_MAX_IN_FLIGHT": "9", "RELAY_CONFIG": file}).origins
        assert origins["processes"] == "flag --processes"
        assert origins["max_in_flight"] == "env RELAY_MAX_IN_FLIGHT"
        assert origins["drain_seconds"] == f"file {file}"
        assert origins["log_level"] == "default"

    def test_the_database_is_found_in_three_places_and_the_relays_own_goes_first(self, tmp_path):
        file = tmp_path / "url"
        file.write_text(URL + "-file\n")
        generic = {"DATABASE_URL": URL + "-generic"}
        assert loaded(environ=generic).config.database_url.reveal() == URL + "-generic"
        assert loaded(environ=generic | {"RELAY_DATABASE_URL": URL}).config.database_url.reveal() == URL
        in_file = loaded(environ=generic | {"RELAY_DATABASE_URL_FILE": str(file)})
        assert in_file.config.database_url.reveal() == URL + "-file"
        assert in_file.origins["database_url"] == "env RELAY_DATABASE_URL_FILE"

    def test_a_secret_given_twice_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="both RELAY_DATABASE_URL and RELAY_DATABASE_URL_FILE"):
            loaded(environ={"RELAY_DATABASE_URL": URL, "RELAY_DATABASE_URL_FILE": str(tmp_path)})

    def test_an_empty_variable_says_nothing(self):
        assert loaded(environ={"RELAY_PROCESSES": "", "RELAY_CONFIG": ""}).config.processes == 1

    def test_no_file_is_read_that_nobody_named(self, tmp_path, monkeypatch):
        toml(tmp_path, "processes = 4\n")
        monkeypatch.chdir(tmp_path)
        assert loaded().config.processes == 1


class TestRefusals:
    @pytest.mark.parametrize("text", ["0", "65", "-1", "two", "1.5", "1e9", "True", "٣", "9" * 30])
    def test_a_number_out_of_its_range_is_refused_by_name(self, text):
        with pytest.raises(ConfigError, match=r"processes \(env RELAY_PROCESSES\): .* from 1 to 64"):
            loaded(environ={"RELAY_PROCESSES": text})

    @pytest.mark.case("C16")
    def test_an_unknown_key_is_refused_with_a_suggestion(self, tmp_path):
        with pytest.raises(ConfigError, match=r"unknown key 'max-in-flights' \(did you mean max_in_flight\?\)"):
            loaded(config_file=toml(tmp_path, "max-in-flights = 1\n"))

    @pytest.mark.case("C16")
    def test_a_duplicated_key_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="is not TOML"):
            loaded(config_file=toml(tmp_path, "processes = 1\nprocesses = 2\n"))

    @pytest.mark.case("C16")
    @pytest.mark.parametrize(
        "line", ['processes = "2"', "processes = true", "allow_http = 1", "allow_networks = '::1'"]
    )
    def test_a_wrong_type_in_the_file_is_refused(self, tmp_path, line):
        with pytest.raises(ConfigError, match=line.partition(" ")[0]):
            loaded(config_file=toml(tmp_path, line))

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match=r"config: cannot read .*gone\.toml: No such file"):
            loaded(config_file=str(tmp_path / "gone.toml"))

    @pytest.mark.parametrize("kind", ["attempts", "resolutions"])
    def test_what_was_done_with_an_event_outlives_it(self, kind):
        name = f"{kind}_retention_days"
        with pytest.raises(ConfigError, match=rf"^{name}: 29 is less than events_retention_days \(30\)"):
            Config(**{name: 29})

    def test_a_network_is_told_apart_from_an_address_with_bits(self):
        with pytest.raises(ConfigError, match=r"allow_networks.*10\.0\.0\.1/8"):
            Config(allow_networks=("10.0.0.1/8",))

    @pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", ip_network("::/0")])
    def test_every_address_is_no_network_to_allow(self, network):
        with pytest.raises(ConfigError, match=r"allow_networks: .*/0 is every address; name only the networks"):
            Config(allow_networks=("10.0.0.0/8", network))

    @pytest.mark.parametrize("text", ["443,0", "65536", "https", "443-445", "443;80", "٤٤٣", "-1"])
    def test_a_port_that_is_none_is_refused(self, text):
        with pytest.raises(ConfigError, match=r"allow_ports \(env RELAY_ALLOW_PORTS\): .* from 1 to 65535"):
            loaded(environ={"RELAY_ALLOW_PORTS": text})

    @pytest.mark.case("C1")
    def test_no_database_names_the_ways_to_give_one(self):
        with pytest.raises(ConfigError, match="database_url: not set; give --database-url, RELAY_DATABASE_URL"):
            Config().conninfo()


class TestCleaning:
    @pytest.mark.case("C17")
    @pytest.mark.parametrize("text", ["3\n", "3\r\n", " 3 ", '"3"', "'3'", "\ufeff3"])
    def test_what_copying_leaves_behind_is_trimmed(self, text):
        assert loaded(environ={"RELAY_PROCESSES": text}).config.processes == 3

    @pytest.mark.case("C17")
    def test_a_line_break_inside_a_value_is_refused(self):
        with pytest.raises(ConfigError, match="RELAY_DATABASE_URL: holds a line break") as refused:
            loaded(environ={"RELAY_DATABASE_URL": f"{URL}\nmore"})
        assert PASSWORD not in str(refused.value)

    @pytest.mark.case("C17")
    def test_a_file_with_bom_and_crlf_is_read(self, tmp_path):
        file = tmp_path / "relay.toml"
        file.write_bytes(b"\xef\xbb\xbfprocesses = 3\r\nallow_networks = ['127.0.0.0/8']\r\n")
        config = loaded(config_file=str(file)).config
        assert (config.processes, config.allow_networks) == (3, (ip_network("127.0.0.0/8"),))

    def test_networks_are_separated_by_commas(self):
        networks = loaded({"allow_networks": "127.0.0.0/8, ::1/128,"}).config.allow_networks
        assert networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))

    def test_ports_are_separated_by_commas_or_a_list_of_numbers(self, tmp_path):
        assert loaded({"allow_ports": "443, 8443,"}).config.allow_ports == (443, 8443)
        file = toml(tmp_path, "allow_ports = [443, 8443]\n")
        assert loaded(config_file=file).config.allow_ports == (443, 8443)
        with pytest.raises(ConfigError, match="not a list of ports such as 443,8443"):
            loaded(config_file=toml(tmp_path, "allow_ports = 443\n"))


class TestSecretKey:
    KEYS = ("rsk_" + "A" * 43 + "=", "rsk_" + "B" * 42 + "A=")

    @pytest.mark.parametrize("separator", [",", ", ", " ", "\n", "\r\n", "\n\n"])
    def test_several_keys_stand_one_after_another(self, separator):
        text = separator.join(self.KEYS)
        for environ in ({"RELAY_SECRET_KEY": text}, {"RELAY_SECRET_KEY": f"{text}\n"}):
            assert [key.reveal() for key in loaded(environ=environ).config.secret_key] == list(self.KEYS)

    @pytest.mark.case("C17")
    @pytest.mark.parametrize("form", ["{}\n", "{}\r\n", "\ufeff{}", '"{}"', "'{}'\n", " {} "])
    def test_what_copying_leaves_behind_is_no_part_of_a_key(self, tmp_path, form):
        file = tmp_path / "key"
        file.write_text(form.format(self.KEYS[0]), encoding="utf-8", newline="")
        file.chmod(0o600)
        found = loaded(environ={"RELAY_SECRET_KEY_FILE": str(file)})
        assert [key.reveal() for key in found.config.secret_key] == [self.KEYS[0]]
        assert found.warnings == ()

    def test_each_key_may_stand_in_quotes(self):
        config = loaded(environ={"RELAY_SECRET_KEY": '"{}","{}"'.format(*self.KEYS)}).config
        assert [key.reveal() for key in config.secret_key] == list(self.KEYS)

    @pytest.mark.parametrize(
        "bad", ["A" * 43, "rsk_" + "A" * 42, "rsk_" + "Ä" * 43, "rsk_" + "A" * 20 + "\x01" + "A" * 22]
    )
    def test_what_is_no_key_is_refused_and_never_repeated(self, bad):
        for text in (bad, f"{self.KEYS[0]},{bad}"):
            with pytest.raises(ConfigError, match=r"^(secret_key|RELAY_SECRET_KEY)\b") as refused:
                loaded(environ={"RELAY_SECRET_KEY": text})
            assert "AAAA" not in str(refused.value)

    def test_a_file_of_toml_may_list_them(self, tmp_path):
        file = toml(tmp_path, f"secret_key = {list(self.KEYS)}\n")
        assert [key.reveal() for key in loaded(config_file=file).config.secret_key] == list(self.KEYS)
        with pytest.raises(ConfigError, match=r"secret_key .*not text"):
            loaded(config_file=toml(tmp_path, "secret_key = 7\n"))

    def test_it_is_redacted_everywhere(self):
        config = Config(secret_key=self.KEYS)
        (option,) = [option for option in options() if option.name == "secret_key"]
        assert option.text_of(config.secret_key) == "***,***"
        assert "AAAA" not in repr(config) + str(config) + f"{config.secret_key[0]}"

    @pytest.mark.case("C19")
    @pytest.mark.parametrize(("mode", "warns"), [(0o644, True), (0o604, True), (0o640, False), (0o400, False)])
    @pytest.mark.parametrize(("name", "text"), [("SECRET_KEY", KEYS[0]), ("DATABASE_URL", URL)])
    def test_a_file_that_anyone_may_read_warns(self, tmp_path, name, text, mode, warns):
        file = tmp_path / "secret"
        file.write_text(text)
        file.chmod(mode)
        warnings = loaded(environ={f"RELAY_{name}_FILE": str(file)}).warnings
        assert any(f"RELAY_{name}_FILE: anyone may read" in warning for warning in warnings) is warns

    def test_a_secret_that_an_engine_mounted_does_not_warn(self, tmp_path, monkeypatch):
        """Docker mounts them readable by all of the container, and nobody could change that."""
        monkeypatch.setattr(sources, "MOUNTED_SECRETS", tmp_path)
        file = tmp_path / "database_url"
        file.write_text(URL)
        file.chmod(0o444)
        assert loaded(environ={"RELAY_DATABASE_URL_FILE": str(file)}).warnings == ()

    def test_a_flag_warns_because_every_process_list_shows_it(self):
        (warning,) = loaded({"secret_key": self.KEYS[0]}).warnings
        assert warning == "secret_key: anyone on this machine can read a flag; use RELAY_SECRET_KEY_FILE"


class TestWarnings:
    @pytest.mark.case("C16")
    def test_unknown_variables_only_warn(self):
        environ = {"RELAY_PORT": "tcp://10.0.0.1:80", "RELAY_SERVICE_HOST": "10.0.0.1", "RELAY_PROCESES": "2"}
        (warning,) = loaded(environ=environ).warnings
        assert "RELAY_PORT" in warning
        assert "RELAY_PROCESES (did you mean RELAY_PROCESSES?)" in warning

    @pytest.mark.case("C19")
    @pytest.mark.parametrize(("mode", "warns"), [(0o644, True), (0o640, False), (0o600, False)])
    def test_a_readable_file_with_a_secret_warns(self, tmp_path, mode, warns):
        file = toml(tmp_path, f'database_url = "{URL}"\n', mode)
        assert any("chmod o-r" in warning for warning in loaded(config_file=file).warnings) is warns

    @pytest.mark.case("C19")
    def test_a_readable_file_without_secrets_does_not(self, tmp_path):
        assert loaded(config_file=toml(tmp_path, "processes = 2\n", 0o644)).warnings == ()


class TestDeclaration:
    def test_no_option_has_a_name_that_kubernetes_sets(self):
        taken = ("RELAY_PORT_", "RELAY_SERVICE")  # and RELAY_PORT itself, beside RELAY_PORT_8080_TCP and their like
        assert not [option.env for option in options() if f"{option.env}_".startswith(taken)]

    def test_the_table_lists_every_option_with_its_names(self):
        rows = {row["name"]: row for row in config_table()}
        assert set(rows) == set(Config.__dataclass_fields__)
        assert rows["max_in_flight"] == {
            "name": "max_in_flight",
            "flag": "--max-in-flight",
            "env": "RELAY_MAX_IN_FLIGHT",
            "default": "256",
            "meaning": "Deliveries under way at once, in each process.",
        }
        assert all(row["meaning"].endswith(".") for row in rows.values())

    def test_a_number_with_a_unit_has_it_in_its_name(self):
        counts = ("processes", "max_in_flight", "max_in_flight_per_endpoint", "portal_max_endpoints")
        units = ("_seconds", "_milliseconds", "_days", "_per_minute", *counts)
        numbers = [option.name for option in options() if type(option.default) is int]
        assert [name for name in numbers if not name.endswith(units)] == []

    def test_every_default_passes_its_own_check_and_nothing_can_change(self):
        config = Config()
        with pytest.raises(AttributeError):
            config.processes = 2


class TestDatabaseUrl:
    @pytest.mark.parametrize(
        "scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg", "POSTGRES"]
    )
    def test_every_usual_scheme_is_understood(self, scheme):
        config = Config(database_url=f"{scheme}://relay:p%40ss@db:5433/shop?sslmode=require")
        assert config.sqlalchemy_url().render_as_string().startswith("postgresql+psycopg://relay:***@")
        assert "password=p@ss" in config.conninfo()
        assert "sslmode=require" in config.conninfo()

    def test_what_libpq_knows_reaches_both(self):
        url = "postgresql://u@a:1,b:2/d?target_session_attrs=read-write"
        config = Config(database_url=url)
        assert "host=a,b" in config.conninfo()
        assert config.sqlalchemy_url().query["port"] == "1,2"
        assert "host=/run/pg" in Config(database_url="postgres:///d?host=/run/pg").conninfo()

    @pytest.mark.field("F61")
    def test_of_several_hosts_the_one_that_takes_writes_is_asked(self, monkeypatch):
        monkeypatch.delenv("PGTARGETSESSIONATTRS", raising=False)
        several, one = (Config(database_url=f"postgresql://{hosts}/d") for hosts in ("a:1,b:2", "a:1"))
        assert conninfo_to_dict(several.conninfo())["target_session_attrs"] == "read-write"
        assert several.sqlalchemy_url().query["target_session_attrs"] == "read-write"
        assert conninfo_to_dict(one.conninfo())["target_session_attrs"] == "primary"
        assert "target_session_attrs" not in one.sqlalchemy_url().query, "a command that reads may ask a standby"
        own = Config(database_url="postgresql://a,b/d?target_session_attrs=any")
        assert conninfo_to_dict(own.conninfo())["target_session_attrs"] == "any"

    @pytest.mark.field("F112")
    def test_the_encoding_is_always_utf8_and_no_other_may_be_asked_for(self):
        for query in ("", "?client_encoding=utf-8"):
            config = Config(database_url=f"postgresql://h/d{query}")
            assert conninfo_to_dict(config.conninfo())["client_encoding"] == "UTF8"
            assert config.sqlalchemy_url().query["client_encoding"] == "UTF8"
        with pytest.raises(ConfigError, match=r"client_encoding=SQL_ASCII .* remove it"):
            Config(database_url="postgresql://h/d?client_encoding=SQL_ASCII")

    @pytest.mark.field("F75")
    def test_a_password_that_changes_in_its_file_is_read_for_each_connection(self, tmp_path):
        file = tmp_path / "url"
        file.write_text("postgresql://u:first@h/d")
        config = load({}, {"RELAY_DATABASE_URL_FILE": str(file)}).config
        assert conninfo_to_dict(config.conninfo())["password"] == "first"
        file.write_text("postgresql://u:second@h/d\n")
        assert conninfo_to_dict(config.conninfo())["password"] == "second"
        assert config.sqlalchemy_url().query.get("password", config.sqlalchemy_url().password) == "second"
        file.write_text("half of a")
        assert conninfo_to_dict(config.conninfo())["password"] == "first", "what it had at the start, until it is whole"

    def test_a_dead_server_is_noticed_unless_the_url_says_otherwise(self):
        config = Config(database_url="postgres://h/d?connect_timeout=2")
        for parameters in (conninfo_to_dict(config.conninfo()), config.sqlalchemy_url().query):
            assert parameters["connect_timeout"] == "2"
            assert {"keepalives_idle", "keepalives_interval", "tcp_user_timeout"} <= parameters.keys()

    def test_the_url_gives_way_to_what_a_connection_must_be_called(self):
        config = Config(database_url="postgres://h/d?application_name=shop")
        assert "application_name=relay" in config.conninfo(application_name="relay")
        assert config.sqlalchemy_url(application_name="relay").query["application_name"] == "relay"

    @pytest.mark.case("C1")
    @pytest.mark.parametrize(
        "url",
        [
            f"mysql://u:{PASSWORD}@h/d",
            f"u:{PASSWORD}@h/d",
            f"postgres://u:x/{PASSWORD}@h/d",
            f"postgres://u:x@{PASSWORD}@h/d",
            f"postgres://u:%zz{PASSWORD}@h/d",
            f"postgres://u:{PASSWORD}@h:99999/d",
            f"postgres://u:{PASSWORD}@h/d?nonsense=1",
        ],
    )
    def test_a_bad_url_is_one_line_without_the_password(self, url):
        with pytest.raises(ConfigError, match=r"^database_url") as refused:
            loaded(environ={"DATABASE_URL": url})
        assert PASSWORD not in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_the_password_is_in_no_repr(self):
        assert PASSWORD not in repr(Config(database_url=URL))
        assert PASSWORD not in redacted(URL + f"?sslpassword={PASSWORD}")

    @given(st.text(alphabet="ab1:/?#@%[]&=\x00 é", max_size=20))
    def test_no_text_makes_anything_but_a_url_or_a_refusal_without_it(self, noise):
        for text in (noise, f"postgres://{noise}", f"postgres://user:{noise}{PASSWORD}{noise}@host/name"):
            assert PASSWORD not in _refusal(text)


def _refusal(text: str) -> str:
    """Return why the URL was refused, '' when it was not."""
    try:
        normalised(text)
    except ValueError as refusal:
        return str(refusal)
    return ""


def test_a_file_of_the_real_environment_is_read(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("RELAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RELAY_CONFIG", toml(tmp_path, "log_format = 'json'\n"))
    assert load().config.log_format == "json"
