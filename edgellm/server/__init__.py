"""`edgellm serve`: OpenAI's API over HTTP, for programs on this machine. docs/SERVER.md.

`app` knows the routes, `guard` who may ask, `engine` what goes on at once, `pool` which models are
loaded; the objects are those of `completions/`. Needs `edgellm[serve]`; nothing here connects.
"""
