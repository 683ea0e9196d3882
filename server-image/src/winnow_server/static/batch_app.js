// Many texts at once, wired: a CSV is pasted, chosen or dropped, its column of texts is scored, and it is given back.
//
// state.batch: {rows, separator, header, column, name, mark, notice} as read, then answers (by row), running, error, cancelled.

import { KeyNeeded } from "./api.js";
import { classifyAll } from "./batch.js";
import { columnOfText, decoded, format, hasHeader, parse } from "./csv.js";
import { byId } from "./dom.js";

const LARGEST_BYTES = 64 * 1024 * 1024; // rows and answers are held in this tab
const RENDER_MILLISECONDS = 100;

export function wireBatch(state, askForKey) {
  const card = byId("batch");
  let running = null;

  byId("file").addEventListener("change", (event) => take(event.target.files[0]));
  byId("file").addEventListener("click", (event) => (event.target.value = "")); // a file that was put right may be chosen again
  byId("pasted").addEventListener("input", (event) => read(event.target.value, "pasted.csv"));
  byId("header").addEventListener("change", (event) => change({ header: event.target.checked, answers: [] }));
  byId("column").addEventListener("change", (event) => change({ column: Number(event.target.value), answers: [] }));
  byId("score").addEventListener("click", score);
  byId("cancel").addEventListener("click", () => running?.abort());
  byId("download").addEventListener("click", download);

  for (const kind of ["dragenter", "dragover"]) {
    card.addEventListener(kind, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      card.classList.add("target");
    });
  }
  card.addEventListener("dragleave", (event) => {
    if (!card.contains(event.relatedTarget)) card.classList.remove("target");
  });
  card.addEventListener("drop", (event) => {
    card.classList.remove("target");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });

  function change(changes) {
    state.setBatch({ ...state.batch, ...changes });
  }

  // What is scored of the rows before has no place to go any more.
  function replace(batch) {
    running?.abort();
    state.setBatch(batch);
  }

  async function take(file) {
    if (!file) return;
    if (file.size > LARGEST_BYTES) {
      replace({ rows: [], error: "The file is larger than 64 MiB. Send it to /v1/classify/batch instead." });
      return;
    }
    byId("pasted").value = "";
    if (!file.size) {
      replace({ rows: [], error: "The file is empty." });
      return;
    }
    const { content, notice, mark } = decoded(await file.arrayBuffer());
    read(content, file.name, notice, mark);
  }

  function read(content, name, notice = "", mark = "") {
    const { rows, separator, notice: ragged } = parse(content);
    if (!rows.length) {
      replace(content ? { rows, error: "There is no row in it." } : null);
      return;
    }
    const header = hasHeader(rows);
    replace({ rows, separator, name, mark, notice: `${notice} ${ragged}`.trim(), header, column: columnOfText(rows), answers: [], error: null });
  }

  async function score() {
    const { rows, header, column } = state.batch;
    const texts = rows.slice(header ? 1 : 0).map((row) => row[column] ?? "");
    const answers = [];
    running = new AbortController();
    const { signal } = running;
    let shown = 0;
    change({ answers, running: true, cancelled: false, error: null });
    byId("cancel").focus();
    try {
      await classifyAll(texts, {
        signal,
        onAnswer(index, answer) {
          if (signal.aborted) return;
          answers[index] = answer;
          if (performance.now() - shown > RENDER_MILLISECONDS) {
            shown = performance.now();
            change({});
          }
        },
      });
      end({}, "download");
    } catch (error) {
      if (state.batch?.answers !== answers) return; // other rows were taken meanwhile
      const unsaid = signal.aborted || error instanceof KeyNeeded; // the field of the key says why it is asked for
      end({ cancelled: signal.aborted, error: unsaid ? null : error.message }, "score");
      if (error instanceof KeyNeeded) askForKey(error);
    }
  }

  // The focus goes from Cancel to what takes its place, unless the user has gone elsewhere meanwhile.
  function end(changes, next) {
    const stayed = document.activeElement === byId("cancel");
    change({ running: false, ...changes });
    if (stayed) byId(next).focus();
  }

  function download() {
    const address = URL.createObjectURL(new Blob([state.batch.mark, scored(state.batch)], { type: "text/csv" }));
    const link = Object.assign(document.createElement("a"), { href: address, download: nameOfScored(state.batch.name) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }
}

function nameOfScored(name) {
  return `${name.replace(/\.\w+$/, "")}-scored.csv`;
}

// The rows as they came, with what the model said of them: in the order of the file, only those with an answer.
// Labels are the answers' own: another checkpoint may have taken over since the page was opened.
function scored({ rows, separator, header, answers }) {
  const labels = [...new Set(answers.flatMap((answer) => Object.keys(answer.scores ?? {})))];
  const width = rows.reduce((most, row) => Math.max(most, row.length), 0); // too many for the arguments of one call
  const padded = (row) => [...row, ...Array(width - row.length).fill("")];
  const cells = answers.map((answer, index) => [
    ...padded(rows[index + (header ? 1 : 0)]),
    answer.error ? "" : answer.predicted_labels.join(" | "),
    ...labels.map((label) => (Object.hasOwn(answer.scores ?? {}, label) ? answer.scores[label] : "")),
    answer.error ? "" : answer.abstained,
    answer.error ? "" : answer.truncated,
    answer.error?.message ?? "",
  ]);
  const names = header ? padded(rows[0]) : Array.from({ length: width }, (_, column) => `column ${column + 1}`);
  const told = ["predicted", ...labels.map((label) => `probability of ${label}`), "abstained", "truncated", "error"];
  return format([[...names, ...told], ...cells], separator);
}
