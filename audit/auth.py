"""Who may read and who may erase: JSON Web Tokens (RFC 7519) with the claims sub, role, aud and exp.

| role     | may                                          |
| -------- | -------------------------------------------- |
| auditor  | read everything, the disclosed data included |
| operator | the same, and erase                          |
"""

from __future__ import annotations

import ipaddress
import time
from typing import Annotated, Final, Literal

import jwt
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from govern.errors import ConfigError, Forbidden, GovernError

Role = Literal["auditor", "operator"]
Algorithm = Literal["HS256", "EdDSA", "ES256", "RS256"]

ROLES: Final[tuple[Role, ...]] = ("auditor", "operator")
AUDIENCE: Final = "govern-audit"
#: RFC 7518 section 3.2: a key at least as long as the hash.
_HS256_BYTES: Final = 32


class Unauthorized(GovernError):
    """The caller did not say who it is, or not convincingly."""

    code = "unauthorized"
    http_status = 401


class Caller(BaseModel):
    """Who asks. Written into every access record."""

    model_config = ConfigDict(frozen=True)

    actor: Annotated[str, Field(min_length=1, max_length=200)]
    role: Role


class TokenKey(BaseModel):
    """What tokens are checked with: a shared secret (HS256) or a public key in PEM."""

    model_config = ConfigDict(frozen=True)

    algorithm: Algorithm = "HS256"
    key: SecretStr

    def check(self) -> None:
        """Raises ConfigError: the key is too short, or none of the algorithm."""
        secret = self.key.get_secret_value()
        if self.algorithm == "HS256":
            if len(secret.encode()) < _HS256_BYTES:
                raise ConfigError(
                    "token key for HS256",
                    why=f"it has {len(secret.encode())} bytes, and fewer than {_HS256_BYTES} can be guessed",
                    fix="openssl rand -hex 32",
                )
            return
        try:
            jwt.get_algorithm_by_name(self.algorithm).prepare_key(secret)
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            raise ConfigError(
                f"token key for {self.algorithm}", why=str(error), fix="give the public key in PEM"
            ) from error


def mint(key: TokenKey, caller: Caller, *, ttl_s: float) -> str:
    """A token for a caller. For HS256 only: with the others, whoever holds the private key mints.

    Raises:
        ConfigError: the key is of another algorithm, or too short.
    """
    key.check()
    if key.algorithm != "HS256":
        raise ConfigError(
            f"tokens under {key.algorithm}",
            why="govern holds the public key only",
            fix="let your identity provider issue them",
        )
    now = time.time()
    claims = {"sub": caller.actor, "role": caller.role, "aud": AUDIENCE, "iat": int(now), "exp": int(now + ttl_s)}
    return jwt.encode(claims, key.key.get_secret_value(), algorithm="HS256")


def caller_of(authorization: str | None, key: TokenKey) -> Caller:
    """The caller that an Authorization header names.

    Raises:
        Unauthorized: no bearer token, an invalid or expired one, one for another audience.
        Forbidden: a valid one without a known role.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized(
            "no bearer token", why="the audit log shows nothing to strangers", fix="send Authorization: Bearer <token>"
        )
    try:
        claims = jwt.decode(
            token.strip(),
            key.key.get_secret_value(),
            algorithms=[key.algorithm],
            audience=AUDIENCE,
            options={"require": ["exp", "sub", "aud"]},
        )
    except jwt.PyJWTError as error:
        raise Unauthorized(
            "bearer token", why=f"it is not valid: {error}", fix="ask for a new one (govern audit token)"
        ) from error
    role, actor = claims.get("role"), str(claims["sub"])
    known = next((one for one in ROLES if one == role), None)
    if known is None or not actor:
        raise Forbidden(
            f"role {role!r}", why=f"the audit log knows the roles {', '.join(ROLES)}", fix="ask for a token with one"
        )
    return Caller(actor=actor[:200], role=known)


def anonymous(client_host: str | None) -> Caller:
    """Whoever asks in the mode without authentication.

    Raises:
        Forbidden: the client is on another machine.
    """
    try:
        local = ipaddress.ip_address(client_host or "").is_loopback
    except ValueError:
        local = False
    if not local:
        raise Forbidden(
            "a client of another machine",
            why="this server runs without authentication, for this machine only",
            fix="start it with a token key",
        )
    return Caller(actor="anonymous", role="auditor")


def require(caller: Caller, role: Role) -> None:
    """Raises Forbidden: the caller has another role."""
    if caller.role != role:
        raise Forbidden(
            f"role {caller.role!r}", why=f"this needs the role {role!r}", fix=f"ask someone with the role {role!r}"
        )
