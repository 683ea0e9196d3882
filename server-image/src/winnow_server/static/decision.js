// The model card's decision in words: how probabilities are calibrated, and when an answer is abstained. No DOM.

import { percent } from "./dom.js";

const factor = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

export function calibration(found) {
  if (!found) return "none";
  if (found.temperature != null) return `temperature ${factor.format(found.temperature)}`;
  return `${found.method}, each label by itself`;
}

export function abstains(found) {
  const rules = [
    ...(found?.min_probability == null ? [] : [`where no label has ${percent(found.min_probability)}`]),
    ...(found?.band == null ? [] : [`less than ${factor.format(found.band * 100)} points from a threshold`]),
  ];
  return rules.join(", or ") || "never";
}
