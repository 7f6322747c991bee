// Colours: the system's, or what the reader chose before.

const STORED = "pixmim-report-colours";
const root = document.documentElement;

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
