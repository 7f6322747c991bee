"use strict";
// Names in a report are anybody's: they reach the page as text nodes and attribute values, never as markup.
(() => {
  const root = document.documentElement;
  const collator = new Intl.Collator("en", { numeric: true });
  const MISSING = "–";
  const PAGE = 50; // rows that are listed at once
  const SHORT = 18; // characters of a cell that is not broken into lines
  const STORED = "pixmim-report-colours";

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const isolate = (text) => make("bdi", {}, text);
  const makeButton = (text, click) => make("button", { type: "button", class: "control", click }, text);
  const count = (number) => number.toLocaleString("en");

  // Colours: the system's, or what the reader chose before.

  function recallColours() {
    try {
      return localStorage.getItem(STORED);
    } catch {
      return null; // storage may be forbidden to files
    }
  }

  function applyColours(name) {
    if (name === "light" || name === "dark") root.dataset.colours = name;
  }

  function startColours() {
    const button = document.getElementById("page-theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const current = () => root.dataset.colours ?? (system.matches ? "dark" : "light");
    const label = () => {
      button.textContent = current() === "dark" ? "Light colours" : "Dark colours";
    };
    button.addEventListener("click", () => {
      applyColours(current() === "dark" ? "light" : "dark");
      label();
      try {
        localStorage.setItem(STORED, root.dataset.colours);
      } catch {
        // the choice holds until the page is closed
      }
    });
    system.addEventListener("change", label);
    label();
  }

  // Sorting: numbers by what they begin with, other columns as text; what is missing comes last; ties keep their order.

  const NUMBER = /^([<>]?)\s*([+−-]?\d[\d,]*(?:\.\d+)?(?:e[+−-]?\d+)?)(?=$|[\s%×±[(])/i;

  function readNumber(text) {
    const match = NUMBER.exec(text);
    if (!match) return null;
    const value = Number(match[2].replaceAll(",", "").replaceAll("−", "-"));
    const beyond = Math.abs(value) * 1e-9; // "< 0.001" comes before "0.001"
    return match[1] === "<" ? value - beyond : match[1] === ">" ? value + beyond : value;
  }

  const isMissing = (text) => ["", MISSING, "—", "-", "nan"].includes(text.toLowerCase());

  function keyColumn(texts) {
    const numbers = texts.map((text) => (isMissing(text) ? null : readNumber(text)));
    if (texts.every((text, place) => isMissing(text) || numbers[place] !== null)) return numbers;
    return texts.map((text) => (isMissing(text) ? null : text));
  }

  /** Positions of keys in order; direction 1 ascending, -1 descending, 0 as they came. */
  function orderKeys(keys, direction) {
    const places = keys.map((_, place) => place);
    if (!direction) return places;
    const compare = keys.some((key) => typeof key === "string") ? collator.compare : (one, other) => one - other;
    return places.sort((one, other) => {
      if (keys[one] === null || keys[other] === null) return (keys[one] === null) - (keys[other] === null);
      return direction * compare(keys[one], keys[other]);
    });
  }

  /** A button in each head of a column: ascending, descending, as it came; sort(column, direction) does it. */
  function addSorting(heads, sort) {
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", class: "sort" });
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const after = { none: "ascending", ascending: "descending", descending: "none" }[before];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", after);
        sort(column, { ascending: 1, descending: -1, none: 0 }[after]);
      });
    });
  }

  const splitWords = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

  function makeField(title, field) {
    return make("label", { class: "field" }, make("span", {}, title), field);
  }

  function startTable(table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const cells = (column) => rows.map((row) => row.cells[column].textContent.trim());
    addSorting([...table.tHead.rows[0].cells], (column, direction) => {
      body.append(...orderKeys(keyColumn(cells(column)), direction).map((place) => rows[place]));
    });
    const frame = table.closest(".table");
    if (!frame.classList.contains("long")) return;
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const status = make("span", { class: "count", role: "status" }, `${count(rows.length)} rows`);
    const field = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
    field.addEventListener("input", () => {
      const words = splitWords(field.value);
      rows.forEach((row, place) => {
        row.hidden = !words.every((word) => texts[place].includes(word));
      });
      const left = rows.filter((row) => !row.hidden).length;
      status.textContent = words.length ? `${count(left)} of ${count(rows.length)} rows` : `${count(rows.length)} rows`;
    });
    table.querySelector(".head").append(make("div", { class: "tools filter" }, makeField("Filter", field), status));
  }

  // What scrolls sideways can be reached, and so scrolled, by keyboard.
  function startScrolling() {
    const watch = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
        else target.removeAttribute("tabindex");
      }
    });
    document.querySelectorAll(".scroll").forEach((region) => watch.observe(region));
  }

  // Plots: whatever carries the mark of a method goes with its switch.

  function startPlots() {
    const all = document.getElementById("page-methods");
    const shared = all ? [...all.querySelectorAll("input")] : [];
    const switches = [];
    const summarise = () => {
      for (const box of shared) {
        const states = switches.filter((one) => one.dataset.key === box.dataset.key).map((one) => one.checked);
        box.checked = states.every(Boolean);
        box.indeterminate = !box.checked && states.some(Boolean);
      }
    };
    for (const group of document.querySelectorAll(".switches[data-figure]")) {
      const marked = [...document.getElementById(group.dataset.figure).querySelectorAll("[data-method]:not(input)")];
      for (const box of group.querySelectorAll("input")) {
        const parts = marked.filter((part) => part.dataset.method === box.dataset.method);
        box.show = () => parts.forEach((part) => part.classList.toggle("off", !box.checked));
        box.addEventListener("change", () => {
          box.show();
          summarise();
        });
        box.show(); // a browser may restore boxes of a page that is loaded again
        switches.push(box);
      }
    }
    for (const box of shared) {
      box.addEventListener("change", () => {
        for (const one of switches.filter((found) => found.dataset.key === box.dataset.key)) {
          one.checked = box.checked;
          one.show();
        }
      });
    }
    summarise();
  }

  // Rows: a table by columns, whose texts are stored once.

  function readRows() {
    const { length, columns } = JSON.parse(document.getElementById("page-data").textContent);
    const rows = { length, columns, names: Object.keys(columns) };
    rows.get = (name, place) => {
      const { values, codes } = columns[name];
      const value = codes ? (codes[place] < 0 ? null : values[codes[place]]) : values[place];
      return columns[name].kind === "number" && value !== null ? Number(value) : value;
    };
    rows.text = (name, place) => {
      const value = rows.get(name, place);
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

  function makeCommand(command) {
    // Options are not broken behind their hyphens.
    const words = command.split(/(\s+)/).map((word) => (word.startsWith("--") ? make("span", { class: "whole" }, word) : word));
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
    const lists = { protocol: splitSettings, versions: splitSettings };
    const command = rows.get("command", place);
    const fields = rows.names.filter((name) => name !== "command").map((name) => {
      const text = rows.text(name, place);
      const split = lists[name] && text !== MISSING;
      const shown = split ? makeList(lists[name](text).map(([key, set]) => [key, isolate(set)])) : isolate(text);
      return [name.replaceAll("_", " "), shown];
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
      const heads = [...columns.map((name) => [name, "l"]), ["value", "r"], ["95 % interval", "r"]];
      const table = make(
        "table",
        {},
        make("caption", {}, `This number is of ${count(places.length)} rows. Choose one:`),
        make("thead", {}, make("tr", {}, ...heads.map(([name, side]) => make("th", { scope: "col", class: side }, name)))),
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

  // All rows: a page of them at a time, so that thousands open at once.

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

  function startPrinting() {
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = [...document.querySelectorAll("details:not([open])")];
      opened.forEach((details) => details.setAttribute("open", ""));
    });
    addEventListener("afterprint", () => opened.forEach((details) => details.removeAttribute("open")));
  }

  root.classList.add("scripted");
  applyColours(recallColours()); // before anything is drawn
  document.addEventListener("DOMContentLoaded", () => {
    startColours();
    const rows = readRows();
    document.querySelectorAll("main table").forEach(startTable);
    const showRows = startRecord(rows);
    if (rows.length) startRows(rows, showRows);
    startPlots();
    startScrolling();
    startPrinting();
  });
})();
