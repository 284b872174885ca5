"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const status = document.getElementById("said");
  const say = (text) => { status.textContent = text; };

  // Sorting: a click on a heading sorts, the next turns the order round, the third brings the first order back.
  const place = (row, column) => {
    const { v } = row.cells[column].dataset;
    if (row.cells[column].matches("th")) return [0, row.cells[column].textContent];
    return v === undefined ? [2, 0] : Number.isFinite(Number(v)) ? [0, Number(v)] : [1, Number(v)];
  };
  const compare = (column, sign) => (one, other) => {
    const [a, x] = place(one, column), [b, y] = place(other, column);
    if (a !== b) return a - b; // infinity after numbers, what was not measured last, whichever way
    if (typeof x === "string") return sign * x.localeCompare(y, undefined, { numeric: true });
    return x === y ? 0 : sign * (x < y ? -1 : 1);
  };
  const original = (one, other) => one.dataset.n - other.dataset.n;
  const sort = (head) => {
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const now = head.getAttribute("aria-sort");
    const next = now === null ? first : now === first ? second : null;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    if (next) head.setAttribute("aria-sort", next);
    const order = next ? compare(head.cellIndex, next === "ascending" ? 1 : -1) : original;
    for (const body of head.closest("table").tBodies) body.append(...[...body.rows].sort(order));
    const name = head.querySelector("button").textContent.trim();
    say(next ? `Sorted by ${name}, ${next}.` : "In the first order again.");
  };
  for (const head of all(".board thead th")) {
    const label = head.firstElementChild;
    const button = make("button", { type: "button" }, ...label.childNodes);
    button.addEventListener("click", () => sort(head));
    label.replaceWith(button);
  }

  // One filter over the generators of all tables and charts.
  const filter = document.getElementById("filter");
  const apply = () => {
    const wanted = filter.value.trim().toLowerCase();
    const shown = new Set(), whole = new Set();
    for (const item of all("[data-n]")) {
      const name = (item.querySelector("th .name, summary .name, title") || item).textContent;
      item.classList.toggle("off", !name.toLowerCase().includes(wanted));
      whole.add(name);
      if (name.toLowerCase().includes(wanted)) shown.add(name);
    }
    say(wanted ? `${shown.size} of ${whole.size} generators are shown.` : "");
  };
  if (filter) {
    document.getElementById("tools").hidden = false;
    filter.addEventListener("input", apply);
  }

  // Columns of a table can be hidden; the boxes are made when they are first asked for.
  for (const table of all(".board")) {
    const heads = [...table.tHead.rows[0].cells];
    const list = make("ul");
    const chooser = make("details", { class: "columns" }, make("summary", {}, "Columns"), list);
    const switchable = (head) => !head.matches(".who");
    chooser.addEventListener("toggle", () => {
      if (list.children.length) return;
      for (const head of heads.filter(switchable)) {
        const box = make("input", { type: "checkbox" });
        box.checked = true;
        const column = head.cellIndex;
        box.addEventListener("change", () => {
          for (const row of table.rows) row.cells[column].classList.toggle("off", !box.checked);
        });
        list.append(make("li", {}, make("label", {}, box, head.querySelector("button").textContent)));
      }
    });
    table.closest(".scroll").before(chooser);
  }

  // The signature, to be cited.
  for (const button of all("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = document.getElementById(button.dataset.of);
      getSelection().selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
        say("The signature is copied.");
        button.textContent = "Copied";
      } catch {
        say("The signature is selected; copy it with the keyboard.");
        button.textContent = "Selected";
      }
    });
  }
})();
