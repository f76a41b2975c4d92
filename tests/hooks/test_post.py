"""Sending to a stranger: to the checked address, with bounds, and never further."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from marketplace.hooks.post import Post
from marketplace.protocol.errors import BadRequest, ErrorCode
from tests.flow.receiver import receiver


def names(**known):
    """A resolver that knows these names, and counts how often it was asked."""
    asked = []

    async def resolve(host, port):
        asked.append(host)
        if host not in known:
            raise OSError("unknown name")
        found = known[host]
        return found.pop(0) if isinstance(found[0], list) else found

    resolve.asked = asked
    return resolve


def local(seconds=5.0, **known):
    return Post(allow_loopback=True, seconds=seconds, resolve=names(**known))


async def test_the_connection_goes_to_the_checked_address_with_the_names_own_host_header():
    async with receiver() as there:
        url = there.url.replace("127.0.0.1", "hooks.test")
        post = local(**{"hooks.test": ["127.0.0.1"]})
        answer = await post.send(url, {"webhook-id": "m"}, b"{}")
        assert (answer.status, answer.taken) == (204, True)
        (taken,) = there.taken
        assert taken.line == "POST /hooks?a=b HTTP/1.1"
        assert taken.headers["host"] == url.split("/")[2]
        assert (taken.headers["webhook-id"], taken.body) == ("m", b"{}")


async def test_a_name_that_moves_inside_between_two_looks_is_not_followed():
    async with receiver() as there:
        port = there.url.split(":")[2].split("/")[0]
        moving = names(**{"moving.test": [["93.184.216.34"], ["127.0.0.1"]]})
        post = Post(allow_loopback=False, seconds=5, resolve=moving)
        await post.check(f"http://moving.test:{port}/")
        answer = await post.send(f"http://moving.test:{port}/", {}, b"{}")
        assert answer.problem == "the name resolves to an address that is not public"
        assert (len(moving.asked), there.taken) == (2, [])


async def test_each_sending_looks_a_name_up_once_and_connects_where_it_looked():
    """Were the name looked up again to connect, the second answer would be taken."""
    async with receiver() as there:
        turning = names(**{"turning.test": [["127.0.0.1"], ["203.0.113.1"]]})
        post = Post(allow_loopback=True, seconds=5, resolve=turning)
        answer = await post.send(there.url.replace("127.0.0.1", "turning.test"), {}, b"{}")
        assert (answer.taken, turning.asked) == (True, ["turning.test"])


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """Server and client contexts for `hooks.test` alone."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.test")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    made = made.not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.test")]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    none = serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=folder / "cert.pem")


async def test_the_certificate_must_be_the_names_though_the_connection_is_to_an_address(certified):
    server, trust = certified
    known = names(**{"hooks.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]})
    async with receiver(tls=server) as there:
        post = Post(allow_loopback=True, seconds=5, resolve=known, trust=trust)
        right = await post.send(there.url.replace("127.0.0.1", "hooks.test"), {}, b"{}")
        assert (right.taken, len(there.taken)) == (True, 1)
        wrong = await post.send(there.url.replace("127.0.0.1", "other.test"), {}, b"{}")
        assert (wrong.problem, len(there.taken)) == ("no connection held (ConnectError)", 1)
        strict = Post(allow_loopback=True, seconds=5, resolve=known)
        untrusted = await strict.send(there.url.replace("127.0.0.1", "hooks.test"), {}, b"{}")
        assert (untrusted.taken, len(there.taken)) == (False, 1)


async def test_the_systems_certificates_are_not_read_for_every_sending(monkeypatch):
    """The loop serves nobody else meanwhile."""
    read = []

    def counted(**_):
        read.append(True)
        return ssl.create_default_context()

    monkeypatch.setattr("httpcore2.default_ssl_context", counted)
    async with receiver() as there:
        url = there.url.replace("127.0.0.1", "hooks.test")
        for _ in range(3):
            assert (await local(**{"hooks.test": ["127.0.0.1"]}).send(url, {}, b"{}")).taken
    assert len(read) <= 1


async def test_a_redirect_is_an_answer_and_is_not_followed():
    async with receiver(302) as there:
        answer = await local(**{"127.0.0.1": ["127.0.0.1"]}).send(there.url, {}, b"{}")
        assert (answer.status, answer.taken, len(there.taken)) == (302, False, 1)


async def test_a_receiver_that_never_answers_is_left_after_a_while():
    async with receiver(None) as there:
        answer = await local(0.05, **{"127.0.0.1": ["127.0.0.1"]}).send(there.url, {}, b"{}")
        assert (answer.status, answer.problem) == (None, "no answer in 0.05 s")


async def test_an_endless_answer_is_not_read_to_its_end():
    async with receiver(200, extra=b"x" * 5_000_000) as there:
        answer = await local(**{"127.0.0.1": ["127.0.0.1"]}).send(there.url, {}, b"{}")
        assert answer.taken


async def test_no_proxy_of_the_environment_is_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with receiver() as there:
        assert (await local(**{"127.0.0.1": ["127.0.0.1"]}).send(there.url, {}, b"{}")).taken


async def test_what_goes_wrong_on_the_way_is_said():
    post = local(**{"127.0.0.1": ["127.0.0.1"]})
    assert (await post.send("http://nobody.test/", {}, b"")).problem == "the name does not resolve"
    assert (await post.send("ftp://nobody.test/", {}, b"")).problem == "only http:// and https:// are sent to"
    closed = await post.send("http://127.0.0.1:1/", {}, b"")
    assert closed.problem == "no connection held (ConnectError)"
    plain = await post.send("https://127.0.0.1:1/", {}, b"")
    assert plain.problem == "no connection held (ConnectError)"


async def test_an_address_is_checked_when_it_is_given():
    post = Post(allow_loopback=False, seconds=5, resolve=names(**{"inside.test": ["10.0.0.1"]}))
    for url in ("http://inside.test/", "http://nobody.test/"):
        with pytest.raises(BadRequest) as refused:
            await post.check(url)
        assert refused.value.code == "webhook_refused"


async def test_literal_addresses_in_any_spelling_are_checked_by_what_they_mean():
    post = Post(allow_loopback=False, seconds=5)
    for host in (
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "[::1]",
        "localhost",
        "169.254.169.254",
    ):
        with pytest.raises(BadRequest) as refused:
            await post.check(f"http://{host}/")
        assert refused.value.code == "webhook_refused", host


async def test_names_whose_servers_never_answer_hold_up_nobody_who_reads_the_store(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    post = Post(allow_loopback=True, seconds=0.2)
    asked = [asyncio.create_task(post.check(f"http://slow-{n}.test/")) for n in range(64)]
    try:
        refused = await asyncio.gather(*asked, return_exceptions=True)
        assert {problem.code for problem in refused} == {ErrorCode.WEBHOOK_REFUSED}
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "read"), 5) == "read"
    finally:
        over.set()
