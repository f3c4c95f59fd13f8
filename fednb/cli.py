"""The `fednb` command."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from fednb.errors import ConfigError, FednbError, NotConnected, PeerLost
from fednb.version import __version__

PRELOAD = ("fednb.models",)  # what coordinator cells find beside `fed`

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 1 (it failed), 2 (wrong file or arguments), 130 (interrupted)."""
    parsed = _parser().parse_args(arguments)
    try:
        code = int(parsed.run(parsed))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who read the output, `head` perhaps, has enough; nothing more is written to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ConfigError, NotConnected) as error:
        return _complain(error, WRONG)
    except FednbError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def _complain(error: Exception, code: int) -> int:
    print(f"fednb: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fednb",
        description="Notebooks whose cells run where the data lives, and models trained without showing it.",
    )
    parser.add_argument("--version", action="version", version=f"fednb {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    demo = command("demo", _demo, "Two organisations, one risk model: the demo, in JupyterLab or headless.")
    shown = demo.add_mutually_exclusive_group()
    shown.add_argument("--headless", action="store_true", help="execute the notebook and print the result as JSON")
    shown.add_argument("--members", action="store_true", help="start the members only, for a JupyterLab that is open")
    demo.add_argument("--rows", type=int, metavar="N", help="rows of the generated data (at least 2000)")

    up = command("up", _up, "Run a whole federation on this machine, each member its own process, until Ctrl-C.")
    up.add_argument("file", type=Path, metavar="FILE.toml", help="the federation file")
    up.add_argument(
        "--home", type=Path, metavar="DIR", help="where members' homes lie (default: .fednb beside the file)"
    )

    hub = command("hub", _hub, "Run the hub from its home folder.")
    hub.add_argument("home", type=Path, metavar="HOME")
    hub.add_argument("--bind", default="", metavar="ADDRESS", help="where to listen (default: as its home says)")
    hub.add_argument("--create", action="store_true", help="make the keys of a new hub first")
    hub.add_argument("--managed", action="store_true", help=argparse.SUPPRESS)

    party = command("party", _party, "Run one member, a party or the coordinator, from its home folder.")
    party.add_argument("home", type=Path, metavar="HOME")
    party.add_argument("--file", type=Path, metavar="FILE.toml", help="default: federation.toml in the home folder")
    party.add_argument("--sockets", type=Path, help=argparse.SUPPRESS)
    party.add_argument("--managed", action="store_true", help=argparse.SUPPRESS)

    _serve_arguments(command("serve", _serve, SERVE))

    doctor = command("doctor", _doctor, "Say which members of a federation are up, and how far away.")
    doctor.add_argument(
        "--escapes", action="store_true", help="only try every known way out of the sandbox that kernels run in"
    )
    runs = command("runs", _runs, "List the coordinator's runs, newest first.")
    for asking in (doctor, runs):
        asking.add_argument(
            "profile", nargs="?", help="a federation file, a member's home or a federation's name (default: the last)"
        )

    invite = command("invite", _invite, "Make a one-time invitation for a new member, at the hub.")
    invite.add_argument("name", metavar="NAME")
    invite.add_argument("--kind", choices=["party", "coordinator", "analyst"], default="party")
    invite.add_argument("--home", type=Path, default=Path("hub"), metavar="HOME", help="the hub's (default: hub)")
    invite.add_argument("--address", default="", metavar="ADDRESS", help="where members reach the hub")
    invite.add_argument("--hours", type=float, default=24.0, help="how long it is good (default: 24)")

    join = command("join", _join, "Enrol with an invitation: makes keys, and a home that knows the hub.")
    join.add_argument(
        "token",
        metavar="TOKEN",
        help="the invitation; - reads it from standard input, out of process lists",
    )
    join.add_argument("--home", type=Path, metavar="HOME", help="default: a folder of the member's name")

    members = command("members", _members, "Who is on a member's own roster, and with which keys.")
    members.add_argument("home", type=Path, metavar="HOME")
    members.add_argument(
        "action", nargs="?", default="list",
        choices=["list", "card", "add", "confirm", "revoke", "rotate", "switch", "retire"],
        help="rotate: make new keys; add: the card of one who did, too; switch: use them; retire: drop another's old",
    )  # fmt: skip
    members.add_argument("who", nargs="?", default="", help="confirm, revoke, retire: a name; add: a card")
    members.add_argument("fingerprint", nargs="?", default="", help="confirm, add: as its owner read it out")
    members.add_argument(
        "--days", type=float, default=7.0, help="add, of one who changes keys: how long the old are good (default: 7)"
    )

    inbox = command("inbox", _inbox, "What analysts ask an owner to approve: look, try, approve, deny, release.")
    inbox.add_argument("home", type=Path, metavar="HOME", help="the party's")
    inbox.add_argument(
        "action", nargs="?", default="list",
        choices=["list", "show", "try", "approve", "deny", "outputs", "release", "withhold"],
        help="try: run it on invented rows; outputs: what it said on the data; default: list what waits",
    )  # fmt: skip
    inbox.add_argument("id", nargs="?", default="", metavar="ID", help="of a request, or how it begins")
    inbox.add_argument(
        "--file", type=Path, metavar="FILE.toml", help="default: the one that the member was started with"
    )
    inbox.add_argument("--all", action="store_true", help="list: also what is decided and released")
    inbox.add_argument(
        "--times", type=int, default=1, metavar="N", help="approve: how often it may run (default: once)"
    )
    inbox.add_argument("--days", type=float, default=7.0, help="approve: for how long (default: 7)")
    inbox.add_argument("--until", metavar="DATE", help="approve: until the end of this day, as in 2030-01-31")
    inbox.add_argument("--release", action="store_true", help="approve: let outputs out without looking at them")
    inbox.add_argument("--save", type=Path, metavar="DIR", help="outputs: write text and pictures there instead")
    inbox.add_argument("--reason", default="", metavar="WHY", help="deny, withhold: the analyst is told")

    audit = command("audit", _audit, "Check, export or erase from a member's audit log.")
    audit.add_argument("action", choices=["verify", "export", "erase"])
    audit.add_argument("home", type=Path, metavar="HOME")
    audit.add_argument(
        "--witness", type=Path, action="append", default=[], metavar="FILE",
        help="verify, export: another member's audit/witnessed.jsonl, which holds heads of this log",
    )  # fmt: skip
    audit.add_argument("--scores", action="store_true", help="the log of fednb serve instead")
    audit.add_argument("--format", choices=["html", "json"], default="html", help="export: default html")
    audit.add_argument("--output", type=Path, metavar="FILE", help="export: default standard output")
    audit.add_argument("--text", metavar="DIGEST", help="erase: which cell's text or output, as in the log")
    audit.add_argument("--reason", metavar="WHY", help="erase: written into the log")

    policy = command("policy", _policy, "Say in words what a federation file lets analysts do, and ask for.")
    policy.add_argument("action", choices=["check"])
    policy.add_argument("file", type=Path, metavar="FILE.toml", help="the federation file; its tables are read")

    kernels = command("kernels", _kernels, "Put fednb's kernels, and its extension of JupyterLab, where Jupyter looks.")
    kernels.add_argument("action", choices=["install", "remove"], help="install or renew them; or take them away")
    where = kernels.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for this user (default outside a virtual environment)")
    where.add_argument("--sys-prefix", action="store_true", help="for this Python (default in a virtual environment)")
    where.add_argument("--prefix", type=Path, metavar="DIR", help="below another prefix")
    kernels.add_argument("--party", default="", metavar="NAME", help="also a kernel that opens on this party")
    kernels.add_argument("--profile", default="", metavar="FILE", help="that party's federation file or home")
    kernels.add_argument("--owner", type=Path, metavar="HOME", help="also a kernel with this member's inbox")
    return parser


SERVE = """\
Score single applicants over HTTP, at the party with the label: POST /v1/score, described at /docs.
It runs beside its member (fednb party, fednb up), which keeps keys, model and tables."""


def _serve_arguments(serve: argparse.ArgumentParser) -> None:
    serve.formatter_class = argparse.RawDescriptionHelpFormatter
    serve.epilog = (
        "Every answer has a status: federated (all parties took part), fallback (the own model answered) or refused.\n"
        "Each is written to HOME/scores before it leaves; fednb audit verify HOME --scores checks that log."
    )
    serve.add_argument("home", type=Path, metavar="HOME", help="of the party with the label; its member must be up")
    serve.add_argument("--model", type=Path, required=True, metavar="FILE", help="as model.save wrote it")
    serve.add_argument("--table", metavar="NAME", help="of the party's own, for applicants without features")
    serve.add_argument("--reasons", type=int, default=0, metavar="N", help="of a scorecard, by party, up to 4")
    serve.add_argument("--refresh", type=float, default=60.0, metavar="MINUTES", help="others' rows anew (default: 60)")
    missing = serve.add_argument_group("when another party is missing")
    missing.add_argument("--fallback", type=Path, metavar="FILE", help="a model of this party alone, as save wrote it")
    missing.add_argument(
        "--fallback-on", metavar="CAUSES",
        help="only for these: missing,preparing,timeout,refused,absent,data (default: all)",
    )  # fmt: skip
    missing.add_argument("--timeout", type=float, default=5.0, metavar="S", help="for one applicant (default: 5)")
    callers = serve.add_argument_group("callers")
    callers.add_argument("--host", default="127.0.0.1", help="other than loopback needs --token and --certificate")
    callers.add_argument("--port", type=int, default=8731, help="0: any free one (default: 8731)")
    callers.add_argument("--token", type=Path, metavar="FILE", help="mode 600; callers send what it holds")
    callers.add_argument("--certificate", type=Path, metavar="FILE", help="PEM, with its chain")
    callers.add_argument("--key", type=Path, metavar="FILE", help="the certificate's, PEM")
    serve.add_argument("--log-applicants", action="store_true", help="write ids and features into the log, too")


def _serve(parsed: argparse.Namespace) -> int:
    from fednb.federation import process
    from fednb.serving import run as serving

    options = serving.Options(
        home=parsed.home,
        model=parsed.model,
        fallback=parsed.fallback,
        table=parsed.table,
        reasons=parsed.reasons,
        host=parsed.host,
        port=parsed.port,
        token=parsed.token,
        certificate=parsed.certificate,
        key=parsed.key,
        timeout=parsed.timeout,
        refresh=60 * parsed.refresh,
        log_applicants=parsed.log_applicants,
    )
    if parsed.fallback_on is not None:
        options = dataclasses.replace(options, falls_back_on=tuple(parsed.fallback_on.split(",")))

    def ready(address: str) -> None:
        print(f"serving at {address}, described at {address}/docs", flush=True)

    return process.main(lambda: serving.run(options, ready), parsed.home.name, managed=False)


def _demo(parsed: argparse.Namespace) -> int:
    from fednb.demo import main as run_demo

    arguments = [f"--{name}" for name in ("headless", "members") if getattr(parsed, name)]
    if parsed.rows is not None:
        arguments += ["--rows", str(parsed.rows)]
    return int(run_demo(arguments))


def _up(parsed: argparse.Namespace) -> int:
    from fednb.federation import launch
    from fednb.federation.process import describe

    def terminated(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGINT too: a shell's background jobs ignore it
        signal.signal(number, terminated)
    try:
        with launch.up(parsed.file, parsed.home, ready=lambda line: print(describe(line), flush=True)) as running:
            print(
                f"All {len(running.members)} members are ready after {running.seconds:.1f} s. In a notebook: "
                "%load_ext fednb, then %fed connect. Ctrl-C stops them.",
                flush=True,
            )
            running.wait()
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return OK
    except PeerLost as error:
        return _complain(PeerLost(f"{error} All other members were stopped."), FAILED)
    return OK


def _hub(parsed: argparse.Namespace) -> int:
    from fednb.federation import process

    home: Path = parsed.home
    bind = parsed.bind
    if parsed.create:
        from fednb.wire import enrolment

        made = enrolment.create_hub(home)
        print(f"fingerprint of the new hub: {made.identity.fingerprint}", flush=True)
    if not bind:
        from fednb.wire.keys import MemberHome

        bind = MemberHome.load(home).hub_address
        if not bind:
            raise ConfigError(f"{home} does not say where to listen; use --bind tcp://HOST:PORT.")
    return process.main(lambda: process.run_hub(home, bind, managed=parsed.managed), home.name, parsed.managed)


def _party(parsed: argparse.Namespace) -> int:
    from fednb import config
    from fednb.federation import process

    home: Path = parsed.home
    file: Path = parsed.file or home / "federation.toml"

    def work() -> None:
        process.run_member(home, config.load(file), managed=parsed.managed, run_folder=parsed.sockets, preload=PRELOAD)

    return process.main(work, home.name, parsed.managed)


def _doctor(parsed: argparse.Namespace) -> int:
    if parsed.escapes:
        return _escapes()
    from fednb.crypto import backend
    from fednb.federation import spu_engine
    from fednb.federation.connect import connect
    from fednb.policy import sandbox

    # first what needs no federation, since there may be none
    print(f"encrypted arithmetic on this machine: {backend.describe()}")
    print(f"sandbox for kernels on this machine: {sandbox.describe()}")
    print(f"alignment by spu on this machine: {spu_engine.lacking() or 'possible'}", flush=True)
    with connect(parsed.profile) as federation:
        found = federation.doctor()
    print(found.to_string(index=False))
    if "inside" in found:
        inside = next(filter(None, found["inside"]))
        print(f"the coordinator runs in {inside}'s organisation: {inside} could read what others send it encrypted")
    needed = found[found["kind"] != "analyst"]
    down = list(needed[~needed["up"]]["member"])
    if down:
        print(f"fednb: down: {', '.join(down)}", file=sys.stderr)
        return FAILED
    return OK


def _escapes() -> int:
    """Each way out, without a sandbox and with each one that works here. Fails when one leads out, or none works."""
    from fednb.policy import bait, sandbox

    working = [backend for backend in sandbox.BACKENDS if not sandbox.missing(backend)]
    for backend in sandbox.BACKENDS:
        print(f"{backend}: {sandbox.missing(backend) or 'works'}")
    escaped = dict.fromkeys(working, 0)
    for name, outcomes in bait.attempts(working):
        words = [f"{backend}: {'ESCAPED' if outcomes[backend].escaped else 'held'}" for backend in working]
        free = "possible without" if outcomes[None].escaped else "declined to everybody here"
        print(f"  {name:<46} {free:<28} {'  '.join(words)}", flush=True)
        for backend in working:
            escaped[backend] += outcomes[backend].escaped
    for backend, count in escaped.items():
        print(f"{backend}: {count} escaped")
    return OK if working and not any(escaped.values()) else FAILED


def _runs(parsed: argparse.Namespace) -> int:
    from fednb.federation.connect import connect

    with connect(parsed.profile) as federation:
        found = federation.runs()
    print(found.to_string(index=False) if len(found) else "no runs yet")
    return OK


def _invite(parsed: argparse.Namespace) -> int:
    from fednb.wire.enrolment import Invitations
    from fednb.wire.keys import MemberHome

    if not 0 < parsed.hours <= 24 * 31:
        raise ConfigError("an invitation is good for some hours, a month (744) at most.")
    home = MemberHome.load(parsed.home)
    address = parsed.address or home.hub_address
    token = Invitations(home.folder).make(home, parsed.name, parsed.kind, address, parsed.hours * 3600)
    print(token.text)
    print(
        f"Give this line to {parsed.name}'s owner only; it is good once, for {parsed.hours:g} hours.", file=sys.stderr
    )
    print(f"Fingerprint of the hub, to be read out: {home.roster.hub.fingerprint}", file=sys.stderr)
    return OK


def _join(parsed: argparse.Namespace) -> int:
    from fednb.wire import enrolment

    typed: str = parsed.token
    token = enrolment.Token.parse(typed if typed.startswith(enrolment.PREFIX) else sys.stdin.readline().strip())
    folder = parsed.home or Path(token.name)
    home = enrolment.join(token, folder)
    print(f"{home.name} has enrolled; its home is {folder}. Compare by telephone, both ways:")
    print(f"  hub's fingerprint:  {home.roster.hub.fingerprint}")
    print(f"  {home.name}'s own:  {home.identity.fingerprint}")
    for name, member in enrolment.proposed(folder).items():
        print(f"  {name} ({member.kind}) is proposed: fednb members {folder} confirm {name} FINGERPRINT")
    return OK


def _members(parsed: argparse.Namespace) -> int:
    from fednb.wire import enrolment, rotation
    from fednb.wire.keys import MemberHome

    home = MemberHome.load(parsed.home)
    changed = "Running members take it up within a second or two."
    if parsed.action == "rotate":
        card = rotation.rotate(home)
        print(msgspec.json.encode(card).decode())
        print(f"fingerprint of the new keys, to be read out: {card.member.fingerprint}", file=sys.stderr)
    elif parsed.action == "switch":
        print(f"{home.name} uses the keys {rotation.switch(home).identity.fingerprint} now. {changed}")
    elif parsed.action == "retire":
        rotation.retire(home, parsed.who)
        print(f"the old keys of {parsed.who} are no longer good. {changed}")
    elif parsed.action == "add" and (succession := rotation.read_card(parsed.who)) is not None:
        if not 0 < parsed.days <= 366:
            raise ConfigError("old keys stay good for some days, a year at most.")
        rotation.succeed(home, succession, parsed.fingerprint, parsed.days)
        print(f"{succession.member.name} may use both keys for {parsed.days:g} days. {changed}")
    elif parsed.action == "card":
        print(enrolment.card(home))
        print(f"fingerprint, to be read out: {home.identity.fingerprint}", file=sys.stderr)
    elif parsed.action == "list":
        for state, found in (("confirmed", home.roster), ("proposed", enrolment.proposed(home.folder))):
            for name, member in found.items():
                # the fingerprint of proposed keys is not shown: it has to come from the other end
                print(f"{name:<20} {member.kind:<12} {member.fingerprint if state == 'confirmed' else state}", end="")
                print(f", then {member.successor.fingerprint}" if member.successor else "")
    elif parsed.action == "revoke":
        enrolment.revoke(home, parsed.who)
        print(f"{parsed.who} is off the roster. {changed}")
    else:
        if parsed.action == "add":
            member = enrolment.read_card(parsed.who)
        else:
            waiting = enrolment.proposed(home.folder)
            if parsed.who not in waiting:
                raise ConfigError(f"no keys of {parsed.who!r} wait to be confirmed; waiting: {', '.join(waiting)}.")
            member = waiting[parsed.who]
        enrolment.confirm(home, member, parsed.fingerprint)
        print(f"{member.name} is on the roster. {changed}")
    return OK


def _inbox(parsed: argparse.Namespace) -> int:
    from fednb.federation import quarantine
    from fednb.federation.inbox import describe, open_inbox
    from fednb.text import plain

    inbox = open_inbox(parsed.home, parsed.file)
    action: str = parsed.action
    if action == "list":
        found = inbox.requests(all=parsed.all)
        for each in found:
            print(f"{each.id}  {each.state:<12} {each.analyst:<16} {plain(each.reason, 60)}")
        if not found:
            print("nothing waits")
        return OK
    if not parsed.id:
        raise ConfigError(f"{action} needs the id of a request; fednb inbox {parsed.home} lists them.")
    if action == "show":
        print(describe(inbox.case(parsed.id)))
    elif action == "try":
        print(plain(inbox.dry_run(parsed.id), 200_000))
    elif action == "outputs":
        events = inbox.outputs(parsed.id)
        if parsed.save:
            print(*quarantine.save(events, parsed.save), sep="\n")
        else:
            print(quarantine.text(events))
    else:
        if action == "approve":
            done = inbox.approve(parsed.id, uses=parsed.times, days=_days(parsed), release=parsed.release)
        elif action == "release":
            done = inbox.release(parsed.id)
        else:
            done = (inbox.deny if action == "deny" else inbox.withhold)(parsed.id, parsed.reason)
        print(f"{done.id} is {done.state}")
    return OK


def _days(parsed: argparse.Namespace) -> float:
    """From now to the end of the day that was named."""
    if not parsed.until:
        return float(parsed.days)
    try:
        day = datetime.date.fromisoformat(parsed.until)
    except ValueError:
        raise ConfigError(f"{parsed.until!r} is no day; write it as in 2030-01-31.") from None
    end = datetime.datetime.combine(day + datetime.timedelta(days=1), datetime.time())
    return (end - datetime.datetime.now()) / datetime.timedelta(days=1)


def _policy(parsed: argparse.Namespace) -> int:
    from fednb import config
    from fednb.federation.policy_words import explain

    for line in explain(config.load(parsed.file)):
        print(line)
    return OK


def _audit(parsed: argparse.Namespace) -> int:
    from fednb.federation import audited
    from fednb.policy import audit, report
    from fednb.wire.keys import MemberHome

    home = MemberHome.load(parsed.home)
    log: audited.Log = "scores" if parsed.scores else "audit"
    folder = audited.folder(home, log)
    if parsed.action == "erase":
        if not parsed.text or not parsed.reason:
            raise ConfigError("erasing needs --text DIGEST (as in the log) and --reason WHY, which the log will keep.")
        audit.AuditLog(folder, home.name, home.identity.sign).erase(parsed.text, parsed.reason)
        print(f"erased {parsed.text}")
        return OK
    checked = audited.check(home, parsed.witness, log)
    found = checked.verdict
    if parsed.action == "export":
        content = (
            report.as_html(folder, home.name, found).encode()
            if parsed.format == "html"
            else report.as_json(folder, home.name, found)
        )
        if parsed.output is None:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            parsed.output.touch(mode=0o600)
            parsed.output.write_bytes(content)
    else:
        print(*checked.words(), sep="\n")
    for problem in found.problems:
        print(f"fednb: {problem}", file=sys.stderr)
    return FAILED if found.problems else OK


def _kernels(parsed: argparse.Namespace) -> int:
    from fednb.notebook import kernelspecs, labextension

    if parsed.profile and not parsed.party:
        raise ConfigError("--profile says where a party is; name the party with --party.")
    prefix = sys.prefix if parsed.sys_prefix else parsed.prefix and str(parsed.prefix.absolute())
    where = {"user": parsed.user, "prefix": prefix}
    if parsed.action == "remove":
        changed = [*kernelspecs.remove(**where), *labextension.remove(**where)]
    else:
        changed = [
            *kernelspecs.install(**where, party=parsed.party, profile=parsed.profile, owner=parsed.owner),
            labextension.install(**where),
        ]
    for folder in changed:
        print(folder)
    return OK


if __name__ == "__main__":
    sys.exit(main())
