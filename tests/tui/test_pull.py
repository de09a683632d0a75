"""Getting a model from within the chat, in tmux: from an index in a folder, and what is refused."""

from __future__ import annotations

import pytest

from tui.tmux import Tmux, is_missing

pytest.importorskip("cryptography")

from fleet.signing import index_of, publish, variant_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(is_missing(), reason="tmux is not installed"),
]


def pull(window: Tmux, line: str, *shown: str) -> None:
    """P, a line, and what the verb says; back on the screen of models."""
    window.keys("p")
    window.wait_for("OWNER/NAME on the hub")
    window.type(line)
    window.keys("Enter")
    window.wait_for(*shown, "Enter goes back to the chat")
    window.keys("Enter")


def test_models_are_pulled_from_an_index(demo_path, tmp_path):
    folder = tmp_path / "dist"
    folder.mkdir()
    variant = variant_of(folder, "demo", demo_path, None)
    publish(folder, index_of(("1.0.0", 100, variant)), None)
    index = f"--index {folder.as_uri()} --device pi"
    window = Tmux(tmp_path, size=(120, 30))
    try:
        window.wait_for("Write a message", "ready")
        window.keys("F3")
        window.wait_for("Models", "demo")
        pull(window, f"other {index}", "error:")
        window.wait_for("nothing was pulled: edgellm pull ended with")
        pull(window, f"m --index {folder.as_uri()}-not --device pi", "no such file")
        window.wait_for("nothing was pulled: edgellm pull ended with 3")
        pull(window, "m --nonsense", "No such option")
        window.wait_for("nothing was pulled: edgellm pull ended with 2")
        window.keys("p")
        window.wait_for("OWNER/NAME on the hub")
        window.type('m "')
        window.keys("Enter")
        window.wait_for("No closing quotation")
        good = (folder / variant.file.name).read_bytes()
        (folder / variant.file.name).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        pull(window, f"m {index}", "error:")
        window.wait_for("nothing was pulled: edgellm pull ended with 4")
        (folder / variant.file.name).write_bytes(good)

        # Ctrl+C is for the program that has the terminal.
        window.keys("p")
        window.wait_for("OWNER/NAME on the hub")
        window.type(f"m {index}")
        window.keys("Enter")
        window.wait_for("kitchen/m", "Enter goes back to the chat")
        window.keys("C-c")
        window.keys("Enter")
        window.wait_for("Models", "kitchen/m")
        window.keys("Escape")
        window.wait_for("Write a message")
        window.type("/model kitchen/m")
        window.keys("Enter")
        window.wait_for("goes on with this chat")
        window.keys("C-q")
        window.wait_for_end()
    finally:
        window.close()
