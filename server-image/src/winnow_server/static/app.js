// The page's wiring: what the user does becomes a request, its answer becomes state, the view follows.

import { KeyNeeded, classify, fetchExamples, fetchModel, useKey } from "./api.js";
import { wireBatch } from "./batch_app.js";
import { renderBatch } from "./batch_view.js";
import { byId } from "./dom.js";
import { State } from "./state.js";
import { render } from "./view.js";

const SLIDER_MILLISECONDS = 120; // a slider on its way asks for nothing

const state = new State();
const form = byId("form");
const text = byId("text");
let running = null;
let later = null;

state.addEventListener("change", () => render(state));
state.addEventListener("batch", () => renderBatch(state.batch));

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!text.value.trim()) {
    state.fail(new Error("Write or paste a text first."));
    text.focus();
    return;
  }
  run(text.value);
});

async function run(words) {
  clearTimeout(later);
  running?.abort(); // the newest text wins
  running = new AbortController();
  const { signal } = running;
  state.set({ busy: true, error: null });
  try {
    const result = await classify(words, { thresholds: state.whatIf, signal });
    if (signal.aborted) return;
    state.succeed(result);
    if (state.model && state.model.model_version !== result.version) load(); // another checkpoint took over
  } catch (error) {
    if (signal.aborted) return;
    if (error.code === "label_unknown") {
      // Thresholds were tried on a checkpoint with other labels.
      state.set({ whatIf: {} });
      return run(words);
    }
    if (error instanceof KeyNeeded) askForKey(error);
    state.fail(error);
  }
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value.trim());
  load();
});

text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

text.addEventListener("input", () => {
  if (state.example && text.value !== state.example.text) state.set({ example: null });
});

byId("example").addEventListener("change", (event) => {
  const example = state.examples[Number(event.target.value)];
  if (!example) return;
  text.value = example.text;
  state.set({ example });
  form.requestSubmit();
});

// The server decides, with the thresholds that are tried: the page has no rules of its own.
byId("threshold").addEventListener("input", (event) => {
  state.set({ whatIf: { ...state.whatIf, [byId("threshold-label").value]: Number(event.target.value) } });
  clearTimeout(later);
  later = setTimeout(() => state.result && run(state.result.text), SLIDER_MILLISECONDS);
});

byId("threshold-label").addEventListener("change", () => render(state));

byId("threshold-reset").addEventListener("click", () => {
  state.set({ whatIf: {} });
  byId("threshold").focus(); // the button is gone
  if (state.result) run(state.result.text);
});

for (const button of document.querySelectorAll("button[data-copies]")) {
  button.addEventListener("click", () => copy(byId(button.dataset.copies), button));
}

byId("earlier").addEventListener("click", (event) => {
  const row = event.target.closest("button[data-index]");
  if (!row) return;
  const result = state.history[Number(row.dataset.index)];
  text.value = result.text;
  text.focus();
  state.set({ example: null, error: null });
  // Judged by other thresholds than those that the page shows now, it is judged again.
  if (result.tried === state.whatIf) state.set({ result });
  else run(result.text);
});

byId("forget").addEventListener("click", () => {
  state.set({ history: [] });
  text.focus();
});

// The clipboard's own interface is there on https and localhost only.
async function copy(from, button) {
  const selection = getSelection();
  selection.selectAllChildren(from);
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(from.textContent);
    else if (!document.execCommand("copy")) return; // it is selected: the user can copy it
  } catch {
    if (!document.execCommand("copy")) return;
  }
  byId("copied").textContent = `${button.dataset.name} copied.`;
}

function load() {
  fetchModel().then(
    (model) => {
      const asked = state.keyError !== null;
      state.set({ model, modelError: null, keyError: null, error: null });
      if (asked) text.focus();
      fetchExamples().then(
        (examples) => state.set({ examples, example: null }),
        () => {}, // a server without examples is no error
      );
    },
    (error) => (error instanceof KeyNeeded ? askForKey(error) : state.set({ modelError: error.message })),
  );
}

function askForKey(error) {
  state.set({ keyError: error.message });
  byId("key").focus();
}

wireBatch(state, askForKey);
load();
