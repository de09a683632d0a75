"""Who may ask: not the page of a stranger, not without a token, not from elsewhere unasked."""

from __future__ import annotations

import pytest

from edgellm.errors import InvalidArgumentError
from edgellm.server.settings import ServerSettings
from edgellm.testing import FakeModel
from server.serving import chat, serving

TOKEN = "a token of some length"


def test_strange_hosts_origins_and_forms_are_refused():
    with serving(FakeModel(), origins=("https://app.example",), hosts=("box.local",)) as server:

        def status(**headers: str) -> int:
            return server.ask("POST", "/v1/chat/completions", chat(), **headers)[0]

        assert status() == 200
        assert (
            status(Host="localhost:1234") == status(Host="[::1]") == status(Host="BOX.local") == 200
        )
        assert status(Host="evil.example") == status(Host="localhost.evil.example") == 403
        assert status(Host="") == status(Host="[::1") == 403
        own = f"http://127.0.0.1:{server.port}"
        assert status(Origin=own, Host=f"127.0.0.1:{server.port}") == 200
        assert status(Origin="http://evil.example") == status(Origin="null") == 403
        assert status(Origin=own + "0") == 403  # another port is another origin
        assert status(Content_Type="text/plain") == 415
        allowed = {"Origin": "https://app.example"}
        found, headers, _ = server.ask("POST", "/v1/chat/completions", chat(), **allowed)
        assert (found, headers["access-control-allow-origin"]) == (200, allowed["Origin"])
        found, headers, _ = server.ask("OPTIONS", "/v1/chat/completions", **allowed)
        assert (found, headers["access-control-allow-methods"]) == (204, "GET, POST")
        assert "access-control-allow-origin" not in server.ask("GET", "/health")[1]


def test_a_token_is_asked_for_where_there_is_one():
    with serving(FakeModel(), token=TOKEN) as server:
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert server.ask("GET", "/v1/models", **right)[0] == 200
        assert server.ask("POST", "/v1/chat/completions", chat(), **right)[0] == 200
        for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"):
            status, headers, body = server.ask("GET", "/v1/models", Authorization=wrong)
            assert (status, body["error"]["code"]) == (401, "invalid_api_key")
            assert headers["www-authenticate"] == "Bearer"
        assert server.ask("GET", "/metrics")[0] == 401
        assert server.ask("GET", "/health")[0] == server.ask("GET", "/")[0] == 200


def test_others_than_this_machine_need_a_token():
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        ServerSettings(models=("demo",), host=host)
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        with pytest.raises(InvalidArgumentError, match="give a token"):
            ServerSettings(models=("demo",), host=host)
        ServerSettings(models=("demo",), host=host, token=TOKEN)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give a model"),
        ({"token": "short"}, "a token must have"),
        ({"port": 70000}, "port must be"),
        ({"slots": 0}, "slots must be"),
        ({"keep_alive_s": 0.0}, "keep-alive must be"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(InvalidArgumentError, match=said):
        ServerSettings(**({"models": ("demo",), **settings} if settings else {}))
