// The `openai` package for JavaScript: one line of JSON a call.
// Reads what to ask from standard input. Knows nothing of the market but `base_url` and `api_key`.

import { json } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { toFile } from "openai";
import { VERSION } from "openai/version";

const OVER = ["completed", "failed", "cancelled", "expired"];
const BATCH_MS = 120_000;

function tell(call, asked, answer, usage, receipt, more = {}) {
  const paid = usage ? { cost: usage.cost, atoms: usage.cost_details.atoms, receipt } : {};
  console.log(JSON.stringify({ call, asked, answer, ...more, ...paid }));
}

async function all(stream) {
  const found = [];
  for await (const item of stream) found.push(item);
  return found;
}

async function chats(client, given) {
  const messages = [{ role: "user", content: given.first }];
  const chat = { model: given.chat_model, max_tokens: given.max_tokens, temperature: 0, messages };
  const answer = await client.chat.completions.create(chat);
  tell("chat", "first", answer.choices[0].message.content, answer.usage, answer.receipt);

  const chunks = await all(await client.chat.completions.create({ ...chat, stream: true }));
  const pieces = chunks.map((chunk) => chunk.choices[0]?.delta.content).filter(Boolean);
  const last = chunks.at(-1);
  tell("stream", "first", pieces.join(""), last.usage, last.receipt, { pieces: pieces.length });
}

async function embeddings(client, given) {
  const answer = await client.embeddings.create({ model: given.embed_model, input: given.texts });
  const vectors = answer.data.map((row) => row.embedding);
  tell("embeddings", "texts", vectors, answer.usage, answer.receipt);
}

async function responses(client, given) {
  const call = { model: given.chat_model, max_output_tokens: given.max_tokens, temperature: 0, input: given.first };
  const answer = await client.responses.create(call);
  tell("responses", "first", answer.output_text, answer.usage, answer.receipt);

  const events = await all(await client.responses.create({ ...call, stream: true }));
  const pieces = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
  const last = events.at(-1).response;
  tell("responses stream", "first", pieces.join(""), last.usage, last.receipt, { pieces: pieces.length });
}

async function batches(client, given) {
  const sent = await toFile(Buffer.from(given.lines), "calls.jsonl");
  const file = await client.files.create({ file: sent, purpose: "batch" });
  const listed = (await all(client.files.list())).filter((row) => row.id === file.id);
  if (listed.length !== 1) throw new Error("the file is not in the list");
  const kept = await client.files.retrieve(file.id);
  if (kept.bytes !== Buffer.byteLength(given.lines)) throw new Error(`the file has ${kept.bytes} bytes`);
  tell("files", "lines", await (await client.files.content(file.id)).text());

  const order = { input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" };
  let batch = await client.batches.create(order);
  const deadline = Date.now() + BATCH_MS;
  while (!OVER.includes(batch.status) && Date.now() < deadline) {
    await sleep(300);
    batch = await client.batches.retrieve(batch.id);
  }
  if (batch.status !== "completed") throw new Error(`the batch is ${batch.status}`);
  const out = await (await client.files.content(batch.output_file_id)).text();
  for (const line of out.trim().split("\n").map((text) => JSON.parse(text))) {
    const { choices, usage, receipt } = line.response.body;
    tell(`batches ${line.custom_id}`, line.custom_id, choices[0].message.content, usage, receipt);
  }
  await client.files.delete(file.id);
}

console.log(JSON.stringify({ version: VERSION }));
const given = await json(process.stdin);
const client = new OpenAI({ baseURL: `${given.gateway_url}/v1`, apiKey: given.api_key });
for (const step of [chats, embeddings, responses, batches]) await step(client, given);
