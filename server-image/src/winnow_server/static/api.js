// The server, as functions. No DOM. Addresses are relative to /ui/, so any path prefix in front of the server works.

let key = null; // in memory only: it is gone when the page is

export function useKey(given) {
  key = given;
}

export class KeyNeeded extends Error {}

export async function fetchModel() {
  return (await ask("../v1/model")).body;
}

export async function fetchExamples() {
  return (await ask("../v1/examples")).body.examples;
}

export function keyInUse() {
  return key !== null;
}

// What /v1/classify is sent: the page's examples of code show the same.
export function requestFor(text, thresholds = {}) {
  return { input: text, ...(Object.keys(thresholds).length ? { thresholds } : {}) };
}

export async function classify(text, { thresholds, signal } = {}) {
  const started = performance.now();
  const { body, headers } = await ask("../v1/classify", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(requestFor(text, thresholds)),
    signal,
  });
  const [item] = body.data;
  const total = performance.now() - started;
  const timing = headers.get("server-timing");
  const [tokenising, waiting, model] = ["tok", "queue", "infer"].map((name) => duration(timing, name));
  return {
    text,
    tried: thresholds,
    version: body.model_version,
    labels: body.labels,
    several: body.problem_type === "multi_label_classification",
    probabilities: item.probs,
    predicted: item.predicted_labels,
    abstained: item.abstained,
    thresholds: body.thresholds,
    tokens: item.tokens,
    originalTokens: item.original_tokens,
    truncated: item.truncated,
    milliseconds: { total, tokenising, waiting, model },
  };
}

// {response} whose body is a stream of lines, or {busy: true} while too many streams run.
export async function openStream(lines, signal) {
  const response = await send("../v1/classify/batch", {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body: lines,
    signal,
  });
  if (response.status === 429) return { busy: true };
  if (!response.ok) await answerOf(response);
  return { response };
}

// Server-Timing: tok;dur=0.4, queue;dur=0.1, infer;dur=11.5
function duration(header, name) {
  const found = new RegExp(`\\b${name};dur=([\\d.]+)`).exec(header ?? "");
  return found ? Number(found[1]) : null;
}

async function ask(url, options) {
  const response = await send(url, options);
  return { body: await answerOf(response), headers: response.headers };
}

async function send(url, options) {
  if (key !== null && !/^[\x21-\x7e]*$/.test(key)) throw new KeyNeeded("A key is printable ASCII without spaces."); // fetch sends no other
  try {
    // Not Authorization: the API server's proxy keeps that for itself.
    const headers = { ...options?.headers, ...(key === null ? {} : { "x-api-key": key }) };
    return await fetch(url, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const words = "The server cannot be reached. Is it still running, and the port still forwarded?";
    throw Object.assign(new Error(words), { code: "unreachable" });
  }
}

async function answerOf(response) {
  const body = await response.json().catch(() => null);
  if (response.status === 401) throw new KeyNeeded(key === null ? "This model answers with an API key only." : body?.error?.message);
  if (!response.ok) {
    const message = body?.error?.message?.replace(/^input\[0\]/, "The text"); // the page sends one
    const error = new Error(message ?? `The server answered ${response.status}.`);
    throw Object.assign(error, { code: body?.error?.code });
  }
  if (body === null) throw new Error("The answer is not JSON. Is something between this page and the server?");
  return body;
}
