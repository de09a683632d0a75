"""Every template gives what transformers gives, or both refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgellm import ChatTemplate, EdgeError
from sdk.conversations import conversation

N_QUICK, N_ALL = 20, 200
VARIABLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "datetime": "today",  # these two are for firefunction
    "functions": "[]",
}


def templates(root: Path) -> dict[str, str]:
    """Name -> source; a JSON file is a tokenizer_config with its template."""
    found = {}
    for path in sorted((root / "chat_templates").glob("*/*")):
        text = path.read_text(encoding="utf-8")
        found[path.name] = json.loads(text)["chat_template"] if path.suffix == ".json" else text
    return found


def compare(source: str, seeds: range) -> tuple[int, int]:
    """Checks all seeds; counts texts and refusals."""
    from transformers.utils.chat_template_utils import render_jinja_template

    ours = ChatTemplate(source, variables=VARIABLES)
    n_texts = n_refused = 0
    for seed in seeds:
        options = conversation(seed)
        messages = options.pop("messages")

        try:
            texts, _ = render_jinja_template(
                [messages], chat_template=source, **VARIABLES, **options
            )
            expected = texts[0]
        except Exception:  # jinja2's errors, and whatever its operators raise
            expected = None
        try:
            found = ours.render(messages, **options)
        except EdgeError:
            found = None
        assert found == expected, (seed, messages, options)
        n_texts += found is not None
        n_refused += found is None
    return n_texts, n_refused


def test_templates_equal_transformers(shared_data):
    sources = templates(shared_data)
    assert len(sources) >= 51
    for name, source in sources.items():
        n_texts, _ = compare(source, range(N_QUICK))
        assert n_texts > 0, name


@pytest.mark.slow
def test_templates_equal_transformers_on_many_conversations(shared_data):
    counts = [compare(source, range(N_ALL)) for source in templates(shared_data).values()]
    assert sum(texts for texts, _ in counts) > sum(refused for _, refused in counts) > 0
