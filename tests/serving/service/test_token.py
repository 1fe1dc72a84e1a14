"""The bearer token."""

from __future__ import annotations

import hmac

import pytest

from s2mlp_deploy.serving.service.http import Token


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        ("Bearer secret", True),
        ("bearer secret", True),
        ("Bearer  secret ", True),
        (None, False),
        ("", False),
        ("secret", False),
        ("Basic secret", False),
        ("Bearer", False),
        ("Bearer secre", False),
        ("Bearer secret2", False),
        ("Bearer \xe9\udcff", False),
    ],
)
def test_only_the_token_fits(header, fits):
    assert Token("secret").fits(header) is fits


def test_how_much_was_right_does_not_show_in_the_time(monkeypatch):
    """What is compared has one length, whatever was sent, and by a function whose time does not depend on it."""
    seen, compare = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: seen.append((len(a), len(b))) or compare(a, b))
    for sent in ("", "s", "secret", "x" * 10_000):
        Token("secret").fits(f"Bearer {sent}")
        Token("secret").fits(f"Basic {sent}")
    assert seen == [(32, 32)] * 8
