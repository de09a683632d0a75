"""One chat as the screen sees it: a tree of turns of which one branch is looked at. Every change is
written to the library before it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from edgellm.results import FinishReason
from edgellm.transcript import Exchange

from .library import ChatInfo, Library, Outcome, Turn
from .messages import Ask


class Conversation:
    """The chat `chat` of `library`; None: a new one. Turns are named by their ids."""

    def __init__(self, library: Library, chat: int | None = None) -> None:
        self._library = library
        self._chat = chat
        self._turns: dict[int, Turn] = {}
        self._children: dict[int | None, list[int]] = {}
        self._exchanges: dict[int, Exchange] = {}
        self._head: int | None = None
        self._system: str | None = None
        if chat is not None:
            info = library.chat(chat)
            self._system = info.system
            for turn in library.turns(chat):
                self._take(turn)
            self._head = info.head if info.head in self._turns else self._end_of(None)

    # --- what there is ------------------------------------------------------------------------

    @property
    def id(self) -> int:
        """The library's; a new chat gets one when it is first asked for."""
        if self._chat is None:
            self._chat = self._library.new_chat(system=self._system)
        return self._chat

    @property
    def info(self) -> ChatInfo | None:
        """None for a new chat of which nothing was written."""
        return None if self._chat is None else self._library.chat(self._chat)

    def has(self, chat: int) -> bool:
        """Whether it is that chat of the library."""
        return self._chat == chat

    @property
    def system(self) -> str | None:
        """The system prompt."""
        return self._system

    @system.setter
    def system(self, system: str | None) -> None:
        self._system = system
        if self._chat is not None:
            self._library.set_system(self._chat, system)

    @property
    def branch(self) -> list[Turn]:
        """From the first turn to the one that is looked at."""
        return self._branch_to(self._head)

    @property
    def head(self) -> Turn | None:
        """The last turn of the branch."""
        return None if self._head is None else self._turns[self._head]

    @property
    def all_turns(self) -> list[Turn]:
        """Of all branches, parents before children."""
        return sorted(self._turns.values(), key=lambda turn: turn.id)

    def turn(self, turn: int) -> Turn:
        """The one of that id."""
        return self._turns[turn]

    def place(self, turn: int) -> tuple[int, int]:
        """(which of its branches, counted from 1; how many there are)."""
        siblings = self._children[self._turns[turn].parent]
        return siblings.index(turn) + 1, len(siblings)

    # --- changes ------------------------------------------------------------------------------

    def send(self, message: str, role: str = "user") -> Turn:
        """A message at the end of the branch."""
        return self._add(self._head, message, role)

    def edit(self, turn: int, message: str) -> Turn:
        """Another message beside one that was sent, which stays as a branch."""
        return self._add(self._turns[turn].parent, message, "user")

    def again(self, turn: int) -> Turn:
        """Another reply to the same message, beside the one that is there."""
        old = self._turns[turn]
        return self._add(old.parent, old.message, old.role)

    def rewrite(self, turn: int, reply: str) -> Turn:
        """Another text of the reply by the user, beside the one that is there."""
        old = self._turns[turn]
        new = self._add(old.parent, old.message, old.role)
        figures = "rewritten by you"
        return self.end(new.id, Outcome(reply, None, "", old.model, "stop", figures, old.n_dropped))

    def choose(self, turn: int, step: int) -> bool:
        """Look at the branch `step` beside the one that `turn` is in; False if there is none."""
        siblings = self._children[self._turns[turn].parent]
        at = siblings.index(turn) + step
        if not 0 <= at < len(siblings):
            return False
        self.go_to(self._end_of(siblings[at]))
        return True

    def show(self, turn: int) -> None:
        """Look at the latest branch that has `turn`."""
        self.go_to(turn if turn not in self._children else self._end_of(turn))

    def go_to(self, turn: int | None) -> None:
        """Look at the branch that ends in `turn`."""
        self._head = turn
        if self._chat is not None:
            self._library.set_head(self._chat, turn)

    def end(self, turn: int, outcome: Outcome) -> Turn:
        """The reply of `turn` is over."""
        self._library.end_turn(turn, outcome)
        self._exchanges.pop(turn, None)
        self._turns[turn] = replace(self._turns[turn], **vars(outcome))
        return self._turns[turn]

    def drop(self, turn: int, back_to: int | None) -> None:
        """Take a turn without a reply out; `back_to` is looked at then."""
        self._library.remove_turn(turn)
        self._children[self._turns.pop(turn).parent].remove(turn)
        self.go_to(back_to)

    # --- for the engine -----------------------------------------------------------------------

    def ask(
        self, turn: int, root: str, *, continues: bool = False, tools: Sequence[Any] = ()
    ) -> Ask:
        """What asks for the reply of `turn`, of the model whose weights have the hash `root`."""
        this = self._turns[turn]
        same = [
            self._turns[other]
            for other in self._children[this.parent]
            if other < turn and self._turns[other].message == this.message
        ]
        definitions: tuple[Mapping[str, Any], ...] = tuple(tools)
        return Ask(
            message=this.message,
            past=tuple(self._exchange(one, root) for one in self._branch_to(this.parent)),
            role=this.role,
            system=self._system,
            attempt=len(same),
            begun=self._exchange(this, root) if continues else None,
            tools=definitions,
        )

    def _exchange(self, turn: Turn, root: str) -> Exchange:
        """Ids are those of one model's tokenizer, and so is what left its context."""
        is_ours = turn.root == root
        found = self._exchanges.get(turn.id)
        if found is None or (found.reply_ids is not None) > is_ours:
            found = Exchange(
                {"role": turn.role, "content": turn.message},
                turn.reply,
                turn.reply_ids if is_ours else None,
                _reason(turn.finish),
                turn.n_dropped if is_ours else 0,
            )
            if is_ours:
                self._exchanges[turn.id] = found
        return found

    def _add(self, parent: int | None, message: str, role: str) -> Turn:
        turn = Turn(self._library.add_turn(self.id, parent, message, role), parent, role, message)
        self._take(turn)
        self._head = turn.id
        return turn

    def _take(self, turn: Turn) -> None:
        self._turns[turn.id] = turn
        self._children.setdefault(turn.parent, []).append(turn.id)

    def _branch_to(self, turn: int | None) -> list[Turn]:
        branch: list[Turn] = []
        while turn is not None:
            branch.append(self._turns[turn])
            turn = self._turns[turn].parent
        return branch[::-1]

    def _end_of(self, turn: int | None) -> int | None:
        """Down the latest branches."""
        while below := self._children.get(turn):
            turn = below[-1]
        return turn


def _reason(finish: str | None) -> FinishReason:
    for reason in get_args(FinishReason):
        if reason == finish:
            return reason  # type: ignore[no-any-return]
    return "cancelled"
