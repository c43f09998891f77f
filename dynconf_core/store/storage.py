"""The storage that machines share: a PostgreSQL database, named by the environment variable ``DYNCONF_STORAGE``.

It holds the claims of the stages (see ``dynconf_core.store.claim``) and the studies of the sweeps. Its URL may hold a password;
it is therefore read from the environment where it is needed, and neither passed as a parameter nor written anywhere. Messages
name the storage by ``shown``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from dynconf_core.errors import InputError

if TYPE_CHECKING:
    import psycopg

STORAGE = "DYNCONF_STORAGE"
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
TIMEOUT = 4
"""Seconds to wait for a connection."""
UNANSWERED = 30_000
"""Milliseconds after which a server that does not answer counts as gone."""
NOT_ANSWERING = "does not answer"
SILENCE = '{"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}'
"""The server ends the session of a machine that has not answered for a minute, and with it the machine's locks."""


class NotAnswering(InputError):
    """The storage does not answer, perhaps for a while only."""


def storage_url() -> str | None:
    """The URL of the storage in the form ``postgresql://...``; None if there is none.

    Raises:
        InputError: if the environment variable holds something else; the message does not repeat it.
    """
    given = os.environ.get(STORAGE, "").strip()
    if not given:
        return None
    parts = _parts(given)
    if parts is None:
        raise InputError(_misread())
    return "postgresql://" + given.partition("://")[2]


def for_sqlalchemy(url: str) -> str:
    """The storage's URL as SQLAlchemy and Optuna need it."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def shown(url: str) -> str:
    """The URL without its password and options: the user, host, port and database."""
    parts = _parts(url)
    if parts is None:
        return "a URL that cannot be read"
    user = f"{parts.username}@" if parts.username else ""
    name = parts.hostname or ""
    host = f"{f'[{name}]' if ':' in name else name}:{parts.port or 5432}" if name else ""
    return f"postgresql://{user}{host}{parts.path}"


def check_storage() -> None:
    """Check that the storage answers, if there is one; takes at most about five seconds.

    Raises:
        InputError: if it does not answer or refuses this user, or if psycopg is not installed.
    """
    url = storage_url()
    if url is not None:
        connect(url).close()


def connect(url: str, application: str = "dynconf") -> psycopg.Connection:
    """A new connection to the storage, in which every statement is a transaction of its own.

    Args:
        url: the storage's URL.
        application: how the server's administrators see the session.

    Raises:
        InputError: as ``check_storage``.
    """
    try:
        import psycopg
    except ImportError as error:
        raise InputError(f"{STORAGE} needs psycopg: run `pip install 'dynconf[cluster]'` or unset it.") from error
    try:
        connection = psycopg.connect(
            url, autocommit=True, connect_timeout=TIMEOUT, application_name=application, tcp_user_timeout=UNANSWERED
        )
        connection.execute("select set_config(name, value, false) from json_each_text(%s) as given(name, value)", (SILENCE,))
        return connection
    except psycopg.ProgrammingError:  # its text may hold a part of the password
        raise InputError(_misread()) from None
    except psycopg.Error as error:
        why = _why(url, str(error))
        raise (NotAnswering if NOT_ANSWERING in why else InputError)(why) from None


def _parts(url: str) -> SplitResult | None:
    """The parts of a PostgreSQL URL; None if it is none, or if a character of the password was taken for a separator."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    misread = "@" in parts.path or "@" in parts.query or parts.fragment or parts.path.count("/") != 1
    known = parts.scheme in SCHEMES and len(parts.path) > 1 and (parts.hostname or "host=" in parts.query)
    return parts if known and not misread else None


def _misread() -> str:
    special = "@ : / ? # % of a password as %40 %3A %2F %3F %23 %25"
    return f"{STORAGE} is not a URL of the form {FORM}: correct it, and write the characters {special}."


def _why(url: str, reason: str) -> str:
    """What a connection's failure means."""
    parts = _parts(url)
    assert parts is not None, "checked when it was read"
    database, user = unquote(parts.path[1:]), unquote(parts.username or "")
    at = f"the storage {shown(url)} ({STORAGE})"
    if "password" in reason or "authentication" in reason or f'role "{user}"' in reason:
        return f"{at} refuses the user {user!r}: correct the user and password."
    if f'database "{database}"' in reason and "pg_hba" not in reason:
        return f"{at} has no database {database!r} for this user: create it with `createdb {database}`."
    if "too many" in reason or "connection slots" in reason:
        return f"{at} has no connection left: raise the server's max_connections."
    told = (reason.strip().splitlines() or ["no reason given"])[0]
    for secret in filter(None, (parts.password, unquote(parts.password or ""))):
        told = told.replace(secret, "***")
    return f"{at} {NOT_ANSWERING} ({told}): start the server, or correct host and port."
