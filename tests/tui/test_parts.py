"""The parts below the screen: files in messages, thinking, export, tools, settings, keys, commands,
the tree of a chat."""

from __future__ import annotations

import json
import os

import pytest
from edgellm.tui import attachments, commands, export, tools
from edgellm.tui.conversation import Conversation
from edgellm.tui.keys import KEYS, keymap, shown
from edgellm.tui.library import Library, Outcome
from edgellm.tui.messages import Call
from edgellm.tui.models_here import models_here
from edgellm.tui.settings import Settings, read_settings, write_settings
from edgellm.tui.thinking import Thinking, answer_of

from edgellm.errors import FormatError, InvalidArgumentError


def outcome(reply: str, root: str = "r") -> Outcome:
    return Outcome(reply, (1, 2), root, "demo", "stop", "figures", 0)


@pytest.fixture
def chat():
    library = Library(None)
    yield Conversation(library)
    library.close()


def say(chat: Conversation, message: str, reply: str) -> int:
    turn = chat.send(message)
    chat.end(turn.id, outcome(reply))
    return turn.id


# --- the tree ------------------------------------------------------------------------------------


def test_editing_and_trying_again_make_branches_and_destroy_nothing(chat):
    first = say(chat, "a", "A")
    second = say(chat, "b", "B")
    edited = chat.edit(second, "c")
    chat.end(edited.id, outcome("C"))
    again = chat.again(edited.id)
    assert [turn.message for turn in chat.branch] == ["a", "c"]
    assert chat.place(again.id) == (3, 3)
    assert chat.choose(again.id, -2)
    assert [turn.reply for turn in chat.branch] == ["A", "B"]
    assert not chat.choose(second, -1)
    below = say(chat, "d", "D")
    other = chat.edit(first, "z")
    assert [turn.id for turn in chat.branch] == [other.id]
    assert chat.choose(other.id, -1)
    assert chat.branch[-1].id == again.id  # the latest below
    chat.show(second)
    assert chat.branch[-1].id == below


def test_what_is_asked_has_the_branch_and_the_number_of_the_try(chat):
    say(chat, "a", "A")
    second = chat.send("b")
    chat.end(second.id, outcome("B"))
    third = chat.again(second.id)
    chat.system = "Be short."
    ask = chat.ask(third.id, "r")
    assert (ask.message, ask.attempt, ask.system) == ("b", 1, "Be short.")
    assert [(one.message["content"], one.reply) for one in ask.past] == [("a", "A")]
    assert ask.past[0].reply_ids == (1, 2)
    assert chat.ask(third.id, "another model").past[0].reply_ids is None
    assert chat.ask(third.id, "r").past[0] is chat.ask(third.id, "r").past[0]
    assert chat.ask(chat.edit(second.id, "x").id, "r").attempt == 0


def test_a_rewritten_reply_is_a_branch_without_tokens(chat):
    turn = say(chat, "a", "A")
    mine = chat.rewrite(turn, "mine")
    assert chat.branch == [mine]
    more = chat.ask(mine.id, "r", continues=True)
    assert more.begun is not None
    assert (more.begun.reply, more.begun.reply_ids, more.past) == ("mine", None, ())


def test_a_chat_comes_back_as_it_was(chat):
    say(chat, "a", "A")
    second = say(chat, "b", "B")
    chat.edit(second, "c")
    chat.choose(second, 0)
    same = Conversation(chat._library, chat.id)
    assert same.branch == chat.branch
    assert same.all_turns == chat.all_turns


def test_a_dropped_turn_is_gone_and_the_branch_before_is_back(chat):
    first = say(chat, "a", "A")
    again = chat.again(first)
    chat.drop(again.id, first)
    assert [turn.id for turn in chat.branch] == [first]
    assert chat.place(first) == (1, 1)


# --- thinking ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "thought", "answer"),
    [
        ("plain", "", "plain"),
        ("<think>\nhm\n</think>\n\nyes", "\nhm\n", "yes"),
        ("  <think>hm</think>yes", "hm", "yes"),
        ("hm</think>yes", "hm", "yes"),
        ("<think>never ends", "never ends", ""),
        ("<think>", "", ""),
        ("a <think>b</think> c", "a <think>b", " c"),
        ("yes</thin", "", "yes</thin"),
        ("<thin", "", "<thin"),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("", "", ""),
    ],
)
def test_thinking_is_split_off_wherever_the_pieces_are_cut(reply, thought, answer):
    for size in (1, 2, 3, 7, 100):
        thinking = Thinking()
        said = ""
        for at in range(0, len(reply), size):
            more, was_thinking = thinking.feed(reply[at : at + size])
            said = more if was_thinking else said + more
        said += thinking.end()
        assert (thinking.text, said.lstrip("\n")) == (thought, answer.lstrip("\n")), size
        assert thinking.answer.lstrip("\n") == answer.lstrip("\n")


