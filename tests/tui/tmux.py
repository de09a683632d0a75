"""`edgellm chat` in tmux: what a user types and sees, with nothing in between."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

_PATIENCE_S = 30.0  # only ever used up by a failure


def is_missing() -> bool:
    return shutil.which("tmux") is None


class Tmux:
    """A window of its own server. `home`: where chats and settings are."""

    def __init__(self, home: Path, *command: str, size: tuple[int, int] = (80, 24)) -> None:
        self._socket = f"edgellm-{os.getpid()}-{home.name}"
        self.home = home
        given = command or (sys.executable, "-m", "edgellm", "chat", "demo", "-n", "16")
        columns, rows = map(str, size)
        environ = {
            "EDGELLM_HOME": str(home),
            "TERM": "tmux-256color",
            "COLORTERM": "truecolor",
            "EDITOR": f"{sys.executable} {home / 'editor.py'}",
            "ESCDELAY": "25",
        }
        pairs = [part for name, value in environ.items() for part in ("-e", f"{name}={value}")]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows, *pairs,
                   "-c", str(home), *given)  # fmt: skip
        self._tmux("set-option", "-g", "set-clipboard", "on")
        self._tmux("set-option", "-g", "escape-time", "0")

    def keys(self, *keys: str) -> None:
        """As tmux calls them."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Letter by letter."""
        self._tmux("send-keys", "-l", text)

    def paste(self, text: str) -> None:
        """Bracketed, as terminals do."""
        subprocess.run(
            ["tmux", "-L", self._socket, "load-buffer", "-"], input=text.encode(), check=True
        )
        self._tmux("paste-buffer", "-p", "-d")

    def screen(self) -> str:
        """What is seen."""
        return self._tmux("capture-pane", "-p")

    def clipboard(self) -> str:
        """What was copied last, through OSC 52."""
        return self._tmux("show-buffer")

    def wait_for(self, *texts: str, gone: str = "") -> str:
        """Until all of `texts` are on the screen, and `gone` is not; the screen."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            screen = self.screen()
            words = " ".join(screen.replace("▌", " ").split())
            if all(text in words for text in texts) and not (gone and gone in words):
                return screen
            assert time.monotonic() < deadline, f"no {texts} in\n{screen}"
            time.sleep(0.05)

    def wait_until_over(self) -> str:
        """No reply is under way."""
        return self.wait_for("Enter send", gone="Esc stop")

    def pid(self) -> int:
        """Of the program in the window."""
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def is_alive(self) -> bool:
        """The window closes with its program."""
        command = ["tmux", "-L", self._socket, "has-session"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def wait_for_end(self) -> None:
        """The program has ended."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.is_alive():
            assert time.monotonic() < deadline, self.screen()
            time.sleep(0.05)

    def close(self) -> None:
        """Ends the program too."""
        command = ["tmux", "-L", self._socket, "kill-server"]
        subprocess.run(command, capture_output=True, check=False)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._socket, *arguments]
        environ = {key: value for key, value in os.environ.items() if key != "TMUX"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
        return done.stdout
