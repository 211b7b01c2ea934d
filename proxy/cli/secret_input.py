"""Secrets come from a prompt, a file or standard input, never from the command line: other users can read that."""

import sys
from pathlib import Path

import typer

from proxy.cli.command import Misused


def read_secret(what: str, file: str | None, option: str) -> str:
    """Return the secret in `file` (`-`: standard input), without the white space around it; without a file, ask.

    Raises `Misused` when there is none, or nobody to ask; `option` is what names the file.
    """
    if file is not None:
        return clean(what, read_text(file))
    if sys.stdin.isatty():
        return clean(what, typer.prompt(what, hide_input=True, err=True))
    raise Misused(f"{what}: nobody to ask; give {option} FILE, or {option} - for standard input")


def clean(what: str, text: str) -> str:
    """Return the secret in `text`; the message of `Misused` does not repeat it."""
    secret = text.strip()
    if not secret:
        raise Misused(f"{what}: is empty")
    if not secret.isascii() or not secret.isprintable():
        raise Misused(f"{what}: must be one line of printable ASCII")
    return secret


def read_text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise Misused(f"{file}: {reason}") from None
