// State to DOM. Texts and names go in as textContent only; the page never builds HTML from them.

const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const fraction = new Intl.NumberFormat("en", { maximumFractionDigits: 4 });

export function render(state) {
  renderModel(state.model);
  say("about-error", state.modelError);
  byId("access").hidden = state.keyError === null;
  say("key-error", state.keyError);
  say("error", state.error);
  byId("classify").textContent = state.busy ? "Classifying…" : "Classify";
  byId("form").setAttribute("aria-busy", String(state.busy));
  byId("result").classList.toggle("stale", state.busy);
  byId("result").hidden = state.result === null;
  if (state.result) renderResult(state.result);
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
    ["Labels", number.format(model.labels.length)],
    ["Reads up to", `${number.format(model.max_tokens)} tokens`],
    ["Digest", model.digest],
  ]);
  const metrics = Object.entries(model.metrics).filter(([, value]) => value !== null);
  byId("metrics-heading").hidden = metrics.length === 0;
  fill(
    byId("metrics"),
    metrics.map(([name, value]) => [name, fraction.format(value), name === model.primary_metric]),
  );
}

function renderResult(result) {
  const ranked = rank(result);
  const names = ranked.filter((one) => one.predicted).map((one) => one.label);
  const top = `${ranked[0].label}, ${percent(ranked[0].probability)}`;
  byId("predicted").replaceChildren(
    ...(names.length
      ? names.map((name) => element("span", { className: "chip", textContent: name }))
      : [element("span", { className: "chip none", textContent: "no label" })]),
    element("span", { className: "spoken", textContent: ` predicted. Most probable: ${top}.` }),
  );
  say(
    "truncation",
    result.truncated
      ? `The text was cut: the model read the first ${number.format(result.tokens)} of ${number.format(result.originalTokens)} tokens.`
      : null,
  );
  byId("bars").replaceChildren(...ranked.map(bar));
  byId("bars").scrollTop = 0;
  const model = result.modelMilliseconds === null ? "" : `, ${milliseconds(result.modelMilliseconds)} of them in the model`;
  const tokens = `${number.format(result.tokens)} ${result.tokens === 1 ? "token" : "tokens"}`;
  byId("facts").textContent = `${tokens} in ${milliseconds(result.milliseconds)}${model}`;
}

function rank({ labels, probabilities, predicted }) {
  return labels
    .map((label, index) => ({ label, probability: probabilities[index], predicted: predicted.includes(label) }))
    .sort((one, other) => other.probability - one.probability);
}

function bar({ label, probability, predicted }) {
  const value = element("span", { className: "value" });
  value.style.width = `${probability * 100}%`;
  const track = element("span", { className: "track", ariaHidden: "true" }, value);
  const name = element("span", { className: "name", textContent: label, title: label });
  const share = element("span", { className: "percent", textContent: percent(probability) });
  return element("li", { className: predicted ? "bar chosen" : "bar" }, name, share, track);
}

function renderHistory(history) {
  byId("history").hidden = history.length === 0;
  byId("earlier").replaceChildren(
    ...history.map((result, index) => {
      const button = element("button", { type: "button", className: "row" });
      button.dataset.index = index;
      button.append(
        element("span", { className: "snippet", textContent: result.text.slice(0, 200) }),
        element("span", { className: "verdict", textContent: result.predicted.join(", ") || "no label" }),
        element("span", { className: "percent", textContent: percent(Math.max(...result.probabilities)) }),
      );
      return element("li", {}, button);
    }),
  );
}

function say(id, message) {
  byId(id).hidden = !message;
  byId(id).textContent = message ?? "";
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

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function percent(probability) {
  const value = probability * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value < 100 && value > 99.9) return "> 99.9 %";
  return `${value.toFixed(1)} %`;
}

function milliseconds(value) {
  return value < 10 ? `${value.toFixed(1)} ms` : `${number.format(Math.round(value))} ms`;
}
