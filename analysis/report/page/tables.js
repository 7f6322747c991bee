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
