// State to DOM: the text's result, the earlier ones, the model's card.

import { keyInUse, requestFor } from "./api.js";
import { abstains, calibration } from "./decision.js";
import { byId, element, fraction, milliseconds, number, percent, say, verdict } from "./dom.js";
import { curl, python } from "./snippets.js";

const DEFAULT_THRESHOLD = 0.5; // where several labels may hold and none is set
let listed = null; // the examples that can be chosen

export function render(state) {
  renderModel(state.model);
  renderExamples(state);
  say("about-error", state.modelError);
  byId("access").hidden = state.keyError === null;
  say("key-error", state.keyError);
  say("error", state.error);
  byId("classify").textContent = state.busy ? "Classifying…" : "Classify";
  byId("form").setAttribute("aria-busy", String(state.busy));
  byId("result").classList.toggle("stale", state.busy);
  byId("result").hidden = state.result === null;
  if (state.result) renderResult(state);
  renderHistory(state.history);
}

function renderModel(model) {
  if (!model) return;
  byId("model-name").textContent = model.id;
  document.title = `${model.id}: try the classifier`;
  fill(byId("about"), [
    ["Checkpoint", model.checkpoint],
    ["Training job", model.training_job.name],
    ["Base model", model.base_model.reference],
    ["Method", model.method],
    ["Task", model.task_detail],
    ["Reads up to", `${number.format(model.max_tokens)} tokens`],
    ["Trained on", rows(model.training_dataset)],
    ...(model.test_dataset ? [["Tested on", rows(model.test_dataset)]] : []),
    ["Computes in", model.precision ?? "still loading"],
    ["Calibration", calibration(model.calibration)],
    ["Abstains", abstains(model.abstain)],
  ]);
  const metrics = Object.entries(model.metrics).filter(([, value]) => value !== null);
  byId("metrics-heading").hidden = metrics.length === 0;
  fill(
    byId("metrics"),
    metrics.map(([name, value]) => [name, fraction.format(value), name === model.primary_metric]),
  );
  fill(
    byId("labels"),
    model.labels.map((label) => [label, Object.hasOwn(model.thresholds, label) ? `from ${percent(model.thresholds[label])} on` : ""]),
  );
  fill(byId("digests"), [
    ["Checkpoint", model.digest],
    ["Base model", model.base_model.digest],
    ["Training rows", model.training_dataset.digest],
    ...(model.test_dataset ? [["Test rows", model.test_dataset.digest]] : []),
    ...(model.decision ? [["Decision", model.decision]] : []),
  ]);
}

function rows(dataset) {
  return `${number.format(dataset.rows)} rows`;
}

function renderExamples({ examples, example }) {
  const select = byId("example");
  byId("examples").hidden = examples.length === 0;
  if (listed !== examples) {
    listed = examples;
    const group = (label, correct) => {
      const options = examples.flatMap((one, index) => (one.correct === correct ? [option(one, index)] : []));
      return options.length ? [element("optgroup", { label }, ...options)] : [];
    };
    select.replaceChildren(
      element("option", { value: "", textContent: "Choose one" }),
      ...group("Predicted right", true),
      ...group("Mistakes", false),
    );
  }
  select.value = example ? String(examples.indexOf(example)) : "";
}

function option(example, index) {
  const words = example.text.replace(/\s+/g, " ").trim();
  return element("option", { value: index, textContent: words.length > 90 ? `${words.slice(0, 90)}…` : words });
}

function renderResult({ model, result, example, whatIf }) {
  const ranked = rank(result, whatIf);
  const names = ranked.filter((one) => one.predicted).map((one) => one.label);
  const top = `${ranked[0].label}, ${percent(ranked[0].probability)}`;
  const { abstained } = result;
  byId("predicted").replaceChildren(
    ...(abstained ? [element("span", { className: "chip unsure", textContent: "abstained" })] : []),
    ...(names.length
      ? names.map((name) => element("span", { className: abstained ? "chip none" : "chip", textContent: name }))
      : [element("span", { className: "chip none", textContent: "no label" })]),
    element("span", { className: "spoken", textContent: ` ${abstained ? "would be predicted" : "predicted"}. Most probable: ${top}.` }),
  );
  const where = model?.abstain ? ` It abstains ${abstains(model.abstain)}.` : "";
  say("abstained", abstained ? `The model is not sure enough of this text: take the answer for no decision.${where}` : null);
  say("expected", example && example.text === result.text ? `The test set says: ${example.expected.join(", ") || "no label"}.` : null);
  say(
    "truncation",
    result.truncated
      ? `The text was cut: the model read ${number.format(result.tokens)} of ${number.format(result.originalTokens)} tokens.`
      : null,
  );
  byId("bars").replaceChildren(...ranked.map(bar));
  byId("bars").scrollTop = 0;
  renderWhatIf(ranked, result, whatIf);
  renderTimes(result);
  const request = { address: String(new URL("../v1/classify", location.href)), body: requestFor(result.text, whatIf), withKey: keyInUse() };
  byId("curl").textContent = curl(request);
  byId("python").textContent = python(request);
}

