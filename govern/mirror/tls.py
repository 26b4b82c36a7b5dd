"""TLS of the proxies, towards their clients and towards the model server.

Certificates are rotated under a running pod (cert-manager, a service mesh): the files are looked at every
`reload_s`, and connections made from then on use what lies there. TLS 1.2 is the least, ALPN offers the protocol of the
proxy.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from govern.errors import ConfigError

_log: Final = logging.getLogger(__name__)

HTTP_1: Final = "http/1.1"
HTTP_2: Final = "h2"


class TlsConfig(BaseModel):
    """The section `tls`. Without `cert` clients speak plain HTTP; without https in `upstream` so does the proxy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cert: Path | None = Field(default=None, description="PEM file: the proxy's certificate, then its issuers'.")
    key: Path | None = Field(default=None, description="PEM file: the private key of cert, not encrypted.")
    client_ca: Path | None = Field(
        default=None, description="PEM file of CAs: clients must show a certificate of one of them (mutual TLS)."
    )
    upstream_ca: Path | None = Field(
        default=None, description="PEM file of CAs that may vouch for the model server; none = those of the system."
    )
    upstream_name: str = Field(
        default="", description="The name in the model server's certificate, if it is not the host of upstream."
    )
    upstream_verify: bool = Field(
        default=True, description="Whether the model server's certificate is checked; off, anybody can pose as it."
    )
    upstream_cert: Path | None = Field(
        default=None, description="PEM file: the certificate that the proxy shows to the model server (mutual TLS)."
    )
    upstream_key: Path | None = Field(default=None, description="PEM file: the private key of upstream_cert.")
    reload_s: float = Field(default=10.0, gt=0, description="How often the files are looked at for new ones.")

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError(f"{'key' if self.key is None else 'cert'}: a certificate and its key go together")
        if (self.upstream_cert is None) != (self.upstream_key is None):
            missing = "upstream_key" if self.upstream_key is None else "upstream_cert"
            raise ValueError(f"{missing}: a certificate and its key go together")
        if self.client_ca is not None and self.cert is None:
            raise ValueError("client_ca: clients show a certificate only to a server that has one: give cert and key")
        return self

    @property
    def of_upstream(self) -> tuple[str, ...]:
        """Names of the fields that were set although they mean something for an https upstream only."""
        fields = type(self).model_fields
        return tuple(
            name for name in fields if name.startswith("upstream_") and getattr(self, name) != fields[name].default
        )


class Tls:
    """One side's TLS: a context that is kept up to date with its files.

    Raises:
        ConfigError: a file cannot be read, or is not what it should be.
    """

    def __init__(
        self, context: ssl.SSLContext, protocol: str, *, cert: Path | None, key: Path | None, ca: Path | None
    ) -> None:
        self.context = context
        self._cert = cert
        self._key = key
        self._ca = ca
        context.set_alpn_protocols([protocol])
        self._seen = self._stamps()
        try:
            self._load()
        except OSError as error:
            raise _unusable([path for path in (cert, key, ca) if path is not None], error) from error

    async def keep_fresh(self, every_s: float) -> None:
        """Take new files in when they change, until cancelled; files that do not fit leave the old ones in use."""
        while True:
            await asyncio.sleep(every_s)
            stamps = self._stamps()
            if stamps == self._seen:
                continue
            self._seen = stamps
            try:
                self._load()
            except OSError as error:
                _log.error("the old certificate stays in use: %s", _unusable(list(stamps), error))
            else:
                _log.info("certificates were read again: %s", ", ".join(str(path) for path in stamps))

    def _load(self) -> None:
        if self._cert is not None:
            # First into a context that nobody uses: a key that does not fit must not leave half a pair behind.
            ssl.SSLContext(self.context.protocol).load_cert_chain(self._cert, self._key, password=_no_password)
            self.context.load_cert_chain(self._cert, self._key, password=_no_password)
        if self._ca is not None:
            self.context.load_verify_locations(self._ca)

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        """What tells a file from its successor: Kubernetes swaps the folder behind it, others write it anew."""
        found = {}
        for path in (self._cert, self._key, self._ca):
            if path is not None:
                try:
                    stat = path.stat()
                except OSError:  # between two versions; reading it says what is wrong if it stays away
                    found[path] = (0, 0)
                else:
                    found[path] = (stat.st_ino, stat.st_mtime_ns)
        return found


def towards_clients(config: TlsConfig, protocol: str = HTTP_1) -> Tls | None:
    """The server's side; None = plain HTTP.

    Args:
        protocol: what ALPN settles on.

    Raises:
        ConfigError: a file cannot be read, or is not what it should be.
    """
    if config.cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if config.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return Tls(context, protocol, cert=config.cert, key=config.key, ca=config.client_ca)


def towards_upstream(config: TlsConfig, protocol: str = HTTP_1) -> Tls:
    """The client's side.

    Args:
        protocol: what ALPN settles on.

    Raises:
        ConfigError: a file cannot be read, or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not config.upstream_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.upstream_ca is None:
        context.load_default_certs()
    return Tls(context, protocol, cert=config.upstream_cert, key=config.upstream_key, ca=config.upstream_ca)


def _no_password() -> str:
    """OpenSSL asks for an encrypted key's password; without this it would ask at the terminal, and wait there."""
    raise OSError("the private key is encrypted")


def _unusable(paths: list[Path], error: OSError) -> ConfigError:
    named = ", ".join(str(path) for path in paths)
    absent = [str(path) for path in paths if not path.exists()]
    return ConfigError(
        f"tls: {named}",
        why=f"{', '.join(absent)} cannot be found" if absent else (error.strerror or str(error)),
        fix="give PEM files that the proxy may read: a certificate with the key that belongs to it, CAs for its peers",
    )
