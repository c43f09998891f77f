"""Asking a server that the user has named whether it answers, within seconds."""

import re
import ssl
import urllib.error
import urllib.request

SECONDS = 4.0
"""How long a server may take to answer."""
LONGEST = 4096


class NoCertificate(OSError):
    """The server answers over TLS with a certificate that this process cannot check; its client may be able to."""


def answer(address: str) -> tuple[int, bytes]:
    """The status and the beginning of what the server answers to a GET.

    Raises:
        NoCertificate: see there.
        OSError: if it refuses, is silent for ``SECONDS``, or does not speak HTTP; also for an address that is none.
    """
    address = re.sub(r"//[^/@]*@", "//", address)
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as found:
            return found.status, found.read(LONGEST)
    except urllib.error.HTTPError as error:
        return error.code, b""
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise NoCertificate(str(error.reason)) from None
        raise OSError(str(error.reason)) from None
    except OSError:
        raise
    except Exception as error:  # http.client.HTTPException, ValueError: no HTTP, no address
        raise OSError(f"{type(error).__name__}: {error}".strip().rstrip(":")) from None


def without_password(text: str) -> str:
    """The text, with asterisks for the passwords of the addresses in it."""
    return re.sub(r"(://[^:/@\s]*):[^/@\s]*@", r"\1:***@", text)