// Most probable first; a threshold is the one that holds, or null.
function rank({ labels, probabilities, predicted, thresholds, several }, whatIf) {
  return labels
    .map((label, index) => ({
      label,
      probability: probabilities[index],
      predicted: predicted.includes(label),
      threshold: own(whatIf, label) ?? own(thresholds, label) ?? (several ? DEFAULT_THRESHOLD : null),
    }))
    .sort((one, other) => other.probability - one.probability);
}

// A label may have the name of what every object has, as "constructor".
function own(found, label) {
  return Object.hasOwn(found, label) ? found[label] : undefined;
}

function bar({ label, probability, predicted, threshold }) {
  const value = element("span", { className: "value" });
  value.style.width = `${probability * 100}%`;
  const track = element("span", { className: "track", ariaHidden: "true" }, element("span", { className: "clip" }, value));
  if (threshold !== null) {
    const tick = element("span", { className: "limit", title: `counts from ${percent(threshold)} on` });
    tick.style.left = `${threshold * 100}%`;
    track.append(tick);
  }
  const name = element("span", { className: "name", textContent: label, title: label });
  const spoken = `${predicted ? ", predicted" : ""}${threshold === null ? "" : `, counts from ${percent(threshold)} on`}`;
  const share = element("span", { className: "percent", textContent: percent(probability) });
  return element(
    "li",
    { className: predicted ? "bar chosen" : "bar" },
    name,
    share,
    element("span", { className: "spoken", textContent: spoken }),
    track,
  );
}

function renderWhatIf(ranked, result, whatIf) {
  const select = byId("threshold-label");
  const labels = result.labels.join("\n");
  if (select.dataset.labels !== labels) {
    select.dataset.labels = labels;
    select.replaceChildren(...result.labels.map((label) => element("option", { value: label, textContent: label })));
    select.value = ranked[0].label;
  }
  const chosen = ranked.find((one) => one.label === select.value);
  const slider = byId("threshold");
  if (document.activeElement !== slider || chosen.threshold === null) slider.value = chosen.threshold ?? DEFAULT_THRESHOLD;
  byId("threshold-value").textContent = chosen.threshold === null ? "not set" : percent(chosen.threshold);
  slider.setAttribute("aria-valuetext", byId("threshold-value").textContent);
  const tried = Object.keys(whatIf).length > 0;
  byId("threshold-reset").hidden = !tried;
  byId("threshold-words").textContent = tried
    ? "Tried on this page only: others get the thresholds that are set."
    : result.several
      ? "Each label is predicted from its threshold on."
      : "The most probable label is predicted, unless a label has a threshold.";
}

function renderTimes({ tokens, milliseconds: times }) {
  byId("facts").textContent = `${number.format(tokens)} ${tokens === 1 ? "token" : "tokens"} in ${milliseconds(times.total)}`;
  const known = times.tokenising !== null && times.waiting !== null && times.model !== null;
  const inside = known ? times.tokenising + times.waiting + times.model : 0;
  fill(
    byId("latency"),
    known
      ? [
          ["Tokenising", milliseconds(times.tokenising)],
          ["Waiting", milliseconds(times.waiting)],
          ["Model", milliseconds(times.model)],
          ["Way there and back", milliseconds(Math.max(0, times.total - inside))],
        ]
      : [],
  );
}

function renderHistory(history) {
  byId("history").hidden = history.length === 0;
  byId("earlier").replaceChildren(
    ...history.map((result, index) => {
      const button = element("button", { type: "button", className: "row" });
      button.dataset.index = index;
      button.append(
        element("span", { className: "snippet", textContent: result.text.slice(0, 200) }),
        element("span", { className: "verdict", textContent: verdict(result.predicted, result.abstained) }),
        element("span", { className: "percent", textContent: percent(Math.max(...result.probabilities)) }),
      );
      return element("li", {}, button);
    }),
  );
}

function fill(list, entries) {
  list.replaceChildren(
    ...entries.map(([name, value, primary]) =>
      element(
        "div",
        { className: primary ? "primary" : "" },
        element("dt", { textContent: name }),
        element("dd", { textContent: value, title: String(value) }),
      ),
    ),
  );
}
