// Many texts through the stream endpoint: in parts, since browsers send a body whole; answers are read as they come. No DOM.

import { openStream } from "./api.js";

const PART_LINES = 256;
const PART_CHARACTERS = 512 * 1024;
const WAIT_MILLISECONDS = 2_000;
const TRIES = 30;
const GONE = ["unreachable", "draining", "not_ready"];
const WENT = "The server went away before all rows were scored. Those that were can be downloaded. Try again.";

// Calls onAnswer(index, answer) for each text, in order. Rejects with AbortError when the signal says so.
export async function classifyAll(texts, { signal, onAnswer }) {
  for (let first = 0; first < texts.length; ) {
    const end = endOfPart(texts, first);
    const body = texts.slice(first, end).map((text) => `${JSON.stringify(text)}\n`).join("");
    let next = first;
    const response = await opened(body, signal).catch((error) => {
      throw first > 0 && GONE.includes(error.code) ? new Error(WENT) : error; // it went between two parts
    });
    for await (const line of lines(response)) {
      if (line.error?.code === "draining") throw new Error(WENT);
      onAnswer(next, line.error ? inWords(line) : line);
      next++;
    }
    if (next < end) throw new Error(WENT);
    first = end;
  }
}

// The server names the field of the line.
function inWords({ error }) {
  return { error: { ...error, message: error.message.replace(/^text\b/, "The text") } };
}

function endOfPart(texts, first) {
  let characters = 0;
  let end = first;
  while (end < texts.length && end - first < PART_LINES && (end === first || characters + texts[end].length <= PART_CHARACTERS)) {
    characters += texts[end].length;
    end++;
  }
  return end;
}

// Few streams may run at once: another's end is waited for.
async function opened(body, signal) {
  for (let tries = 1; ; tries++) {
    const { response, busy } = await openStream(body, signal);
    if (!busy) return response;
    if (tries === TRIES) throw new Error("Too many streams run on this server. Try again later.");
    await pause(WAIT_MILLISECONDS, signal);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

async function* lines(response) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : new Error(WENT);
      });
      held += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const complete = held.split("\n");
      held = complete.pop();
      for (const line of complete) if (line) yield JSON.parse(line);
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // else the server goes on for a reader that has stopped
  }
}
