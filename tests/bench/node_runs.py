"""Contenders: each generates for the same requests and says how many tokens it wrote in how much CPU time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
)
from transformers.utils import logging

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Answer, EmbedPayload
from tests.bench.node_load import Request, catalogue_home
from worker.inference.batch import Batcher
from worker.inference.embed import EmbedTask
from worker.inference.engine import Chunk, EngineJob, EngineSettings, Outcome
from worker.inference.generate import ChatEngine
from worker.inference.host import Ticket
from worker.metering import DeclaredSource, StepMeter
from worker.models import ModelDir, ensure

CONCURRENT: Final = 64
_FAR: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens written, or texts read, and CPU seconds of the whole process meanwhile."""

    done: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Tokens or texts per CPU second."""
        return self.done / self.seconds


Asked = TypeVar("Asked")
Run = Callable[[Sequence[Request]], int]
Texts = Callable[[Sequence[str]], int]


def rate(run: Callable[[Sequence[Asked]], int], asked: Sequence[Asked]) -> Rate:
    """Runs once and measures; process time, so that a busy machine changes little."""
    begin = time.process_time()
    done = run(asked)
    return Rate(done, time.process_time() - begin)


@contextmanager
def engine(found: ModelDir, **settings: Any) -> Iterator[Run]:
    """Our engine, all requests at once, each from a thread of its own as a worker has them."""
    chosen = EngineSettings(**{"slots": CONCURRENT, **settings})
    running = ChatEngine(found, chosen, energy=DeclaredSource(), now_ms=lambda: time.time_ns() // 1_000_000)
    running.load()

    def run(requests: Sequence[Request]) -> int:
        return sum(len(answer) for answer in answers(running, requests))

    try:
        yield run
    finally:
        running.close()


def answers(running: ChatEngine, requests: Sequence[Request]) -> list[list[int]]:
    """Tokens of each answer, all requests at once."""
    found: list[list[int]] = [[] for _ in requests]

    def ask(place: int) -> None:
        request = requests[place]

        def keep(chunk: Chunk) -> None:
            found[place].extend(chunk.token_ids)

        job = EngineJob(id=str(place), payload=request.payload, seed=request.seed, stop_at_ms=_FAR)
        running.run(job, keep)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@contextmanager
def network(found: ModelDir) -> Iterator[Any]:
    """The model as transformers opens it, with the attention that is fastest on a processor."""
    logging.set_verbosity_error()
    opened = AutoModelForCausalLM.from_pretrained(found.path, dtype="auto", attn_implementation="sdpa").eval()
    with torch.inference_mode():
        yield opened


def one_by_one(opened: Any) -> Run:
    """`generate`, one request after the other."""

    def run(requests: Sequence[Request]) -> int:
        tokens = 0
        for request in requests:
            ids = torch.tensor([request.prompt])
            out = opened.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=request.max_tokens,
                do_sample=False,
                pad_token_id=0,
            )
            tokens += out.shape[1] - ids.shape[1]
        return tokens

    return run


def continuous(opened: Any, page_size: int, batch_tokens: int) -> Run:
    """Transformers' own continuous batching, with room for all requests."""

    def run(requests: Sequence[Request]) -> int:
        positions = sum(len(request.prompt) + request.max_tokens + page_size for request in requests)
        settings = ContinuousBatchingConfig(
            page_size=page_size,
            num_blocks=positions // page_size + 1,
            max_batch_tokens=batch_tokens,
            max_requests_per_batch=CONCURRENT,
            auto_switch_to_flash=False,
        )
        greedy = GenerationConfig(
            do_sample=False, eos_token_id=opened.generation_config.eos_token_id, pad_token_id=0
        )
        tokens = 0
        manager: Any
        with opened.continuous_batching_context_manager(
            generation_config=greedy, continuous_batching_config=settings, warmup=False
        ) as manager:
            for request in requests:
                manager.add_request(list(request.prompt), max_new_tokens=request.max_tokens)
            for _ in requests:
                result = manager.get_result(timeout=600)
                if result is None or result.error:
                    raise RuntimeError(f"continuous batching failed: {result and result.error}")
                tokens += len(result.generated_tokens)
        return tokens

    return run


class _Typed(EmbedTask):
    """The engine's own task with weights of a type of our choice."""

    def __init__(self, model: ModelDir, dtype: torch.dtype) -> None:
        super().__init__(model, EngineSettings())
        self._dtype = dtype

    def load(self) -> None:
        """Reads the weights."""
        self._model.load(self._dtype)


def embedders(dtype: torch.dtype) -> tuple[Texts, Texts]:
    """MiniLM one text at a time as transformers has it, and as our engine has it."""
    found = ensure("all-minilm-l6-v2", catalogue_home(), print)
    model_id = to_hex(found.model_id)
    task = _Typed(found, dtype)
    budget = EngineSettings().embed_batch_tokens
    batcher = Batcher(task, budget=budget, meter=StepMeter(), now_ms=lambda: 0, threads=1)
    batcher.start()
    tokenizer = AutoTokenizer.from_pretrained(found.path)
    plain = AutoModel.from_pretrained(found.path, dtype=dtype, attn_implementation="sdpa").eval()

    def one(texts: Sequence[str]) -> int:
        vectors = []
        with torch.inference_mode():
            for text in texts:
                ids = tokenizer(text, truncation=True, return_tensors="pt")["input_ids"]
                # Without a mask, which a single text does not need: a sixth faster.
                states = plain(input_ids=ids).last_hidden_state[0]
                vectors.append(functional.normalize(states.float().mean(dim=0), dim=0).numpy().tobytes())
        return len(vectors)

    def sorted_by_length(texts: Sequence[str]) -> int:
        payload = EmbedPayload(model=model_id, input=tuple(texts))
        events: list[Chunk | Outcome | Exception] = []
        with torch.inference_mode():
            batcher.admit(
                Ticket(EngineJob(id="bench", payload=payload, seed=0, stop_at_ms=_FAR), events.append)
            )
            while batcher.step():
                pass
        return len(Answer(event.body for event in events if isinstance(event, Chunk)).vectors)

    return one, sorted_by_length
