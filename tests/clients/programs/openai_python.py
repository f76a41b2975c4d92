"""The `openai` package for Python, sync or (with `--async`) async: one line of JSON a call.

Reads what to ask from standard input. Knows nothing of the market but `base_url` and `api_key`.
"""

import asyncio
import inspect
import json
import sys
import time

import openai

OVER = ("completed", "failed", "cancelled", "expired")
_BATCH_SECONDS = 120


async def main(asked, client):
    chat = {"model": asked["chat_model"], "max_tokens": asked["max_tokens"], "temperature": 0}
    chat["messages"] = [{"role": "user", "content": asked["first"]}]
    answer = await now(client.chat.completions.create(**chat))
    tell("chat", "first", answer.choices[0].message.content, answer.usage, answer.receipt)

    chunks = await items(await now(client.chat.completions.create(**chat, stream=True)))
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    tell("stream", "first", "".join(pieces), chunks[-1].usage, chunks[-1].receipt, pieces=len(pieces))

    answer = await now(client.embeddings.create(model=asked["embed_model"], input=asked["texts"]))
    tell("embeddings", "texts", [row.embedding for row in answer.data], answer.usage, answer.receipt)

    response = {"model": asked["chat_model"], "max_output_tokens": asked["max_tokens"], "temperature": 0}
    response["input"] = asked["first"]
    answer = await now(client.responses.create(**response))
    tell("responses", "first", answer.output_text, answer.usage, answer.receipt)

    events = await items(await now(client.responses.create(**response, stream=True)))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    last = events[-1].response
    tell("responses stream", "first", "".join(pieces), last.usage, last.receipt, pieces=len(pieces))

    await batch(asked, client)


async def batch(asked, client):
    sent = ("calls.jsonl", asked["lines"].encode())
    file = await now(client.files.create(file=sent, purpose="batch"))
    assert [row.id for row in await items(client.files.list())].count(file.id) == 1
    assert (await now(client.files.retrieve(file.id))).bytes == len(sent[1])
    tell("files", "lines", (await now(client.files.content(file.id))).text)

    made = await now(
        client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    )
    deadline = time.monotonic() + _BATCH_SECONDS
    while made.status not in OVER and time.monotonic() < deadline:
        await asyncio.sleep(0.3)
        made = await now(client.batches.retrieve(made.id))
    assert made.status == "completed", made
    for line in (await now(client.files.content(made.output_file_id))).text.splitlines():
        row = json.loads(line)
        body = row["response"]["body"]
        text, usage = body["choices"][0]["message"]["content"], body["usage"]
        tell(f"batches {row['custom_id']}", row["custom_id"], text, usage, body["receipt"])
    await now(client.files.delete(file.id))


async def now(value):
    """What an async client promised, or what a sync one has given."""
    return await value if inspect.isawaitable(value) else value


async def items(stream):
    """All of a stream or a list of pages."""
    return [item async for item in stream] if hasattr(stream, "__aiter__") else list(stream)


def tell(call, question, answer, usage=None, receipt=None, **more):
    line = {"call": call, "asked": question, "answer": answer} | more
    if usage is not None:
        usage = usage if isinstance(usage, dict) else usage.model_dump()
        line |= {"cost": usage["cost"], "atoms": usage["cost_details"]["atoms"], "receipt": receipt}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    print(json.dumps({"version": openai.__version__}), flush=True)
    given = json.load(sys.stdin)
    kind = openai.AsyncOpenAI if "--async" in sys.argv else openai.OpenAI
    asyncio.run(main(given, kind(base_url=f"{given['gateway_url']}/v1", api_key=given["api_key"])))
