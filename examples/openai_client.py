"""The openai package against `edgellm serve`: whole, streamed, shaped, embedded.

`edgellm serve demo`, then `python examples/openai_client.py [http://127.0.0.1:8080/v1]`. What needs
a key gets any; a server with a token gets that.
"""

from __future__ import annotations

import json
import os
import sys

from openai import OpenAI

PET = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "name": {"type": "string", "maxLength": 12}},
    "required": ["kind", "name"],
    "additionalProperties": False,
}


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/v1"
    key = os.environ.get("EDGELLM_SERVE_TOKEN", "none")
    with OpenAI(base_url=url, api_key=key) as client:
        name = next(iter(client.models.list())).id
        question = [{"role": "user", "content": "How do I show the current date?"}]
        stream = client.chat.completions.create(
            model=name, messages=question, max_tokens=40, stream=True
        )
        for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()
        shaped = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "Invent a pet."}],
            max_tokens=60,
            response_format={"type": "json_schema", "json_schema": {"name": "pet", "schema": PET}},
        )
        print(json.loads(shaped.choices[0].message.content or ""))
        vectors = client.embeddings.create(model=name, input=["a cat", "a dog"]).data
        print(len(vectors), "vectors of", len(vectors[0].embedding))


if __name__ == "__main__":
    main()
