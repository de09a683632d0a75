"""LangChain's OpenAI chat model against `edgellm serve`, in a chain.

`pip install langchain-openai`, `edgellm serve demo`, then `python examples/langchain_client.py
[http://127.0.0.1:8080/v1] [MODEL]`.
"""

from __future__ import annotations

import os
import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/v1"
    name = sys.argv[2] if len(sys.argv) > 2 else "demo"
    key = os.environ.get("EDGELLM_SERVE_TOKEN", "none")
    model = ChatOpenAI(
        base_url=url, api_key=key, model=name, temperature=0, max_completion_tokens=40
    )
    prompt = ChatPromptTemplate.from_messages([("user", "How do I {task}?")])
    chain = prompt | model | StrOutputParser()
    for part in chain.stream({"task": "show the current date"}):
        print(part, end="", flush=True)
    print()
    for answer in chain.batch([{"task": "list all files"}, {"task": "show a file"}]):
        print(answer)


if __name__ == "__main__":
    main()
