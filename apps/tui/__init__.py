"""The terminal chat, installed as edgellm.tui. `app` and `widgets` need textual (extra `tui`)."""
