"""How a cluster is reached that asks who one is: TLS, a client's certificate, SASL."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl

from govern.errors import ConfigError

_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """What the query of a bus URL may say: `kafka://host:port?tls=true&sasl=SCRAM-SHA-512&user=...`.

    Attributes:
        tls: "true" or "false".
        ca: PEM file of the authorities that may have signed the brokers' certificates; "" = the system's.
        cert, key: PEM files of our own certificate and its key, where brokers ask for one.
        sasl: mechanism, one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; "" = none.
        user: our name with it.
        password_file: file whose first line is the password. There is no `password`: a URL shows in process lists.
    """

    tls: str = "false"
    ca: str = ""
    cert: str = ""
    key: str = ""
    sasl: str = ""
    user: str = ""
    password_file: str = ""

    @classmethod
    def of_query(cls, query: str, *, setting: str = "bus URL") -> Self:
        """
        Args:
            setting: what holds the URL, for errors.

        Raises:
            ConfigError: naming the part of the query that is wrong.
        """
        given = dict(parse_qsl(query, keep_blank_values=True))
        known = {field.name for field in fields(cls)}
        for name in given.keys() - known:
            raise _wrong(setting, name, "there is no such setting", f"use one of: {', '.join(sorted(known))}")
        access = cls(**given)
        if access.tls not in ("true", "false"):
            raise _wrong(setting, "tls", f"it is {access.tls!r}", "give true or false")
        if access.tls == "false" and (access.ca or access.cert or access.key):
            raise _wrong(setting, "tls", "certificates are given, but no TLS", "add tls=true")
        if bool(access.cert) != bool(access.key):
            raise _wrong(setting, "cert", "a certificate goes with its key", "give both cert and key")
        if access.sasl and access.sasl not in _MECHANISMS:
            raise _wrong(setting, "sasl", f"it is {access.sasl!r}", f"use one of: {', '.join(_MECHANISMS)}")
        if bool(access.sasl) != bool(access.user and access.password_file):
            raise _wrong(
                setting, "sasl", "a mechanism goes with a user and a password", "give sasl, user and password_file"
            )
        return access

    def options(self) -> Mapping[str, object]:
        """aiokafka's arguments; files are read now, so that a new connection follows a rotated secret.

        Raises:
            ConfigError: a file cannot be read.
        """
        options: dict[str, object] = {
            "security_protocol": ("SASL_" if self.sasl else "") + ("SSL" if self.tls == "true" else "PLAINTEXT")
        }
        try:
            if self.tls == "true":
                context = ssl.create_default_context(cafile=self.ca or None)
                if self.cert:
                    context.load_cert_chain(self.cert, self.key)
                options["ssl_context"] = context
            if self.sasl:
                options["sasl_mechanism"] = self.sasl
                options["sasl_plain_username"] = self.user
                options["sasl_plain_password"] = Path(self.password_file).read_text().splitlines()[0]
        except (OSError, IndexError) as error:  # an SSLError is an OSError
            raise ConfigError(
                "the bus URL's certificates or password",
                why=f"they cannot be read: {error}",
                fix="name PEM files with ca, cert and key, and a file with one line with password_file",
            ) from error
        return options


def _wrong(setting: str, name: str, why: str, fix: str) -> ConfigError:
    return ConfigError(f"{setting}, {name}", why=why, fix=fix)
