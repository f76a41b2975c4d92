"""What OpenAI has routes for and this market does not sell: the path, and what to do instead."""

from __future__ import annotations

from typing import Final

_KEEP: Final = "keep the conversation yourself, or name previous_response_id in POST /v1/responses"
_TEXT: Final = "nodes sell text, embeddings, classification and reranking: see GET /v1/models"
_LABELS: Final = "ask a text model for your own labels: POST /v1/classify"
_SEARCH: Final = "embed with POST /v1/embeddings, order with POST /v1/rerank, and keep the vectors yourself"
_CHOOSE: Final = "choose a model from GET /v1/models, or offer your own with a node"
_TOOLS: Final = "run tools yourself and send what they give as text"
_KEYS: Final = "keys are made with POST /v1/keys and bounded on-chain with `watt keys create`"
_SPEND: Final = "ask for GET /v1/accounts/ADDRESS and GET /v1/jobs"
_MAIL: Final = "ask for GET /v1/jobs/JOB, or follow GET /v1/jobs/JOB/events"

# Paths below /v1/. Routes that exist come first; these answer what they leave.
UNSUPPORTED: Final[dict[str, str]] = {
    "agents": _KEEP,
    "assistants": _KEEP,
    "audio": _TEXT,
    "chat/completions": "what was bought is at GET /v1/jobs",
    "chatkit": _KEEP,
    "completions": "what was bought is at GET /v1/jobs",
    "containers": _TOOLS,
    "content_provenance_checks": "every answer has a signed receipt: GET /v1/receipts/RECEIPT",
    "conversations": _KEEP,
    "decisions": _LABELS,
    "edits": "ask a text model: POST /v1/chat/completions",
    "embeddings": "what was bought is at GET /v1/jobs",
    "engines": _CHOOSE,
    "evals": "run them yourself; POST /v1/quotes names the price before",
    "fine_tuning": _CHOOSE,
    "images": _TEXT,
    "live": _TEXT,
    "moderations": _LABELS,
    "organization": _SPEND,
    "projects": _KEYS,
    "realtime": "stream with POST /v1/chat/completions or POST /v1/responses",
    "responses": "a response can be made, asked for and cancelled; its job keeps what was sent",
    "safety": _LABELS,
    "skills": _TOOLS,
    "threads": _KEEP,
    "uploads": "send what is to be read in the call itself",
    "vaults": _KEYS,
    "vector_stores": _SEARCH,
    "videos": _TEXT,
    "webhook_endpoints": _MAIL,
    "webhook_event_types": _MAIL,
}