def test_an_answer_is_copied_without_its_thinking():
    assert answer_of("<think>hm</think>\n\nyes\n") == "yes"


# --- files ---------------------------------------------------------------------------------------


def test_a_named_file_becomes_text_and_is_shown_as_a_line(tmp_path):
    (tmp_path / "a.md").write_text("one\n```\ntwo\n```\n")
    (tmp_path / "b c.txt").write_bytes(b"\xef\xbb\xbfthree\r\n")
    message = 'Compare @a.md, @"b c.txt" and me@home.org @missing.'
    sent = attachments.with_files(message, tmp_path)
    assert sent.startswith(message + "\n\n[file: a.md]\n````\none")
    assert "[file: b c.txt]\n```\nthree\n```" in sent
    assert attachments.without_files(sent) == message
    assert attachments.folded(sent) == message + "\n▸ a.md · 4 lines\n▸ b c.txt · 1 line"
    said = attachments.estimate(message, tmp_path, lambda text: len(text.split()))
    assert said == "a.md 4 tokens · b c.txt 1 tokens"


def test_files_that_are_no_text_are_refused_with_the_reason(tmp_path):
    (tmp_path / "bin").write_bytes(b"ab\xff")
    (tmp_path / "big").write_bytes(b"a" * (attachments.MAX_BYTES + 1))
    with pytest.raises(InvalidArgumentError, match="bin: not UTF-8 at byte 2"):
        attachments.with_files("@bin", tmp_path)
    with pytest.raises(FormatError, match="larger than 1,048,576 bytes"):
        attachments.with_files("@big", tmp_path)
    assert "not UTF-8" in attachments.estimate("@bin", tmp_path, len)


@pytest.mark.parametrize("name", ["\0", "x" * 5000, "//", "..", "~nobody-here/x", '""'])
def test_names_of_no_file_are_text(tmp_path, name):
    assert attachments.with_files(f"@{name}", tmp_path) == f"@{name}"


def test_paths_are_completed(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "CHAT.md").write_text("")
    (tmp_path / "data.txt").write_text("")
    (tmp_path / ".hidden").write_text("")
    assert attachments.completions("d", tmp_path) == ["data.txt", "docs/"]
    assert attachments.completions("docs/C", tmp_path) == ["docs/CHAT.md"]
    assert attachments.completions("", tmp_path) == ["data.txt", "docs/"]
    assert attachments.completions(".h", tmp_path) == [".hidden"]
    assert attachments.completions("missing/x", tmp_path) == []
    assert f"{tmp_path}/data.txt" in attachments.completions(f"{tmp_path}/d", tmp_path)


# --- export --------------------------------------------------------------------------------------


def test_export_writes_what_was_said_and_never_over_a_file(chat, tmp_path):
    first = say(chat, "a", "A\n```py\nx = 1\n```")
    say(chat, "b", "B")
    chat.edit(first, "z")
    chat.choose(first, 0)
    assert export.export(chat, tmp_path / "c.md", "md") == 2
    text = (tmp_path / "c.md").read_text()
    assert text.startswith("# a\n\n## You\n\na\n\n## demo\n\nA")
    assert "z" not in text
    assert export.export(chat, tmp_path / "c.json", "json") == 3
    turns = json.loads((tmp_path / "c.json").read_text())["turns"]
    assert [turn["message"] for turn in turns] == ["a", "b", "z"]
    assert export.export(chat, tmp_path / "last.json", "json", 1) == 1
    if os.name == "posix":
        assert (tmp_path / "c.md").stat().st_mode & 0o077 == 0
    with pytest.raises(InvalidArgumentError, match="is there already"):
        export.export(chat, tmp_path / "c.md", "md")
    with pytest.raises(FormatError, match="cannot be written"):
        export.export(chat, tmp_path / "none" / "c.md", "md")
    with pytest.raises(InvalidArgumentError, match="nothing was said"):
        export.export(Conversation(chat._library), tmp_path / "d.md", "md")


@pytest.mark.parametrize(
    ("reply", "blocks"),
    [
        ("none", []),
        ("```\na\n```\ntext\n~~~py\nb\n\nc\n~~~", ["a", "b\n\nc"]),
        ("````\n```\ninner\n```\n````", ["```\ninner\n```"]),
        ("```\nnever closed", ["never closed"]),
    ],
)
def test_blocks_of_code_are_counted(reply, blocks):
    assert export.code_blocks(reply) == blocks


@pytest.mark.parametrize(
    ("title", "name"),
    [("How do I?", "how-do-i.md"), ("../../etc", "etc.md"), ("", "chat.md"), ("东京", "东京.md")],
)
def test_file_names_are_harmless(title, name):
    assert export.file_name(title, "md") == name


# --- tools ---------------------------------------------------------------------------------------


