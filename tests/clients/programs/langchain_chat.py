"""LangChain's models for OpenAI: one line of JSON a call. Reads what to ask from standard input.

LangChain keeps no field it does not know: a whole answer has its cost, a stream and an embedding have not.
The header `x-job-id`, or the caller's own idempotency key, leads to the job, which has cost and receipt.
"""

import json
import sys
import uuid
from importlib.metadata import version

from langchain_openai import ChatOpenAI, OpenAIEmbeddings


def main(asked):
    place = {"base_url": f"{asked['gateway_url']}/v1", "api_key": asked["api_key"]}
    chat = ChatOpenAI(
        **place,
        model=asked["chat_model"],
        max_tokens=asked["max_tokens"],
        temperature=0,
        include_response_headers=True,
    )
    answer = chat.invoke(asked["first"])
    said = answer.response_metadata
    usage = said["token_usage"]
    cost = {"cost": usage["cost"], "atoms": usage["cost_details"]["atoms"]}
    tell("chat", "first", answer.content, job=said["headers"]["x-job-id"], **cost)

    chunks = list(chat.stream(asked["first"]))
    pieces = [chunk.content for chunk in chunks if chunk.content]
    job = chunks[0].response_metadata["headers"]["x-job-id"]
    tell("stream", "first", "".join(pieces), job=job, pieces=len(pieces))

    name = uuid.uuid4().hex
    embeddings = OpenAIEmbeddings(
        **place,
        model=asked["embed_model"],
        # Texts go out as they are; else it would look for the tokens of a model of OpenAI's.
        check_embedding_ctx_length=False,
        default_headers={"idempotency-key": name},
    )
    tell("embeddings", "texts", embeddings.embed_documents(asked["texts"]), idempotency_key=name)


def tell(call, question, answer, **more):
    print(json.dumps({"call": call, "asked": question, "answer": answer} | more), flush=True)


if __name__ == "__main__":
    print(json.dumps({"version": version("langchain-openai")}), flush=True)
    main(json.load(sys.stdin))
