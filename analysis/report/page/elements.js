// Elements. Names in a report are anybody's: they become text nodes and values of attributes, never markup.

const collator = new Intl.Collator("en", { numeric: true });
const MISSING = "–";

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
