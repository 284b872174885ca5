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
    const cell = row.cells[column];
    if (cell.matches("th")) return [0, cell.textContent];
    const text = cell.firstChild ? cell.firstChild.textContent.trim() : "";
    const value = Number(text.replace("∞", "Infinity"));
    return text === "" || Number.isNaN(value) ? [2, 0] : [Number.isFinite(value) ? 0 : 1, value];
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
    for (const section of all("section")) {
      const left = new Set();
      for (const row of all(".board [data-n]", section)) {
        const name = row.querySelector("th bdi").textContent;
        whole.add(name);
        if (!name.toLowerCase().includes(wanted)) continue;
        shown.add(name);
        left.add(row.dataset.n);
      }
      for (const item of all("[data-n]", section)) item.classList.toggle("off", !left.has(item.dataset.n));
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

  // Example draws: made from the data of their table when a generator is opened.
  const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u034f\u115f\u1160\u3164\uffa0]/u;
  const SPLIT = new RegExp(`(${HIDDEN.source})`, "u");
  const LIKELY = [0.5, 0.1, 0.01, 0.001].map(Math.log);
  const number = (x) => typeof x === "string" ? Number(x.replace("inf", "Infinity")) : x;
  const nats = (x) => x === null ? "—" : (typeof x === "string" ? x.replace("inf", "∞") : x.toFixed(2)).replace("-", "−");
  const visible = (text) => text.split(SPLIT).filter(Boolean).map((part) => {
    if (part === "\n" || part === "\t" || !HIDDEN.test(part)) return part;
    const code = part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return make("span", { class: "code" }, `U+${code}`);
  });
  const token = ([text, log]) => {
    if (log === null) return make("span", {}, ...visible(text));
    const level = LIKELY.filter((limit) => number(log) < limit).length;
    return make("span", { class: `p${level}`, title: `${nats(log)} nats` }, ...visible(text));
  };
  const table = (caption, head, rows) => make("table", { class: "small" }, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows.map(([name, ...cells]) => make("tr", {}, make("th", { scope: "row" }, ...visible(name)),
      ...cells.map((cell) => make("td", {}, ...visible(cell)))))));
  const byToken = (pieces) => {
    const list = make("details", { class: "quiet" }, make("summary", {}, "By token"));
    list.addEventListener("toggle", () => {
      if (list.children.length > 1) return;
      const rows = pieces.map(([text, log], i) => [`${i + 1}`, JSON.stringify(text), nats(log)]);
      list.append(table("Log-probability of each token, nats", ["no.", "token", "nats"], rows));
    });
    return list;
  };
  const minus = (one, other) => {
    const difference = one === null || other === null ? NaN : number(one) - number(other);
    return Number.isFinite(difference) ? difference : Number.isNaN(difference) ? null : difference < 0 ? "-inf" : "inf";
  };
  const ENDS = { ended: " ■ ended", limit: " … cut at the limit of tokens", cut: " … shortened for this page" };
  const article = (draw, { prompts, features }) => {
    const pieces = typeof draw.tokens === "string" ? [[draw.tokens, null]]
      : draw.tokens.map((text, i) => [text, draw.nats[i]]);
    const [generator, law, base, target] = draw.logs;
    const logs = { "log π": generator, "log q": law, "log a": base, "log P": target,
      "log π − log a": minus(generator, base) };
    const values = draw.features.map(([place, value]) => [features[place], value]);
    return make("article", { class: "draw" },
      make("h4", {}, `Prompt ${draw.prompt + 1}, sample ${draw.index}`),
      make("p", { class: "prompt", dir: "auto" }, make("span", { class: "tag" }, "prompt "), ...visible(prompts[draw.prompt])),
      make("p", { class: "text", dir: "auto" }, make("span", { class: "tag" }, "draw "), ...pieces.map(token),
        make("span", { class: "tag" }, ENDS[draw.end])),
      make("div", { class: "numbers" },
        make("dl", { class: "logs" }, ...Object.entries(logs).map(([name, x]) =>
          make("div", {}, make("dt", {}, name), make("dd", {}, nats(x))))),
        values.length ? table("Features of the draw", ["feature", "value"], values) : "",
        pieces[0] && pieces[0][1] !== null ? byToken(pieces) : ""));
  };
  const data = new Map();
  const drill = (details) => {
    if (!details.open || details.children.length > 1) return;
    const [, t, n] = details.id.split("-");
    if (!data.has(t)) data.set(t, JSON.parse(document.getElementById(`drawn-${t}`).textContent));
    details.append(...data.get(t).draws[n].map((draw) => article(draw, data.get(t))));
  };
  for (const details of all("details.drill")) details.addEventListener("toggle", () => drill(details));
  const reveal = () => {
    const goal = document.getElementById(location.hash.slice(1));
    if (!goal || !goal.matches("details.drill")) return;
    for (let node = goal; node; node = node.parentElement.closest("details")) node.open = true;
    goal.scrollIntoView();
    goal.querySelector("summary").focus({ preventScroll: true });
  };
  addEventListener("hashchange", reveal);
  for (const link of all('a[href^="#draws-"]')) {
    link.addEventListener("click", () => { if (link.hash === location.hash) reveal(); });
  }
  reveal();
})();
