"""The storage that machines share: its URL, what is shown of it, and what a command says at its start if it does not answer."""

from __future__ import annotations

import socket
import sys
import time

import pytest
from postgres import Postgres

from dynconf_core.errors import InputError
from dynconf_core.store import storage
from dynconf_core.store.storage import STORAGE, check_storage, for_sqlalchemy, shown, storage_url

PLAIN = "postgresql://anna:s3cret@db.lab:5433/points"


@pytest.mark.parametrize(
    "given", [PLAIN, PLAIN.replace("postgresql", "postgresql+psycopg"), PLAIN.replace("ql:", ":"), f" {PLAIN}\n"]
)
def test_the_url_is_read_in_each_of_its_forms(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, given)
    assert storage_url() == PLAIN
    assert for_sqlalchemy(PLAIN) == "postgresql+psycopg://anna:s3cret@db.lab:5433/points"
    assert shown(given.strip()) == "postgresql://anna@db.lab:5433/points"


def test_without_the_variable_there_is_no_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORAGE, raising=False)
    assert storage_url() is None
    check_storage()
    monkeypatch.setenv(STORAGE, " ")
    assert storage_url() is None


@pytest.mark.parametrize(
    "given",
    [
        "mysql://anna:s3cret@db.lab/points",
        "sqlite:///s3cret.db",
        "postgresql://anna:s3cret@db.lab",
        "postgresql://anna:s3cret@db.lab/",
        "postgresql://anna:s3cret@db.lab:port/points",
        "postgresql://anna:12/s3cret@db.lab/points",
        "postgresql://anna:12/s3cret@db.lab",
        "postgresql://anna:12?s3cret@db.lab/points",
        "postgresql://anna:12#s3cret@db.lab/points",
        "s3cret",
    ],
)
def test_another_url_is_refused_and_not_repeated(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password with unescaped separators ends up in other parts of a URL."""
    monkeypatch.setenv(STORAGE, given)
    with pytest.raises(InputError, match=f"{STORAGE} is not a URL of the form postgresql://USER:PASSWORD@HOST") as refused:
        storage_url()
    assert "s3cret" not in str(refused.value) and "s3cret" not in shown(given)


def test_options_are_kept_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, "postgresql:///points?host=/run/postgresql&password=s3cret")
    assert storage_url() == "postgresql:///points?host=/run/postgresql&password=s3cret"
    assert shown("postgresql:///points?host=/run/postgresql&password=s3cret") == "postgresql:///points"
    assert shown("postgresql://[::1]/points?sslmode=require") == "postgresql://[::1]:5432/points"


def refusal(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(STORAGE, url)
    begin = time.monotonic()
    with pytest.raises(InputError) as refused:
        check_storage()
    assert time.monotonic() - begin < 6
    return str(refused.value)


def test_a_server_that_works_is_accepted(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, postgres.url())
    check_storage()


def test_wrong_credentials_and_databases_are_named_without_the_password(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = f"postgresql://dynconf@127.0.0.1:{postgres.port}/dynconf"
    wrong = refusal(f"postgresql://dynconf:wr0ng@127.0.0.1:{postgres.port}/dynconf", monkeypatch)
    assert at in wrong and "refuses the user 'dynconf'" in wrong and "wr0ng" not in wrong
    nobody = refusal(postgres.url().replace("//dynconf:", "//nobody:"), monkeypatch)
    assert "refuses the user 'nobody'" in nobody and "secret" not in nobody
    missing = refusal(postgres.url("nothing"), monkeypatch)
    assert "has no database 'nothing'" in missing and "createdb nothing" in missing and "secret" not in missing


def test_a_server_that_is_not_there_is_named_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = refusal("postgresql://anna:s3cret@127.0.0.1:1/points", monkeypatch)
    assert "the storage postgresql://anna@127.0.0.1:1/points (DYNCONF_STORAGE) does not answer" in refused
    unknown = refusal("postgresql://anna:s3cret@nowhere.invalid/points", monkeypatch)
    assert "nowhere.invalid:5432" in unknown and "does not answer" in unknown
    undecodable = refusal("postgresql://anna:%zzs3cret@127.0.0.1/points", monkeypatch)
    assert "is not a URL of the form" in undecodable
    assert not any("s3cret" in text for text in (refused, unknown, undecodable))


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.TIMEOUT <= 5
    monkeypatch.setattr(storage, "TIMEOUT", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://anna:s3cret@127.0.0.1:{silent.getsockname()[1]}/points"
        assert "does not answer" in refusal(url, monkeypatch)


def test_a_missing_psycopg_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'dynconf[cluster]'" in refusal(PLAIN, monkeypatch)


def test_the_server_notices_a_machine_that_is_gone(postgres: Postgres) -> None:
    """Its own default is two hours, for which the machine's claims would be held."""
    with storage.connect(postgres.url()) as connection:
        idle, every, count = (
            int(row[0])
            for name in (b"idle", b"interval", b"count")
            if (row := connection.execute(b"show tcp_keepalives_" + name).fetchone()) is not None
        )
    assert 0 < idle + every * count <= 60
