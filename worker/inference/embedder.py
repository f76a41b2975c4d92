"""Batches of texts, sorted by length so that little is padding, under a token budget."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812  # everybody's name for it
from torch import Tensor
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from marketplace.protocol.payloads import CHUNK_TEXTS, Answer, EmbedPayload, embeddings_chunk
from worker.inference.engine import Chunk, Finish, Outcome
from worker.inference.errors import ResumeMismatch, WrongTask
from worker.inference.host import Ticket
from worker.inference.pace import Pace
from worker.inference.prompt import open_tokenizer
from worker.metering import StepMeter

# Texts of so many batches are sorted together; more would let late jobs wait on long rounds.
_BATCHES_A_ROUND: Final = 4


class EmbeddingModel:
    """Tokenizer and encoder of a mean-pooling sentence model."""

    def __init__(self, path: Path, *, device: str) -> None:
        self._path = path
        self._device = device
        self._lock = threading.Lock()
        self._tokenizer = open_tokenizer(path)
        self._most_tokens = _limit(path, self._tokenizer)
        self._model: Any = None
        self.dtype = ""

    def load(self) -> None:
        """Reads the weights."""
        disable_progress_bar()
        self._model = AutoModel.from_pretrained(
            self._path, dtype="auto", use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        self._model = self._model.to(self._device).eval()
        self.dtype = str(self._model.dtype).removeprefix("torch.")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, cut at the model's limit. Safe from many threads."""
        # One at a time: encoding sets and reads truncation state inside the tokenizer.
        with self._lock:
            encoded = self._tokenizer(
                list(texts), truncation=True, max_length=self._most_tokens, padding=False
            )
        return [list(tokens) for tokens in encoded["input_ids"]]

    def vectors(self, rows: Sequence[Sequence[int]]) -> list[bytes]:
        """Unit vectors of token rows, little-endian float32."""
        longest = max(len(row) for row in rows)
        pad = self._tokenizer.pad_token_id or 0
        tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self._device)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        mask = torch.arange(longest, device=self._device)[None, :] < lengths[:, None]
        hidden: Tensor = self._model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        # Pooled in float32 whatever the weights are: sums of bfloat16 lose what normalising needs.
        summed = (hidden.float() * mask[..., None]).sum(dim=1)
        unit = F.normalize(summed / lengths[:, None], dim=1)
        return [row.tobytes() for row in unit.cpu().numpy().astype("<f4")]


@dataclass(slots=True, eq=False, kw_only=True)
class Embedding:
    """One job: its texts as tokens, and the vectors there are."""

    ticket: Ticket
    rows: list[list[int]]
    sent: int
    chunks: int
    vectors: dict[int, bytes] = field(default_factory=dict)
    ended: bool = False


Row = tuple[Embedding, int]


class Embedder:
    """Embeds for many jobs at once; a `Stepper`."""

    def __init__(
        self, model: EmbeddingModel, *, budget: int, meter: StepMeter, now_ms: Callable[[], int]
    ) -> None:
        self._model = model
        self._budget = budget
        self._meter = meter
        self._pace = Pace(now_ms)
        self._rows: deque[Row] = deque()

    def start(self) -> None:
        """Loads the weights."""
        self._model.load()

    def admit(self, ticket: Ticket) -> None:
        """Queues the texts of a job, in order."""
        try:
            job = self._prepare(ticket)
        except Exception as error:  # noqa: BLE001  # loop edge: a job's fault must not end the engine
            ticket.put(error)
            return
        if job.sent == len(job.rows):
            self._end(job, "done")
        self._rows.extend((job, index) for index in range(job.sent, len(job.rows)))

    def step(self) -> bool:
        """Embeds the next round of texts and sends what is complete."""
        self._leave()
        self._pace.start()
        jobs: dict[Embedding, None] = {}
        for batch in self._batches(self._round()):
            mark = self._meter.start()
            vectors = self._model.vectors([job.rows[index] for job, index in batch])
            for (job, index), vector in zip(batch, vectors, strict=True):
                job.vectors[index] = vector
                jobs[job] = None
            shares = [(job.ticket.tally, len(job.rows[index])) for job, index in batch]
            self._meter.finish(mark, shares)
        self._pace.finish()
        for job in jobs:
            self._send(job)
        return bool(self._rows)

    def _prepare(self, ticket: Ticket) -> Embedding:
        job = ticket.job
        if not isinstance(job.payload, EmbedPayload):
            raise WrongTask(job.payload.task, "embed")
        rows = self._model.encode(job.payload.input)
        sent = len(Answer(chunk.body for chunk in job.resume).vectors)
        if sent > len(rows):
            raise ResumeMismatch(job.id, "it has more vectors than texts")
        return Embedding(ticket=ticket, rows=rows, sent=sent, chunks=len(job.resume))

    def _leave(self) -> None:
        """Lets go of cancelled jobs, ends those out of time."""
        for job in {job: None for job, _ in self._rows}:
            if not job.ticket.cancelled and self._pace.is_late(job.ticket.job.stop_at_ms):
                self._end(job, "deadline")
        self._rows = deque((job, i) for job, i in self._rows if not (job.ended or job.ticket.cancelled))

    def _round(self) -> list[Row]:
        """First come, first served, a few batches' worth."""
        taken: list[Row] = []
        tokens = 0
        while self._rows and (not taken or tokens < self._budget * _BATCHES_A_ROUND):
            job, index = self._rows.popleft()
            tokens += len(job.rows[index])
            taken.append((job, index))
        return taken

    def _batches(self, rows: list[Row]) -> Iterator[list[Row]]:
        batch: list[Row] = []
        for job, index in sorted(rows, key=lambda row: len(row[0].rows[row[1]])):
            # Sorted, so the new row is the longest and sets the padded length of all.
            if batch and (len(batch) + 1) * len(job.rows[index]) > self._budget:
                yield batch
                batch = []
            batch.append((job, index))
        if batch:
            yield batch

    def _send(self, job: Embedding) -> None:
        """Sends groups whose vectors are all there; ends the job with the last."""
        while job.sent < len(job.rows):
            group = range(job.sent, min(job.sent + CHUNK_TEXTS, len(job.rows)))
            if any(index not in job.vectors for index in group):
                return
            body = embeddings_chunk(job.sent, [job.vectors.pop(index) for index in group])
            job.ticket.put(Chunk(index=job.chunks, body=body))
            job.chunks += 1
            job.sent = group.stop
        self._end(job, "done")

    def _end(self, job: Embedding, finish: Finish) -> None:
        """Only texts whose vectors were sent are counted."""
        job.ended = True
        reading = job.ticket.tally.reading(self._meter.method)
        units = sum(len(row) for row in job.rows[: job.sent])
        job.ticket.put(Outcome(finish=finish, units_in=units, units_out=0, reading=reading))


def _limit(path: Path, tokenizer: Any) -> int:
    """Most tokens of a text: what the model was trained on, else what it can hold."""
    stated = path / "sentence_bert_config.json"
    if stated.is_file():
        return int(json.loads(stated.read_bytes())["max_seq_length"])
    positions = json.loads((path / "config.json").read_bytes())["max_position_embeddings"]
    return int(min(positions, tokenizer.model_max_length))
