"""TLS: the context of a service, and what is wrong with its certificates, found before anything is started."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostler_http.options import TlsOptions

_EXPIRED, _NOT_YET_VALID = 10, 9
_MAX_STEPS = 10


class TlsFault(Exception):
    """Raised when TLS cannot be set up; `option` is the option of the table `tls` that is at fault."""

    def __init__(self, option: str, text: str) -> None:
        super().__init__(text)
        self.option = option


def make_context(options: TlsOptions) -> ssl.SSLContext:
    """Return the context for accepted connections. Reads files; any thread.

    Raises:
        TlsFault: A file is missing or not valid, or the certificate does not fit the key, has expired or is not valid
            yet.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if options.minimum_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _read(options.certificate, "certificate")
    _load_key(context, options)
    if options.client_ca:
        _read(options.client_ca, "client_ca")
        try:
            context.load_verify_locations(options.client_ca)
        except ssl.SSLError:
            raise TlsFault("client_ca", f"{options.client_ca} contains no certificate in PEM") from None
        context.verify_mode = ssl.CERT_REQUIRED if options.client_required else ssl.CERT_OPTIONAL
    _check_validity(context, options.certificate)
    return context


def tls_faults(options: TlsOptions) -> Iterator[tuple[str, str]]:
    """Yield the option of the table `tls` and a sentence, if TLS cannot be set up with it."""
    key = options.key.get_secret_value()
    if key and not key.strip("*"):  # a check by somebody who cannot read the key: it is a placeholder
        return
    try:
        make_context(options)
    except TlsFault as fault:
        yield fault.option, str(fault)


def _read(path: str, option: str) -> None:
    if not path.startswith("/"):
        raise TlsFault(option, f'the path of the file, "{path}", is not absolute')
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise TlsFault(option, f"{path} cannot be read: {error.strerror}") from None


def _load_key(context: ssl.SSLContext, options: TlsOptions) -> None:
    # The library reads keys from files only; this one has no name, and only this process sees it.
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, options.key.get_secret_value().encode())
        context.load_cert_chain(options.certificate, f"/proc/self/fd/{descriptor}", password=_refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFault("key", f"does not belong to the certificate {options.certificate}") from None
        if _is_certificate(options.certificate):
            raise TlsFault("key", "is not a private key in PEM without a passphrase") from None
        raise TlsFault("certificate", f"{options.certificate} contains no certificate in PEM") from None
    except OSError as error:
        raise TlsFault("key", f"cannot be used: {error.strerror}") from None
    except _Passphrase:
        raise TlsFault("key", "has a passphrase; give a key without one, kept by its file's permissions") from None
    finally:
        os.close(descriptor)


class _Passphrase(Exception):
    """Raised when a key has a passphrase."""


def _refuse_passphrase() -> str:
    raise _Passphrase


def _is_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ssl.SSLError):
        return False
    return True


def _check_validity(server: ssl.SSLContext, certificate: str) -> None:
    """Shake hands with oneself, trusting this certificate alone: what then fails is its time, or its key."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    parties = [
        client.wrap_bio(back, there, server_side=False),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(_MAX_STEPS):
        for party in parties:
            try:
                party.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                if error.verify_code == _EXPIRED:
                    raise TlsFault("certificate", f"{certificate} has expired") from None
                if error.verify_code == _NOT_YET_VALID:
                    raise TlsFault("certificate", f"{certificate} is not valid yet") from None
                return  # its name or its purpose, of which clients judge
            except ssl.SSLError:
                return  # such as a client certificate that is required, and that this one has not
