// All rows: a page of them at a time, so that thousands open at once.

const PAGE = 50; // rows that are listed at once
const SHORT = 18; // characters of a cell that is not broken into lines
const LISTED = [
  ["suite", "suite", "l"],
  ["model", "model", "l"],
  ["dataset", "data set", "l"],
  ["condition", "condition", "l"],
  ["metric", "metric", "l"],
  ["value", "value", "r"],
  ["low", "95 % interval", "r"],
  ["n", "n", "r"],
];

function keyRows(rows, name) {
  const places = Array.from({ length: rows.length }, (_, place) => place);
  const { kind, values, codes } = rows.columns[name];
  if (kind === "number") return places.map((place) => rows.get(name, place));
  const order = values.map((_, code) => code).sort((one, other) => collator.compare(values[one], values[other]));
  const ranks = new Map(order.map((code, rank) => [code, rank]));
  return codes.map((code) => (code < 0 || values[code] === "" ? null : ranks.get(code)));
}

/** A test of whether any field of a row holds a word; texts are searched once, not once a row. */
function matchWord(rows, word) {
  const tests = rows.names.map((name) => {
    const { values, codes } = rows.columns[name];
    const found = values.map((value) => String(value ?? "").toLowerCase().includes(word));
    return codes ? (place) => codes[place] >= 0 && found[codes[place]] : (place) => found[place];
  });
  return (place) => tests.some((test) => test(place));
}

function listRow(rows, place, showRows) {
  const { value, interval, n } = formatEstimate(rows, place);
  const title = [rows.text("model", place), rows.text("condition", place), rows.text("metric", place)].join(" · ");
  const open = () => showRows(title, [place]);
  const shown = {
    value: () => make("button", { type: "button", class: "number", "aria-haspopup": "dialog", click: open }, value),
    low: () => interval,
    n: () => n,
  };
  const cells = LISTED.map(([name, , side]) => {
    if (shown[name]) return make("td", { class: side }, shown[name]());
    const text = rows.text(name, place);
    return make("td", { class: text.length <= SHORT ? `${side} short` : side }, isolate(text));
  });
  return make("tr", {}, ...cells);
}

function startRows(rows, showRows) {
  const section = document.getElementById("page-rows");
  let order = orderKeys(Array.from({ length: rows.length }), 0);
  let found = order;
  let page = 0;
  const body = make("tbody");
  const status = make("span", { class: "count", role: "status" });
  const turn = (step) => () => {
    page += step;
    list();
  };
  const back = makeButton("Previous", turn(-1));
  const forth = makeButton("Next", turn(1));

  function list() {
    const start = page * PAGE;
    const shown = found.slice(start, start + PAGE);
    body.replaceChildren(...shown.map((place) => listRow(rows, place, showRows)));
    back.disabled = page === 0;
    forth.disabled = start + PAGE >= found.length;
    const of = found.length === rows.length ? "" : ` that match, of ${count(rows.length)}`;
    status.textContent = found.length
      ? `Rows ${count(start + 1)}–${count(start + shown.length)} of ${count(found.length)}${of}`
      : `No row of ${count(rows.length)} matches`;
  }

  const field = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const choices = ["suite", "model", "metric"].map((name) => {
    const { values } = rows.columns[name];
    const sorted = values.map((_, code) => code).sort((one, other) => collator.compare(values[one], values[other]));
    const options = sorted.map((code) => make("option", { value: code }, values[code] || MISSING));
    return [name, make("select", {}, make("option", { value: "" }, "all"), ...options)];
  });
  const filter = () => {
    const chosen = choices.filter(([, select]) => select.value !== "");
    const tests = [
      ...chosen.map(([name, select]) => (place) => rows.columns[name].codes[place] === Number(select.value)),
      ...splitWords(field.value).map((word) => matchWord(rows, word)),
    ];
    found = order.filter((place) => tests.every((test) => test(place)));
    page = 0;
    list();
  };
  field.addEventListener("input", filter);
  choices.forEach(([, select]) => select.addEventListener("change", filter));

  const heads = LISTED.map(([, title, side]) => make("th", { scope: "col", class: side }, title));
  addSorting(heads, (column, direction) => {
    order = orderKeys(keyRows(rows, LISTED[column][0]), direction);
    filter();
  });
  const fields = choices.map(([name, select]) => makeField(name[0].toUpperCase() + name.slice(1), select));
  const tools = make("div", { class: "tools" }, makeField("Search all fields", field), ...fields);
  const title = make("span", { id: "page-rows-title" }, "Result rows");
  const table = make(
    "table",
    { "aria-labelledby": "page-rows-title" },
    make("caption", {}, make("div", { class: "head" }, title, tools)),
    make("thead", {}, make("tr", {}, ...heads)),
    body,
  );
  section.append(
    make(
      "div",
      { class: "table long", style: `--columns: ${LISTED.length}` },
      make("div", { class: "scroll", role: "region", "aria-labelledby": "page-rows-title" }, table),
      make("nav", { class: "tools", "aria-label": "Pages of rows" }, back, forth, status),
    ),
  );
  list();
}
