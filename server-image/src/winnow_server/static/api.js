// The server, as functions. No DOM. Addresses are relative to /ui/, so any path prefix in front of the server works.

let key = null; // in memory only: it is gone when the page is

export function useKey(given) {
  key = given;
}

export class KeyNeeded extends Error {}

export async function fetchModel() {
  return (await ask("../v1/model")).body;
}

export async function classify(text, { signal } = {}) {
  const started = performance.now();
  const { body, headers } = await ask("../v1/classify", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ input: text }),
    signal,
  });
  const [item] = body.data;
  return {
    text,
    labels: body.labels,
    probabilities: item.probs,
    predicted: item.predicted_labels,
    tokens: item.tokens,
    originalTokens: item.original_tokens,
    truncated: item.truncated,
    milliseconds: performance.now() - started,
    modelMilliseconds: duration(headers.get("server-timing"), "infer"),
  };
}

// Server-Timing: tok;dur=0.4, queue;dur=0.1, infer;dur=11.5
function duration(header, name) {
  const found = new RegExp(`\\b${name};dur=([\\d.]+)`).exec(header ?? "");
  return found ? Number(found[1]) : null;
}

async function ask(url, options) {
  let response;
  try {
    // Not Authorization: the API server's proxy keeps that for itself.
    const headers = { ...options?.headers, ...(key === null ? {} : { "x-api-key": key }) };
    response = await fetch(url, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it still running, and the port still forwarded?");
  }
  const body = await response.json().catch(() => null);
  if (response.status === 401) throw new KeyNeeded(key === null ? "This model answers with an API key only." : body?.error?.message);
  if (!response.ok) throw new Error(body?.error?.message ?? `The server answered ${response.status}.`);
  if (body === null) throw new Error("The answer is not JSON. Is something between this page and the server?");
  return { body, headers: response.headers };
}
