// Rows: a table by columns, whose texts are stored once.

function readRows() {
  const { length, columns } = JSON.parse(document.getElementById("page-data").textContent);
  const rows = { length, columns, names: Object.keys(columns) };
  const find = ({ values, codes }, place) => (codes ? (codes[place] < 0 ? null : values[codes[place]]) : values[place]);
  rows.get = (name, place) => {
    const value = find(columns[name], place);
    return columns[name].kind === "number" && value !== null ? Number(value) : value;
  };
  rows.text = (name, place) => {
    const value = find(columns[name], place); // in all its digits
    return value === null || value === "" ? MISSING : String(value);
  };
  return rows;
}

function formatNumber(value, unit) {
  if (value === null || !Number.isFinite(value)) return value === null ? MISSING : String(value);
  const text = unit === "fraction" ? (100 * value).toFixed(2) : String(Number(value.toPrecision(5)));
  return text.replace("-", "−");
}

function formatEstimate(rows, place) {
  const unit = rows.get("unit", place);
  const [value, low, high] = ["value", "low", "high"].map((name) => formatNumber(rows.get(name, place), unit));
  const n = rows.get("n", place);
  return {
    value: unit === "fraction" && value !== MISSING ? `${value} %` : value,
    interval: `[${low}, ${high}]`,
    n: n === null ? MISSING : count(n),
  };
}

const splitSettings = (text) =>
  text.split(";").filter(Boolean).map((piece) => {
    const end = piece.indexOf("=");
    return end < 0 ? [piece, ""] : [piece.slice(0, end), piece.slice(end + 1)];
  });

function makeList(pairs) {
  const entries = pairs.map(([name, ...shown]) =>
    make("div", {}, make("dt", {}, isolate(name)), make("dd", {}, ...shown)),
  );
  return make("dl", {}, ...entries);
}

const CALL = /^([\w-]+)\(([\w-]+(?:=[^(),]*)?(?:,[\w-]+(?:=[^(),]*)?)*)\)$/;

/** The value of a setting; one like "name(key=value,…)" as the name and a list. */
function describeSetting(text) {
  const call = CALL.exec(text);
  if (!call) return [isolate(text)];
  const pairs = splitSettings(call[2].replaceAll(",", ";"));
  return [isolate(call[1]), makeList(pairs.map(([key, value]) => [key, isolate(value)]))];
}

function makeCommand(command) {
  // Options are not broken behind their hyphens.
  const mark = (word) => (word.startsWith("--") ? make("span", { class: "whole" }, word) : word);
  const words = command.split(/(\s+)/).map(mark);
  const code = make("code", {}, make("bdi", {}, ...words));
  const status = make("span", { class: "count", role: "status" });
  const button = makeButton("Copy", async () => {
    try {
      await navigator.clipboard.writeText(command);
      status.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(code);
      status.textContent = "Selected: copy it with the keyboard.";
    }
  });
  return make("div", { class: "command" }, make("pre", {}, code), button, status);
}

function describeRow(rows, place) {
  const { value, interval, n } = formatEstimate(rows, place);
  const command = rows.get("command", place);
  const fields = rows.names.filter((name) => name !== "command").map((name) => {
    const text = rows.text(name, place);
    const split = (name === "protocol" || name === "versions") && text !== MISSING;
    const settings = split ? splitSettings(text).map(([key, setting]) => [key, ...describeSetting(setting)]) : [];
    return [name.replaceAll("_", " "), split ? makeList(settings) : isolate(text)];
  });
  return make(
    "div",
    { class: "row" },
    make("p", { class: "estimate" }, make("strong", {}, value), ` ${interval}, n = ${n}`),
    make("h3", {}, "Command"),
    command ? makeCommand(command) : make("p", {}, "Not known: the row was made before rows named their command."),
    make("h3", {}, "Row"),
    makeList(fields),
  );
}

function startRecord(rows) {
  const dialog = document.getElementById("page-record");
  const content = document.getElementById("page-record-content");
  const open = (title, ...children) => {
    document.getElementById("page-record-title").replaceChildren(isolate(title));
    content.replaceChildren(...children);
    dialog.showModal();
    dialog.scrollTop = 0;
  };
  document.getElementById("page-record-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside its content
  });

  const showHint = (title, hint) =>
    open(title, make("p", {}, "This number is missing. What makes it:"), makeCommand(hint));

  function showRows(title, places) {
    const shown = make("div", {}, describeRow(rows, places[0]));
    if (places.length === 1) return open(title, shown);
    const columns = ["model", "condition", "metric"].filter(
      (name) => name === "condition" || places.some((place) => rows.get(name, place) !== rows.get(name, places[0])),
    );
    const list = places.map((place, position) => {
      const { value, interval } = formatEstimate(rows, place);
      const button = make("button", { type: "button", class: "number", "aria-pressed": position === 0 }, value);
      button.addEventListener("click", () => {
        list.forEach((line) => line.querySelector("button").setAttribute("aria-pressed", "false"));
        button.setAttribute("aria-pressed", "true");
        shown.replaceChildren(describeRow(rows, place));
      });
      const names = columns.map((name) => make("td", {}, isolate(rows.text(name, place))));
      return make("tr", {}, ...names, make("td", { class: "r" }, button), make("td", { class: "r" }, interval));
    });
    const titles = [...columns.map((name) => [name, "l"]), ["value", "r"], ["95 % interval", "r"]];
    const heads = titles.map(([title, side]) => make("th", { scope: "col", class: side }, title));
    const table = make(
      "table",
      {},
      make("caption", {}, `This number is of ${count(places.length)} rows. Choose one:`),
      make("thead", {}, make("tr", {}, ...heads)),
      make("tbody", {}, ...list),
    );
    return open(title, make("div", { class: "scroll list", tabindex: 0 }, table), shown);
  }

  for (const cell of document.querySelectorAll("[data-rows], [data-hint]")) {
    const button = make("button", { type: "button", class: "number", "aria-haspopup": "dialog" });
    button.append(...cell.childNodes);
    if (!cell.dataset.rows) button.append(make("span", { class: "unseen" }, " missing: what to run"));
    cell.append(button);
    button.addEventListener("click", () => {
      const head = cell.closest("table").tHead.rows[0];
      const title = [cell.parentElement.cells[0], head.cells[cell.cellIndex]].map((one) => one.textContent.trim());
      if (cell.dataset.rows) showRows(title.join(" · "), cell.dataset.rows.split(" ").map(Number));
      else showHint(title.join(" · "), cell.dataset.hint);
    });
  }
  return showRows;
}