@pytest.fixture
def box(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "in" / "a.txt").write_text("hello")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    return tools.toolbox(tmp_path / "in")


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("read_file", {"path": "a.txt"}, "hello"),
        ("read_file", {"path": "../secret"}, "is not in"),
        ("read_file", {"path": "link"}, "is not in"),
        ("read_file", {"path": "/etc/passwd"}, "is not in"),
        ("read_file", {"path": "."}, "is no file"),
        ("read_file", {"path": "a\0b"}, "error:"),
        ("read_file", {"path": 3}, "are texts"),
        ("read_file", {}, "takes path"),
        ("list_files", {"path": ""}, "a.txt"),
        ("list_files", {"path": "missing"}, "error:"),
        ("calculate", {"expression": "2 * (3 + 4) / 7 - -1"}, "3.0"),
        ("calculate", {"expression": "1 / 0"}, "division by zero"),
        ("calculate", {"expression": "9" * 400 + "*9" * 40}, "error: 'x'"),
        ("calculate", {"expression": "2 ** 99999"}, "only numbers"),
        ("calculate", {"expression": "__import__('os')"}, "only numbers"),
        ("calculate", {"expression": "(" * 400}, "no arithmetic"),
        ("calculate", {"expression": "True"}, "only numbers"),
        ("current_time", {}, ":"),
        ("rm", {"path": "/"}, "no function 'rm'"),
    ],
)
def test_tools_do_what_they_may(box, name, arguments, result):
    said = tools.run(Call(name, arguments), box)
    if result == "error: 'x'":
        assert said.isdecimal() or said.startswith("error")
    else:
        assert result in said


def test_tools_are_described_for_templates(box):
    for tool in box.values():
        function = tool.definition["function"]
        assert set(function["parameters"]["required"]) == set(tool.arguments)


# --- settings, keys, commands --------------------------------------------------------------------


def test_settings_come_back_and_people_may_edit_them(tmp_path):
    path = tmp_path / "made" / "chat.toml"
    assert read_settings(path) == Settings()
    chosen = Settings().changed(theme="light", vim=True, keys={"again": "f9"})
    write_settings(chosen, path)
    assert read_settings(path) == chosen
    path.write_text('theme = "dark"\n# mine\n[keys]\nhelp = "f12"\n')
    assert read_settings(path).keys == {"help": "f12"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('theme = "pink"', "theme must be dark or light"),
        ("them = 1", "them: no such setting"),
        ("vim = 1", "vim: must be like false"),
        ("[keys]\nrun = 'f9'", "no such key"),
        ("[keys]\nagain = 'f1'", "f1 is the key of again already"),
        ("[keys]\nagain = 1", "must be names and texts"),
        ("keys = 3", "must be names and texts"),
        ("theme = ", "cannot be read"),
        ("\x00", "cannot be read"),
        ("# " + "x" * 70_000, "larger than 64 KiB"),
    ],
)
def test_what_is_wrong_with_settings_is_said(tmp_path, text, words):
    path = tmp_path / "chat.toml"
    path.write_text(text)
    with pytest.raises(FormatError, match=words) as refused:
        read_settings(path)
    assert str(path) in str(refused.value)


def test_keys_are_one_each_and_shown_as_people_say():
    assert len(keymap({})) == len(KEYS)
    assert shown("ctrl+up,ctrl+p") == "Ctrl+↑ or Ctrl+P"
    assert shown("escape") == "Esc"


@pytest.mark.parametrize(
    ("line", "name", "rest"),
    [
        ("/help", "help", ""),
        ("/clear", "new", ""),
        ("/rename  a b ", "rename", "a b"),
        ("/system two\nlines", "system", "two\nlines"),
    ],
)
def test_commands_are_read(line, name, rest):
    found = commands.parse(line)
    assert found is not None
    assert (found[0].name, found[1]) == (name, rest)


@pytest.mark.parametrize("line", ["hello", "//etc is a folder", "", " /help"])
def test_messages_are_no_commands(line):
    assert commands.parse(line) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/hlep", "did you mean /help"),
        ("/", "no command /"),
        ("/help me", "takes nothing"),
        ("/attach", "needs PATH"),
        ("/" + "x" * 500, "no command"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(line, words):
    with pytest.raises(InvalidArgumentError, match=words):
        commands.parse(line)


def test_every_command_has_a_method_and_is_completed():
    from edgellm.tui.screens.slash import SlashCommands

    for command in commands.COMMANDS:
        assert callable(getattr(SlashCommands, command.method))
    assert commands.completions("mod") == ["model", "models"]


def test_models_say_whether_they_fit():
    (demo, *_) = models_here(1 << 40)
    assert (demo.name, demo.fits.split(",")[0]) == ("demo", "fits with 512 tokens of context")
    (demo, *_) = models_here(1 << 20)
    assert demo.fits.startswith("does not fit")
