"""aider: one message from the command line, in an empty folder without git; the answer is read from the history it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .client import Client, Command, Said, last_line

if TYPE_CHECKING:
    from .client import Output, Place

_QUIET: Final = (
    "--no-git",
    "--yes-always",
    "--no-check-update",
    "--analytics-disable",
    "--no-pretty",
    "--no-show-model-warnings",
    "--no-show-release-notes",
)


def _start(place: Place) -> Command:
    arguments = (str(place.bin / "aider"), "--model", f"openai/{place.case}", *_QUIET, "--message", "Tell me about the river.")
    return Command(arguments, {"OPENAI_API_BASE": place.url, "OPENAI_API_KEY": "x"})


def _read(output: Output) -> Said:
    history = output.home / ".aider.chat.history.md"
    if not history.exists():
        return Said("", f"exit code {output.code}: {last_line(output.stderr or output.stdout)}")
    # "#### the message", then the answer as it stands, and between > what aider itself says.
    _, _, answer = history.read_text("utf-8").partition("\n#### ")
    lines = answer.splitlines()[1:]
    errors = [line.removeprefix("> ").strip() for line in lines if line.startswith("> ") and "Error" in line]
    return Said("".join(line.strip() for line in lines if not line.startswith(">")), errors[0] if errors else "")


AIDER: Final = Client("aider", ("aider-chat==0.86.2",), _start, _read, interactive=True, call=None)
