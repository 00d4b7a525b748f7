"""The command line: flags into a config, the config to `edgemeta.pipeline`, an error into one line and exit code 2."""

from __future__ import annotations

import argparse
import errno
import importlib
import keyword
import math
import os
import re
import sys
import types
import typing
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from edgemeta import __version__, config
from edgemeta.errors import EdgemetaError, flag, nearest
from edgemeta.processes import place
from edgemeta.terminal import RED, YELLOW, document, paint, painted
from edgemeta.types import Shape

COMMANDS: dict[str, type] = {
    "profile": config.Profile,
    "import": config.Import,
    "devices": config.Devices,
    "pick": config.Pick,
    "search": config.Search,
    "train": config.Train,
    "export": config.Export,
    "enroll": config.Enroll,
    "predict": config.Predict,
    "bench": config.Bench,
    "serve": config.Serve,
    "report": config.Report,
    "demo": config.Demo,
}
INTERRUPTED = 130
# What is wrong with a folder or its disk, and not with us.
OF_THE_PLACE = {
    getattr(errno, name) for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EISDIR", "ENOTDIR", "ENAMETOOLONG")
}
ADVICE = "see that its disk has room and that this user may read and write there, or name another"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for an error the user can mend, or 130 after Ctrl-C."""
    warnings.showwarning = lambda message, *rest: _complain("warning: ", str(message), YELLOW, at=place().rank)
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except EdgemetaError as error:
        _complain("edgemeta: ", str(error))
        return 2
    except KeyboardInterrupt:
        _complain("\nedgemeta: ", "interrupted; run the same command again to go on", YELLOW)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in OF_THE_PLACE:
            raise
        _complain("edgemeta: ", f"cannot use {error.filename or 'a file'}: {error.strerror}; {ADVICE}")
        return 2


def _run(argv: list[str]) -> int:
    parser = _parser(show_choices=bool({"-h", "--help"} & set(argv)))  # the registries import torch: seconds
    parsed, unknown = parser.parse_known_args(joined(argv))
    if unknown:
        what = f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown, parsed.command)}"
        _fail(" ".join([parser.prog, *filter(None, [parsed.command])]), what)
    flags = vars(parsed)
    command, toml, as_json = flags.pop("command"), flags.pop("config", None), flags.pop("json", False)
    if command is None:
        parser.print_help()
        return 2
    settings = config.read_toml(toml, command, COMMANDS) if toml else {}
    settings |= flags
    config.require_there(config.make(COMMANDS[command], settings))  # a mistake is told at once:
    from edgemeta import pipeline  # torch and its friends take seconds

    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        result = getattr(pipeline, f"{command}_" if keyword.iskeyword(command) else command)(**settings)
    if not place().rank:
        print(document(command, result.facts) if as_json else painted(str(result), sys.stdout))
    return 0


def _complain(who: str, what: str, colour: int = RED, at: int | None = None) -> None:
    """One line. Of several processes that torchrun started here, one speaks: what one of them has met, all know."""
    if not (place().local_rank if at is None else at):
        print(f"{paint(who.rstrip(), colour, sys.stderr)} {' '.join(what.split())}", file=sys.stderr)


def joined(argv: list[str]) -> list[str]:
    """`profile import` is a command of its own."""
    return argv[1:] if argv[:2] == ["profile", "import"] else argv


def _meant(unknown: Sequence[str], command: str | None) -> str:
    """The nearest flag of the command, where one was mistyped."""
    given = next((text.partition("=")[0] for text in unknown if text.startswith("--")), "")
    known = [flag(setting.name) for setting in fields(COMMANDS[command])] if command else []
    close = nearest(given, known) if given else ""
    return f"; {close}" if close.startswith("did you mean") else ""


def _parser(show_choices: bool) -> argparse.ArgumentParser:
    purpose = "Name a device, a budget and a few labelled examples; get an ONNX bundle that fits and keeps learning."
    parser = _Parser(prog="edgemeta", description=purpose, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"edgemeta {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, cls in COMMANDS.items():
        text = (cls.__doc__ or "").strip()
        command = commands.add_parser(name, help=text.split("\n")[0], description=text, allow_abbrev=False)
        help = "TOML file with any of the settings below; flags win over it"
        command.add_argument("--config", type=Path, metavar="FILE", help=help)
        help = "one JSON document on stdout and nothing else there; progress and warnings are on stderr as ever"
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=help)
        types_of = typing.get_type_hints(cls)
        for setting in fields(cls):
            _add(command, setting, types_of[setting.name], show_choices)
    return parser


def _add(parser: argparse.ArgumentParser, setting: Field, type_: Any, show_choices: bool) -> None:
    """One flag; what the user leaves out is not in the result, so a TOML file can set it."""
    options: dict[str, Any] = {"help": _help(setting, show_choices), "default": argparse.SUPPRESS, "dest": setting.name}
    name = flag(setting.name)
    if setting.metadata.get("positional"):
        parser.add_argument(nargs="?", metavar=setting.name.upper(), **options)
    elif type_ is bool:
        parser.add_argument(name, action=argparse.BooleanOptionalAction, **options)
    elif typing.get_origin(type_) is tuple:
        parser.add_argument(name, type=lambda text: tuple(re.split("[,x]" if type_ == Shape else ",", text)),
                            metavar="A,B,...", **options)  # fmt: skip
    elif typing.get_origin(type_) is typing.Literal:
        parser.add_argument(name, choices=typing.get_args(type_), **options)
    else:
        if (alone := setting.metadata.get("alone")) is not None:
            options |= {"nargs": "?", "const": alone}
        parser.add_argument(name, metavar=setting.metadata.get("metavar") or _metavar(type_), **options)


def _help(setting: Field, show_choices: bool) -> str:
    """What the setting is, its unit, its choices and its default."""
    default, registry = setting.default, setting.metadata.get("registry", "")
    text = setting.metadata.get("help", "")
    if unit := setting.metadata.get("unit"):
        text += f", in {unit}"
    if registry and show_choices:
        module, name = registry.split(":")
        text += f": {', '.join(getattr(importlib.import_module(module), name))}"
    if default not in (None, MISSING, math.inf, "", ()):
        text += f" (default: {_text(default)})"
    return text.replace("%", "%%")


def _metavar(type_: Any) -> str:
    arguments = typing.get_args(type_) if isinstance(type_, types.UnionType) else (type_,)
    return {Path: "PATH", int: "N", float: "X", str: "NAME"}.get(arguments[0], "VALUE")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text.replace(str(Path.home()), "~", 1) if isinstance(value, Path) else text


class _Parser(argparse.ArgumentParser):
    """argparse, but a wrong flag is one line with the nearest right one."""

    def error(self, message: str) -> typing.NoReturn:
        if wrong := re.match(r"(argument COMMAND: invalid choice: '(.*?)') \(", message):
            message = f"{wrong[1]}; {nearest(wrong[2], COMMANDS)}"
        _fail(self.prog, message)


def _fail(prog: str, message: str) -> typing.NoReturn:
    _complain(f"{prog}: ", f"{message}; see {prog} --help")
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main())
