"""The page of the command line, from the same settings that `edgemeta COMMAND --help` shows."""

from __future__ import annotations

import argparse

from edgemeta import cli

HEAD = """# Command line

Every setting of every command, as the program itself tells it. All of them can stand in a TOML file as well
(`--config FILE`), with underscores for dashes: at the top for every command that has it, or in a table with the
command's name. Flags win over the file. The exit code is 0, 2 with one line for what you can mend, or 130 after
Ctrl-C; the same command again goes on.

"""


def page() -> str:
    """Markdown with a section for each command."""
    parser = cli._parser(show_choices=True)
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    names = {name: "profile import" if name == "import" else name for name in commands.choices}
    contents = [f"- [`edgemeta {names[name]}`](#{_anchor(names[name])})" for name in commands.choices]
    sections = [_section(names[name], command) for name, command in commands.choices.items()]
    return HEAD + "\n".join(contents) + "\n\n" + "\n\n".join(sections) + "\n"


def _section(name: str, command: argparse.ArgumentParser) -> str:
    rows = [_row(action) for action in command._actions if "-h" not in action.option_strings]
    table = ["| setting | |", "| --- | --- |", *rows]
    return "\n".join([f"## edgemeta {name} {{ #{_anchor(name)} }}", "", command.description or "", "", *table])


def _row(action: argparse.Action) -> str:
    flags = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.metavar}`"
    choices = f"`{'`, `'.join(map(str, action.choices))}`" if action.choices else ""
    value = f" `{action.metavar}`" if action.metavar and action.option_strings else ""
    text = (action.help or "").replace("%%", "%").replace("|", r"\|")
    return f"| {flags}{value} | {text}{f'; one of {choices}' if choices else ''} |"


def _anchor(name: str) -> str:
    return name.replace(" ", "-")
