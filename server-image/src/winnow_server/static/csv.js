// CSV as spreadsheets write it: quotes, line breaks in cells, commas, semicolons or tabs. No DOM.

const SEPARATORS = [",", ";", "\t"];
const NAMES_OF_TEXT = ["text", "input", "message", "content", "body", "prompt", "sentence", "review", "description"];

const MARK = "\ufeff"; // by which Excel knows UTF-8

// {content, notice, mark} of a file's bytes: UTF-8, UTF-16 with its mark, or else what Excel makes of a CSV in Western countries.
// mark: what its scored rows begin with, so that they open as the file did.
export function decoded(bytes) {
  const start = new Uint8Array(bytes.slice(0, 3));
  const marked = { "255,254": "utf-16le", "254,255": "utf-16be" }[start.slice(0, 2).join()];
  if (marked) return { content: new TextDecoder(marked).decode(bytes), notice: "", mark: MARK };
  try {
    const content = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return { content, notice: "", mark: start.join() === "239,187,191" ? MARK : "" };
  } catch {
    const notice = "The file is not UTF-8 and was read as Windows-1252: look whether accents and umlauts are right.";
    return { content: new TextDecoder("windows-1252").decode(bytes), notice, mark: MARK };
  }
}

// {rows: [[cell, …], …], separator, notice}; a cell keeps its spaces, empty lines are left out. Lines without quotes that fall
// into different numbers of cells are prose with commas, unless the first names a column of texts beside others, and so are
// lines with a quote that never ends: a text each.
export function parse(content) {
  const whole = content.replace(/^\ufeff/, "");
  const named = /^[\r\n]*sep=([,;\t|])(?:\r\n|\r|\n|$)/i.exec(whole); // by which Excel goes, and which it does not show
  const text = named ? whole.slice(named[0].length) : whole;
  const separator = named ? named[1] : separatorOf(text);
  const { rows, open } = cellsOf(text, separator);
  const ragged = rows.findIndex((row) => row.length !== rows[0].length);
  if (!open && ragged < 0) return { rows, separator, notice: "" };
  if (!open && ((rows[0].length > 1 && namedText(rows[0]) >= 0) || text.includes('"'))) {
    const notice = `Row ${ragged + 1} has another number of cells than the first: look whether quotes are missing.`;
    return { rows, separator, notice };
  }
  const lines = text.split(/\r\n|\r|\n/).filter((line) => line);
  return { rows: lines.map((line) => [line]), separator, notice: "Not read as CSV, whose rows would differ in their cells: each line is a text." };
}

// open: whether the text ends within quotes.
function cellsOf(text, separator) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  let begun = false; // something of this row was read, an empty cell in quotes too
  const endCell = () => {
    row.push(cell);
    cell = "";
  };
  const endRow = () => {
    if (begun || row.length > 0) {
      endCell();
      rows.push(row);
    }
    row = [];
    begun = false;
  };
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (quoted) {
      if (character !== '"') cell += character;
      else if (text[at + 1] === '"') {
        cell += '"';
        at++;
      } else quoted = false;
    } else if (character === '"' && cell === "") quoted = begun = true;
    else if (character === separator) {
      endCell();
      begun = true;
    } else if (character === "\n" || character === "\r") {
      if (character === "\r" && text[at + 1] === "\n") at++;
      endRow();
    } else {
      cell += character;
      begun = true;
    }
  }
  endRow();
  return { rows, open: quoted };
}

export function format(rows, separator) {
  const special = new RegExp(`["\\r\\n${separator}]|^\\s|\\s$`);
  const cell = (value) => (special.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return rows.map((row) => `${row.map((value) => cell(String(value))).join(separator)}\r\n`).join("");
}

// Where the texts are: by the column's name, else the column with the longest cells.
export function columnOfText(rows) {
  const named = namedText(rows[0]);
  if (named >= 0) return named;
  const sizes = rows[0].map((_, column) => rows.slice(0, 100).reduce((sum, row) => sum + (row[column] ?? "").length, 0));
  return sizes.indexOf(Math.max(...sizes));
}

function namedText(row) {
  return row.findIndex((name) => NAMES_OF_TEXT.includes(name.trim().toLowerCase()));
}

// A first row with a name in it that columns of texts have, or of several short cells without a digit.
export function hasHeader(rows) {
  if (rows.length < 2) return false;
  if (namedText(rows[0]) >= 0) return true;
  const names = rows[0].map((name) => name.trim());
  return names.length > 1 && names.every((name) => name.length > 0 && name.length <= 30 && !/\d/.test(name));
}

// Of the first line that is not empty, outside of quotes. A line without any is one column.
function separatorOf(text) {
  const counts = SEPARATORS.map(() => 0);
  let quoted = false;
  for (const character of text.replace(/^[\r\n]+/, "")) {
    if (character === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (character === "\n" || character === "\r") break;
    else if (SEPARATORS.includes(character)) counts[SEPARATORS.indexOf(character)]++;
  }
  return SEPARATORS[counts.indexOf(Math.max(...counts))];
}
