// The card for many texts: state to DOM.

import { byId, element, number, percent, say, verdict } from "./dom.js";

const PREVIEW_ROWS = 5;
const PREVIEW_CHARACTERS = 160;

export function renderBatch(batch) {
  const read = batch?.rows.length > 0;
  const running = Boolean(batch?.running);
  say("batch-error", batch?.error);
  say("batch-notice", batch?.notice);
  byId("batch-columns").hidden = !read;
  byId("batch-actions").hidden = !read;
  byId("batch-progress").hidden = !read || !batch.answers.length;
  byId("preview").hidden = !read;
  byId("score").hidden = running;
  byId("cancel").hidden = !running;
  byId("download").hidden = running || !batch?.answers?.length;
  if (!read) return;
  const { rows, header, column, answers } = batch;
  const count = rows.length - (header ? 1 : 0);
  byId("header").checked = header;
  byId("header").disabled = byId("column").disabled = running;
  fillColumns(rows[0], header, column);
  byId("score").disabled = count === 0;
  byId("score").textContent = `Score ${number.format(count)} ${count === 1 ? "row" : "rows"}`;
  byId("scored").max = count;
  byId("scored").value = answers.length;
  const wrong = answers.filter((answer) => answer.error).length;
  const failed = wrong ? `, ${number.format(wrong)} of them with an error` : "";
  const unsure = answers.filter((answer) => answer.abstained).length;
  const abstained = unsure ? `, ${number.format(unsure)} of them abstained` : "";
  const end = batch.cancelled ? " Cancelled." : "";
  byId("scored-words").ariaLive = running ? "off" : "polite"; // only the end is read out: who wants to know asks the bar
  byId("scored-words").textContent = `${number.format(answers.length)} of ${number.format(count)} rows${failed}${abstained}.${end}`;
  renderPreview(rows.slice(header ? 1 : 0, (header ? 1 : 0) + PREVIEW_ROWS), column, answers);
}

function fillColumns(first, header, chosen) {
  const names = first.map((name, index) => (header && name.trim() ? name.trim().slice(0, 60) : `Column ${index + 1}`));
  const select = byId("column");
  const shown = [...select.options].map((option) => option.textContent);
  if (shown.join("\n") !== names.join("\n")) {
    select.replaceChildren(...names.map((name, index) => element("option", { value: index, textContent: name })));
  }
  select.value = String(chosen);
}

function renderPreview(rows, column, answers) {
  byId("preview-rows").replaceChildren(
    ...rows.map((row, index) => {
      const answer = answers[index];
      return element(
        "tr",
        {},
        element("td", { textContent: (row[column] ?? "").slice(0, PREVIEW_CHARACTERS) }),
        element("td", { className: answer?.error ? "failed" : "verdict", textContent: inWords(answer) }),
        element("td", { className: "percent", textContent: answer?.scores ? percent(Math.max(...Object.values(answer.scores))) : "" }),
      );
    }),
  );
}

function inWords(answer) {
  if (!answer) return "";
  if (answer.error) return answer.error.message;
  return verdict(answer.predicted_labels, answer.abstained);
}
