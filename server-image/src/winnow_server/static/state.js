// What the page knows. A change is announced as one "change" event; the view reads what it needs. The rows of a CSV have an
// event of their own, "batch": while they are scored it comes ten times a second, and what else is made anew loses its focus.

const HISTORY_LENGTH = 20;

export class State extends EventTarget {
  model = null;
  modelError = null;
  keyError = null; // why a key is asked for
  examples = [];
  example = null; // that stands in the text box, unchanged
  busy = false;
  error = null;
  result = null;
  whatIf = {}; // thresholds by label that are tried out
  history = [];
  batch = null; // see batch_app.js

  set(changes) {
    Object.assign(this, changes);
    this.dispatchEvent(new Event("change"));
  }

  setBatch(batch) {
    this.batch = batch;
    this.dispatchEvent(new Event("batch"));
  }

  succeed(result) {
    const others = this.history.filter((earlier) => earlier.text !== result.text);
    this.set({ busy: false, error: null, result, history: [result, ...others].slice(0, HISTORY_LENGTH) });
  }

  fail(error) {
    this.set({ busy: false, error: error.message, result: null });
  }
}
