"""Simon Willison's `llm` pointed at `edgellm serve`: writes the entry that it needs, and asks.

`pip install llm`, `edgellm serve demo`, then `python examples/llm_client.py DIR
[http://127.0.0.1:8080/v1] [MODEL]`. DIR is where llm keeps its settings (`llm logs path`); other
entries of its extra-openai-models.yaml stay.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    home = Path(sys.argv[1])
    url = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8080/v1"
    name = sys.argv[3] if len(sys.argv) > 3 else "demo"
    entries = home / "extra-openai-models.yaml"
    before = entries.read_text(encoding="utf-8") if entries.exists() else ""
    entry = f"- model_id: edgellm-{name}\n  model_name: {name}\n  api_base: {url}\n"
    if entry not in before:
        entries.write_text(before + entry, encoding="utf-8")
    key = os.environ.get("EDGELLM_SERVE_TOKEN", "none")
    environment = {**os.environ, "LLM_USER_PATH": str(home), "OPENAI_API_KEY": key}
    command = [sys.executable, "-m", "llm", "-m", f"edgellm-{name}", "-o", "max_tokens", "40"]
    subprocess.run([*command, "How do I show the current date?"], env=environment, check=True)


if __name__ == "__main__":
    main()
