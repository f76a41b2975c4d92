from __future__ import annotations

import asyncio

import pytest

from marketplace.dispatch import streams as module
from marketplace.dispatch.links import Link, Links
from marketplace.dispatch.streams import Streams
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.wire import Delivered


def started():
    streams = Streams()
    streams.bind("o1", "job", 1, live=True)
    return streams


async def bodies(stream):
    return [chunk.body async for chunk in stream.read()]


async def test_late_reader_gets_everything_from_the_first_chunk():
    streams = started()
    streams.take("o1", 0, b"a")
    early = asyncio.create_task(bodies(streams.job("job")))
    await asyncio.sleep(0)
    streams.take("o1", 1, b"b")
    late = asyncio.create_task(bodies(streams.job("job")))
    await asyncio.sleep(0)
    streams.take("o1", 2, b"c")
    streams.end("job")
    assert await early == await late == [b"a", b"b", b"c"]


async def test_chunks_come_out_in_order_and_once():
    streams = started()
    stream = streams.job("job")
    for index, body in ((2, b"c"), (0, b"a"), (0, b"a"), (2, b"c"), (1, b"b"), (1, b"b")):
        streams.take("o1", index, body)
    streams.end("job")
    assert await bodies(stream) == [b"a", b"b", b"c"]
    assert streams.assembly("o1").chunks == [b"a", b"b", b"c"]


def test_other_body_at_a_known_index_is_refused():
    streams = started()
    streams.take("o1", 0, b"a")
    streams.take("o1", 2, b"c")
    for index in (0, 2):
        with pytest.raises(BadRequest, match="was different"):
            streams.take("o1", index, b"x")


def test_response_has_a_bound(monkeypatch):
    monkeypatch.setattr(module, "MAX_ORDER_BYTES", 3)
    streams = started()
    streams.take("o1", 0, b"abc")
    with pytest.raises(BadRequest, match="too large"):
        streams.take("o1", 1, b"d")


async def test_lapsed_order_is_assembled_apart_from_the_readers():
    streams = started()
    stream = streams.job("job")
    streams.retire("o1")
    streams.bind("o2", "job", 2, live=True)
    streams.take("o1", 0, b"old")
    streams.take("o2", 0, b"new")
    streams.end("job")
    assert await bodies(stream) == [b"new"]
    assert streams.assembly("o1").chunks == [b"old"]
    streams.take("o2", 1, b"after the end")
    assert streams._jobs == {}


def test_nothing_stays_behind():
    streams = started()
    streams.bind("o2", "job", 1, live=False)
    streams.drop_retired(1)
    assert streams.assembly("o2") is None
    streams.drop("o1")
    streams.drop("o1")
    streams.end("job")
    assert (streams._orders, streams._jobs, streams._of_job) == ({}, {}, {})


def frame():
    return Delivered(order_hash=bytes(32))


async def test_link_that_does_not_keep_up_closes():
    link = Link(1, depth=2)
    assert [link.send(frame()) for _ in range(3)] == [True, True, False]
    assert await link.next() is None
    assert not link.send(frame())


def test_newest_link_wins_and_only_it_can_leave():
    links, old, new = Links(), Link(1), Link(1)
    links.attach(old)
    links.attach(new)
    assert old.closed
    assert not links.detach(old)
    assert links.send(1, frame())
    assert links.detach(new)
    assert not links.send(1, frame())
