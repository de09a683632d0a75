"""Facts out of a text as JSON that a schema describes: whatever the model, it parses and validates.

`python examples/extract.py [MODEL] < text`. Needs edgellm[grammar].
"""

from __future__ import annotations

import json
import sys

import edgellm

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "people": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3},
        "mood": {"enum": ["happy", "sad", "neutral"]},
        "year": {"type": ["integer", "null"], "minimum": 0, "maximum": 2100},
    },
    "required": ["title", "people", "mood", "year"],
    "additionalProperties": False,
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    with edgellm.load(name) as model:
        answer = model.generate(
            f"{sys.stdin.read().strip()}\n\nThe same as JSON:\n",
            max_tokens=200,
            response_format={"type": "json_schema", "schema": SCHEMA},
        )
    if answer.finish_reason != "stop":
        sys.exit(f"not finished within {len(answer.token_ids)} tokens")
    print(json.dumps(json.loads(answer.text), indent=2))
    forced = answer.stats.forced_tokens
    print(f"{forced} of {len(answer.token_ids)} tokens took no step", file=sys.stderr)


if __name__ == "__main__":
    main()
