"""Where a webhook may point, when it is tried again, and how a message is signed."""

from __future__ import annotations

import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from marketplace.hooks import rules
from marketplace.protocol import webhooks
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.webhooks import EVENT_DOCS, Event

SECRET = bytes(range(32))
PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"]
INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",  # noqa: S104 - an address to be refused
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "::7f00:1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_sent_to(address):
    assert rules.check_addresses([address], allow_loopback=False) == address


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_that_are_not_reachable_from_everywhere_are_refused(address):
    with pytest.raises(BadRequest, match="not public"):
        rules.check_addresses([address], allow_loopback=False)


@pytest.mark.parametrize("address", INSIDE)
def test_only_loopback_is_allowed_where_loopback_is(address):
    loopback = address in {"127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"}
    if loopback:
        assert rules.check_addresses([address], allow_loopback=True) == address
    else:
        with pytest.raises(BadRequest, match="not public"):
            rules.check_addresses([address], allow_loopback=True)


def test_a_name_that_is_half_inside_is_refused_as_a_whole():
    with pytest.raises(BadRequest, match="not public"):
        rules.check_addresses([PUBLIC[0], "10.0.0.1"], allow_loopback=False)
    with pytest.raises(BadRequest, match="no address"):
        rules.check_addresses([], allow_loopback=False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.com/", "only http"),
        ("file:///etc/passwd", "only http"),
        ("example.com/hooks", "only http"),
        ("http://", "names no host"),
        ("http:///path", "names no host"),
        ("http://user:pass@example.com/", "user and password"),
        ("http://example.com:99999/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://exa mple.com/", "no space"),
        ("http://example.com/\r\nHost: x", "printable"),
        ("http://exämple.com/", "ASCII"),
        ("http://example.com/" + "a" * 2_048, "2048"),
    ],
)
def test_a_url_that_is_no_place_to_send_to_is_refused(url, said):
    with pytest.raises(BadRequest, match=said) as refused:
        rules.target(url)
    assert refused.value.code == "webhook_refused"


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://example.com", "example.com", "/"),
        ("https://Example.com:443/a?b=c#d", "example.com", "/a?b=c"),
        ("http://example.com:8080/a", "example.com:8080", "/a"),
        ("http://[2606:2800::1]:81/", "[2606:2800::1]:81", "/"),
    ],
)
def test_a_url_is_read_as_http_means_it(url, authority, path):
    target = rules.target(url)
    assert (target.authority, target.path) == (authority, path)


def test_a_message_is_tried_for_about_a_day_and_ever_more_slowly():
    pauses = list(rules.RETRY_MS)
    assert pauses == sorted(pauses)
    assert 23 * 3_600_000 < sum(pauses) <= 24 * 3_600_000
    assert rules.retry_at_ms(1, 1_000) == 6_000
    assert rules.retry_at_ms(len(pauses), 0) == pauses[-1]
    assert rules.retry_at_ms(len(pauses) + 1, 0) is None


def test_events_are_named_once_documented_and_checked():
    assert rules.events_of(None) == rules.events_of([]) == tuple(Event)
    assert rules.events_of(["job.settled", "job.ordered", "job.settled"]) == (
        Event.JOB_ORDERED,
        Event.JOB_SETTLED,
    )
    with pytest.raises(BadRequest, match=r"'job\.eaten' is no event"):
        rules.events_of(["job.ordered", "job.eaten"])
    assert set(EVENT_DOCS) == set(Event)


def test_the_standard_library_of_receivers_accepts_a_message_and_no_changed_one():
    body, now = b'{"type":"job.settled","data":{"text":"\xc3\xa9"}}', int(time.time())
    headers = webhooks.headers(SECRET, "msg_a_1", now, body)
    receiver = Webhook(webhooks.secret_text(SECRET))
    assert receiver.verify(body, headers) == {"type": "job.settled", "data": {"text": "é"}}
    for changed in ({"webhook-id": "msg_a_2"}, {"webhook-timestamp": str(now + 1)}):
        with pytest.raises(WebhookVerificationError):
            receiver.verify(body, headers | changed)
    with pytest.raises(WebhookVerificationError):
        receiver.verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhooks.secret_text(bytes(32))).verify(body, headers)
