"""Starting the service: what its owner chose, checked; a socket; and the end, on a signal."""

from __future__ import annotations

import logging
import socket
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fednb.config import is_loopback
from fednb.errors import ConfigError, DataError, FednbError
from fednb.federation.online_words import OnlineServing
from fednb.policy.audit import AuditLog
from fednb.serving.agent_link import AgentLink
from fednb.serving.deployed import Deployed
from fednb.serving.openapi import Model
from fednb.serving.service import CAUSES, LOG, Rules, Service
from fednb.wire.keys import MemberHome

LEAST_TOKEN = 20  # characters


@dataclass(frozen=True)
class Options:
    """As on the command line."""

    home: Path
    model: Path
    fallback: Path | None = None
    falls_back_on: tuple[str, ...] = tuple(CAUSES)
    table: str | None = None
    reasons: int = 0
    host: str = "127.0.0.1"
    port: int = 0
    token: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout: float = 5.0
    refresh: float = 3600.0
    log_applicants: bool = False


def run(options: Options, ready: Callable[[str], None]) -> None:
    """Serve until told to stop. `ready` is called with the address. Raises ConfigError, FednbError."""
    try:
        import uvicorn

        from fednb.serving.http import app_of
    except ImportError:
        raise ConfigError("fednb serve needs further packages: pip install 'fednb[serve]'.") from None
    home = MemberHome.load(options.home)
    if home.kind != "party":
        raise ConfigError(f"{options.home} is the home of a {home.kind}; a service runs at the party with the label.")
    _check(options)
    deployed = Deployed.read(home.name, options.model, options.fallback)
    token = _token(options)
    request = deployed.request(table=options.table, reasons=options.reasons, refresh=options.refresh)
    agent = AgentLink(home.folder, home.name, request)
    try:
        serves = agent.begin()
    except DataError as error:  # of the files or the table: nothing that time would mend
        agent.close()
        raise ConfigError(str(error)) from None
    except FednbError:
        agent.close()
        raise
    rules = Rules(options.timeout, options.falls_back_on, options.log_applicants)
    service = Service(deployed, agent, AuditLog(home.folder / LOG, home.name), rules)
    try:
        listening = _listen(options)
        inside = _loopback(options.host)
        app = app_of(
            service,
            options.table,
            _model(deployed, serves, options),
            token=token,
            hosts=("localhost", "127.0.0.1", "[::1]", options.host) if inside else (),
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # paths say nothing, and addresses of callers are nobody's business
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
            timeout_graceful_shutdown=5,
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        scheme = "https" if options.certificate else "http"
        host, port = listening.getsockname()[:2]
        ready(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        service.close()


def _check(options: Options) -> None:
    unknown = sorted(set(options.falls_back_on) - set(CAUSES))
    if unknown:
        raise ConfigError(f"--fallback-on knows {', '.join(CAUSES)}, and not {', '.join(unknown)}.")
    if not 0.05 <= options.timeout <= 600:
        raise ConfigError("--timeout is from 0.05 to 600 seconds.")
    if options.refresh < 1:
        raise ConfigError("--refresh is a second or more.")
    if (options.certificate is None) != (options.key is None):
        raise ConfigError("--certificate and --key go together.")
    if not _loopback(options.host):
        if options.token is None:
            raise ConfigError(
                f"{options.host} can be reached from other machines: say with --token which file holds the token that "
                "callers must send, or bind to 127.0.0.1."
            )
        if options.certificate is None:
            raise ConfigError(
                f"{options.host} can be reached from other machines, and token and applicants would pass in plain "
                "text: give --certificate and --key, or bind to 127.0.0.1 behind a proxy that has them."
            )
    if options.certificate is not None and options.key is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{options.certificate} and {options.key} are no certificate and its key: {error}"
            ) from None


def _token(options: Options) -> str:
    """What callers must send; "" for nothing."""
    if options.token is None:
        return ""
    try:
        mode = options.token.stat().st_mode
        found = options.token.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{options.token} cannot be read as the file of a token.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{options.token} can be read by other users. Run: chmod 600 {options.token}")
    if len(found) < LEAST_TOKEN or not found.isprintable() or " " in found:
        raise ConfigError(
            f"{options.token} holds no token: one line of {LEAST_TOKEN} characters or more without spaces, such as "
            "`openssl rand -hex 32` writes."
        )
    return found


def _listen(options: Options) -> socket.socket:
    try:
        (family, *_, address) = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigError(f"cannot listen at {options.host}, port {options.port}: {error.strerror}.") from None


def _loopback(host: str) -> bool:
    return is_loopback(f"tcp://{f'[{host}]' if ':' in host else host}:1")


def _model(deployed: Deployed, serves: OnlineServing, options: Options) -> Model:
    version, fallback = deployed.version(), deployed.fallback_version()
    return Model(
        kind=version.kind,
        version=version.version,
        checksum=version.checksum,
        label=deployed.model.label,
        parties={party: len(names) for party, names in deployed.model.features.items()},
        features=deployed.features(serves.texts),
        meaning=serves.meaning,
        fallback=None
        if fallback is None
        else {"kind": fallback.kind, "version": fallback.version, "checksum": fallback.checksum},
        falls_back_on=sorted(options.falls_back_on) if fallback else [],
        overrides=deployed.overrides(),
        saved_with=deployed.model.fednb,
    )
