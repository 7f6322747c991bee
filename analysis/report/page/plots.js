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
