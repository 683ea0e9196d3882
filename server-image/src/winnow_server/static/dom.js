// Small helpers of the views. Texts and names go in as textContent only; the page never builds HTML from them.

export const byId = (id) => document.getElementById(id);
export const number = new Intl.NumberFormat("en");
export const fraction = new Intl.NumberFormat("en", { maximumFractionDigits: 4 });

export function say(id, message) {
  byId(id).hidden = !message;
  byId(id).textContent = message ?? "";
}

export function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function percent(probability) {
  const value = probability * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value < 100 && value > 99.9) return "> 99.9 %";
  return `${value.toFixed(1)} %`;
}

// What the server decided of a text, in one line.
export function verdict(predicted, abstained) {
  const labels = predicted.join(", ") || "no label";
  return abstained ? `abstained (${labels})` : labels;
}

export function milliseconds(value) {
  return value < 10 ? `${value.toFixed(1)} ms` : `${number.format(Math.round(value))} ms`;
}
