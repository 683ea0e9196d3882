// The page's wiring: what the user does becomes a request, its answer becomes state, the view follows.

import { KeyNeeded, classify, fetchModel, useKey } from "./api.js";
import { State } from "./state.js";
import { render } from "./view.js";

const state = new State();
const form = document.getElementById("form");
const text = document.getElementById("text");
let running = null;

state.addEventListener("change", () => render(state));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!text.value.trim()) {
    state.fail(new Error("Write or paste a text first."));
    text.focus();
    return;
  }
  running?.abort(); // the newest text wins
  running = new AbortController();
  const { signal } = running;
  state.set({ busy: true, error: null });
  try {
    const result = await classify(text.value, { signal });
    if (!signal.aborted) state.succeed(result);
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof KeyNeeded) askForKey(error);
    state.fail(error);
  }
});

document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(document.getElementById("key").value.trim());
  load();
});

text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

document.getElementById("earlier").addEventListener("click", (event) => {
  const row = event.target.closest("button[data-index]");
  if (!row) return;
  const result = state.history[Number(row.dataset.index)];
  text.value = result.text;
  state.set({ result, error: null });
  text.focus();
});

document.getElementById("forget").addEventListener("click", () => {
  state.set({ history: [] });
  text.focus();
});

function load() {
  fetchModel().then(
    (model) => {
      const asked = state.keyError !== null;
      state.set({ model, modelError: null, keyError: null, error: null });
      if (asked) text.focus();
    },
    (error) => (error instanceof KeyNeeded ? askForKey(error) : state.set({ modelError: error.message })),
  );
}

function askForKey(error) {
  state.set({ keyError: error.message });
  document.getElementById("key").focus();
}

load();
