"""What a relay does about a database that it cannot reach, before it runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from relay.config.database_url import LIBPQ_DEFAULTS
from relay.config.options import Config
from relay.process import startup


@pytest.mark.case("F5")
def test_a_host_that_never_answers_does_not_hold_up_the_start_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "WAIT_SECONDS", 0.0)
    monkeypatch.setitem(LIBPQ_DEFAULTS, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = Config(database_url=f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d")
        with pytest.raises(OperationalError, match="timeout"):
            startup.check_database(config)


@pytest.mark.case("C30")
@pytest.mark.parametrize("there", [True, False])
def test_a_machine_without_certificate_authorities_is_told_so(
    there: bool, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))
    if there:
        (tmp_path / "authorities.pem").write_text("")
    with caplog.at_level("WARNING", "relay"):
        startup.check_database(Config(database_url=database_url))
    assert ("no certificate authorities" in caplog.text) is not there
