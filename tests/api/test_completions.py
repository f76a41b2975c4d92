"""The older completions route: prompts as user turns, in the older shapes."""

from __future__ import annotations

from openai import AsyncOpenAI

from marketplace.openai.answers import Piece
from marketplace.openai.completions import TextChunks
from marketplace.protocol.payloads import parse_payload
from tests.api.test_requests import check_problem
from tests.flow.gateway import gateway
from tests.flow.node import bearer, funded


def client_of(g, secret):
    return AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)


async def test_stock_client_completes_a_prompt(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        found = await client_of(g, secret).completions.create(model="tiny", prompt="Hi", stop="x", seed=3)
        (choice,) = found.choices
        assert (found.object, choice.text, choice.finish_reason) == ("text_completion", "Hello world", "stop")
        assert found.usage.completion_tokens == 2
        assert found.usage.model_extra["cost_details"]["atoms"] == found.receipt["fields"]["amount"] == "19"
        payload = parse_payload((await nodes[1].orders.get()).payload)
        assert [(turn.role, turn.content) for turn in payload.messages] == [("user", "Hi")]
        assert (payload.max_tokens, payload.stop, payload.seed) == (16, ("x",), 3)
        assert g.session(opened[1]).owed_atoms == 19


async def test_each_prompt_has_its_own_choices_in_order(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        found = await client_of(g, secret).completions.create(
            model="tiny", prompt=["one", "two"], n=2, best_of=2, seed=5
        )
        assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
        payloads = [parse_payload((await nodes[1].orders.get()).payload) for _ in range(4)]
        asked = sorted((payload.seed, payload.messages[0].content) for payload in payloads)
        assert asked == [(5, "one"), (6, "one"), (7, "two"), (8, "two")]
        assert len(found.receipts) == 4


async def test_stock_client_streams_a_completion_with_usage_last(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        stream = await client_of(g, secret).completions.create(
            model="tiny", prompt=["a", "b"], stream=True, max_tokens=8
        )
        chunks = [chunk async for chunk in stream]
        texts = dict.fromkeys((0, 1), "")
        for chunk in chunks:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        assert texts == {0: "Hello world", 1: "Hello world"}
        ends = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
        assert ends == ["stop", "stop"]
        assert chunks[-1].choices == []
        assert chunks[-1].usage.model_extra["cost_details"]["atoms"] == "38"
        assert len(chunks[-1].receipts) == 2


async def test_logprobs_have_the_older_shape_whole_and_streamed(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        nodes[1].text = ("an é", " or é")
        client = client_of(g, secret)
        asked = {"model": "tiny", "prompt": "Hi", "logprobs": 1}
        whole = (await client.completions.create(**asked)).choices[0].logprobs
        assert whole.tokens == [" é", " é"]
        assert whole.token_logprobs == [-2.5, -2.5]
        assert whole.top_logprobs == [{"\N{REPLACEMENT CHARACTER}": -0.1}] * 2
        assert whole.text_offset == [2, 7]
        stream = await client.completions.create(**asked, stream=True)
        told = [c.choices[0].logprobs async for c in stream if c.choices and c.choices[0].logprobs]
        assert [offset for one in told for offset in one.text_offset] == [2, 7]


def test_token_that_is_part_of_a_character_starts_where_that_does():
    rows = [{"token": token, "logprob_micro": -1, "top": []} for token in ("a", "\ufffd", "\ufffd", "b")]
    chunk = TextChunks(job_id="job_x", model="m", created=0).text(0, Piece(start=10, text="aéb", told=rows))
    assert chunk["choices"][0]["logprobs"]["text_offset"] == [10, 11, 11, 12]


BAD = [
    ("unsupported", {"echo": True}, "echo"),
    ("unsupported", {"suffix": "."}, "suffix"),
    ("unsupported", {"best_of": 3}, "best_of"),
    ("unsupported", {"logit_bias": {"1": 5}}, "logit_bias"),
    ("unsupported", {"prompt": [1, 2]}, "prompt"),
    ("unsupported", {"prompt": [[1], [2]]}, "prompt"),
    ("invalid_request", {"prompt": []}, "prompt"),
    ("invalid_request", {"prompt": ["a"] * 17, "n": 2}, "prompt"),
    ("invalid_request", {"logprobs": 21}, "logprobs"),
    ("invalid_request", {"max_tokens": 0}, "max_tokens"),
]


async def test_bad_completion_changes_nothing_and_names_the_field(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        before = g.rows()
        for code, changes, param in BAD:
            body = {"model": "tiny", "prompt": "Hi"} | changes
            answer = await g.http.post("/v1/completions", json=body, headers=bearer(secret))
            assert check_problem(answer, 422, code)["error"]["param"] == param, changes
        assert g.rows() == before
        assert nodes[1].orders.empty()


async def test_parameters_at_their_defaults_are_ignored(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        body = {"model": "tiny", "prompt": "Hi", "echo": False, "suffix": None, "best_of": 1, "user": "me"}
        answer = await g.http.post("/v1/completions", json=body, headers=bearer(secret))
        assert answer.status_code == 200
