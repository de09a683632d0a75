"""Completions with the objects of OpenAI's API: what `Model` and the server share.

`fields` reads what a caller asks for, `chat_task` and `text_task` make texts of it and objects of
the texts, `calls` is what a model has of it. Nothing here knows of HTTP.
"""
