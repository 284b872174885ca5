"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const at = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const say = (text) => { if (at("said")) at("said").textContent = text; };

  // What a reader has chosen lives behind a ? in the hash: a copied address shows the same.
  // q: filter; s3: column and direction that sort table 3; v3: groups shown there; p3: prompt of its draws.
  const read = () => {
    const [anchor, chosen] = location.hash.slice(1).split("?");
    return [anchor, new URLSearchParams(chosen ?? "")];
  };
  const write = (key, value) => {
    const [anchor, chosen] = read();
    if (value) chosen.set(key, value); else chosen.delete(key);
    const text = chosen.toString();
    history.replaceState(null, "", `#${anchor}${text ? `?${text}` : ""}`);
  };

  const original = (one, other) => one.dataset.n - other.dataset.n;
  const heads = (table) => [...table.tHead.rows[0].cells];

  // Sorting: a click on a heading sorts, the next turns the order round, the third brings the first order back.
  // Verdicts are in their order, numbers of which p's own is the goal by how far they are from it.
  const WORDS = at("results").dataset.words.split("|");
  const place = (row, column) => {
    const cell = row.cells[column], word = cell.querySelector(".word");
    if (cell.matches("th")) return [0, cell.textContent];
    if (word) return [0, WORDS.indexOf(word.textContent)];
    const text = (cell.firstChild?.textContent ?? "").trim().replace("−", "-").replace("%", "");
    const bound = /^[≥≤]/.test(text), value = Number(text.replace(/^[≥≤<] ?/, "").replace("∞", "Infinity"));
    if (text === "" || Number.isNaN(value)) return [3, 0];
    const goal = Number(heads(row.closest("table"))[column].dataset.goal ?? NaN);
    const far = Number.isNaN(goal) ? value : Math.abs(value - goal);
    return [Number.isFinite(value) ? (bound ? 1 : 0) : 2, far];
  };
  const compare = (column, sign) => (one, other) => {
    const [a, x] = place(one, column), [b, y] = place(other, column);
    if (a !== b) return a - b; // bounds after numbers, infinity after these, what was not measured last
    if (typeof x === "string") return sign * x.localeCompare(y, undefined, { numeric: true });
    return x === y ? 0 : sign * (x < y ? -1 : 1);
  };
  const order = (table, key, direction) => {
    for (const head of heads(table)) head.removeAttribute("aria-sort");
    const head = direction && heads(table).find((one) => one.dataset.k === key);
    if (head) head.setAttribute("aria-sort", direction);
    const sorted = head ? compare(head.cellIndex, direction === "ascending" ? 1 : -1) : original;
    for (const body of table.tBodies) body.append(...[...body.rows].sort(sorted));
  };
  const sort = (table, head) => {
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const now = head.getAttribute("aria-sort");
    const next = now === null ? first : now === first ? second : "";
    order(table, head.dataset.k, next);
    write(`s${table.dataset.t}`, next && `${head.dataset.k} ${next}`);
    const name = head.querySelector("button").textContent.trim();
    say(next ? `Sorted by ${name}, ${next}.` : "In the first order again.");
  };
  if (at("filter")) {
    for (const table of all(".board")) {
      for (const head of heads(table)) {
        head.dataset.k ??= head.matches(".who") ? "name" : "no";
        const label = head.firstElementChild;
        const button = make("button", { type: "button" }, ...label.childNodes);
        button.addEventListener("click", () => sort(table, head));
        label.replaceWith(button);
      }
    }
  }

  // One filter over the rows of all tables, cards and plots.
  const filter = at("filter");
  const sift = () => {
    const wanted = filter.value.trim().toLowerCase();
    document.body.classList.toggle("sifting", wanted !== ""); // what is found is shown, first rows or not
    const shown = new Set(), whole = new Set();
    for (const row of all("[data-name]")) {
      const name = row.dataset.name, fits = name.toLowerCase().includes(wanted);
      whole.add(name);
      if (fits) shown.add(name);
      row.classList.toggle("off", !fits);
    }
    for (const section of all(".task")) {
      const left = new Set(all(".board [data-n]:not(.off)", section).map((row) => row.dataset.n));
      for (const point of all(".chart [data-n]", section)) point.classList.toggle("off", !left.has(point.dataset.n));
    }
    say(wanted ? `${shown.size} of ${whole.size} rows are shown.` : "");
  };
  filter?.addEventListener("input", () => { sift(); write("q", filter.value.trim()); });

  // Buttons show more rows, and groups of columns.
  const group = (button, on) => {
    const { t, group: name } = button.dataset;
    button.setAttribute("aria-pressed", on);
    const table = document.querySelector(`table[data-t="${t}"]`);
    if (name === "rest") for (const row of all(".rest", table.closest("section"))) row.classList.toggle("shown", on);
    else table.classList.toggle(`show-${name}`, on);
  };
  const toggles = all("button.toggle");
  for (const button of toggles) {
    button.addEventListener("click", () => {
      const t = button.dataset.t;
      group(button, button.getAttribute("aria-pressed") !== "true");
      const on = toggles.filter((one) => one.dataset.t === t && one.getAttribute("aria-pressed") === "true");
      write(`v${t}`, on.map((one) => one.dataset.group).join("+"));
    });
  }

  // Definitions and notes: on hover, focus or tap beside what they are of.
  const pop = at("pop");
  let shownBy = null;
  const hide = () => { if (shownBy) pop.hidePopover?.(); shownBy = null; };
  const show = (link) => {
    const text = at(link.hash.slice(1));
    if (!text || !pop.showPopover) return false;
    if (shownBy !== link) {
      hide();
      pop.textContent = text.textContent;
      pop.showPopover();
      shownBy = link;
      const box = link.getBoundingClientRect(), own = pop.getBoundingClientRect();
      const below = box.bottom + own.height + 8 < innerHeight;
      pop.style.left = `${scrollX + Math.max(8, Math.min(box.left, innerWidth - own.width - 8))}px`;
      pop.style.top = `${scrollY + (below ? box.bottom + 4 : Math.max(8, box.top - own.height - 4))}px`;
    }
    return true;
  };
  if (matchMedia("(max-width: 40rem)").matches) { // cards are seen on narrow screens alone
    for (const term of all(".cards dt[data-d]")) {
      const name = `what ${term.textContent} means`;
      term.append(make("a", { class: "def", href: `#def-${term.dataset.d}`, "aria-label": name }, "?"));
    }
  }
  for (const link of all("a.def, a.note, a.badge")) {
    link.setAttribute("aria-describedby", link.hash.slice(1));
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("mouseleave", () => { if (document.activeElement !== link) hide(); });
    link.addEventListener("focus", () => show(link));
    link.addEventListener("blur", hide);
    link.addEventListener("click", (event) => { if (show(link)) event.preventDefault(); });
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // A row and its point in the plot are shown together, the point with its name.
  for (const section of all(".task")) {
    const points = all(".plot g[data-n]", section), rows = all(".board tr[data-n]", section);
    const names = new Map(rows.map((row) => [row.dataset.n, row.dataset.name]));
    const focus = (n) => {
      for (const row of rows) row.classList.toggle("lit", row.dataset.n === n);
      for (const point of points) {
        const on = point.dataset.n === n, label = point.querySelector("text");
        point.classList.toggle("focus", on);
        point.classList.toggle("dim", n !== undefined && !on);
        if (label) label.textContent = on ? names.get(n) : label.dataset.was ??= label.textContent;
      }
    };
    focus(undefined);
    for (const item of [...rows, ...points]) {
      item.addEventListener("mouseenter", () => focus(item.dataset.n));
      item.addEventListener("mouseleave", () => focus(undefined));
    }
    for (const row of rows) { // a point that listened to focus could be tabbed to
      row.addEventListener("focusin", () => focus(row.dataset.n));
      row.addEventListener("focusout", () => focus(undefined));
    }
  }

  // The table as it is shown, to be saved: CSV from its cells, TeX as `leaderboard --format latex` has it.
  const quoted = (text) => {
    const safe = !/^[=+@\t\r−-]/.test(text) || /^[−-]?[\d.]+(e[+-]?\d+)?$/.test(text);
    const plain = safe ? text : `'${text}`; // no formula of a spreadsheet
    return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  const textOf = (cell, without) => {
    const copy = cell.cloneNode(true);
    for (const extra of all(`.note, .def, .unseen, .badge, .arrow, ${without}`, copy)) extra.remove();
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const csv = (table) => { // a column of numbers is two: the numbers, and their limits
    const shown = (node) => getComputedStyle(node).display !== "none";
    const columns = heads(table).filter(shown).map((head) => head.cellIndex);
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]).filter(shown);
    const limits = new Set(columns.filter((i) => rows.some((row) => row.cells[i].querySelector("small"))));
    const named = (i) => textOf(heads(table)[i], "small").replace(/^[+=] /, "");
    const first = columns.flatMap((i) => limits.has(i) ? [named(i), `${named(i)}: limits`] : [named(i)]);
    const line = (row) => columns.flatMap((i) => {
      const cell = row.cells[i], number = textOf(cell, "small");
      return limits.has(i) ? [number, cell.querySelector("small")?.textContent ?? ""] : [number];
    });
    return [first, ...rows.map(line)].map((cells) => cells.map(quoted).join(",")).join("\n") + "\n";
  };
  for (const button of all("button.save")) {
    button.addEventListener("click", () => {
      const { t, kind } = button.dataset;
      const table = document.querySelector(`table.board[data-t="${t}"]`);
      const text = kind === "csv" ? csv(table) : JSON.parse(at(`tex-${t}`).textContent);
      const address = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
      make("a", { href: address, download: `task-${t}.${kind}` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
      say(`task-${t}.${kind} is saved.`);
    });
  }

  // The signature, to be cited.
  for (const button of all("button.copy")) {
    button.addEventListener("click", async () => {
      const code = at(button.dataset.of);
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

  // Draws: what all rows say after one prompt; made from the data of their table when they are first opened.
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
  // A piece that begins at `start` of the draw, in code units; what the task asks for in it is marked.
  const marked = (text, start, marks) => {
    const found = [];
    let plain = "", asked = "", at = start;
    const flush = () => {
      if (plain) found.push(...visible(plain));
      if (asked) found.push(make("mark", {}, ...visible(asked)));
      plain = asked = "";
    };
    for (const letter of text) {
      const inside = marks.some(([from, to]) => from <= at && at < to);
      if ((inside && plain) || (!inside && asked)) flush();
      if (inside) asked += letter; else plain += letter;
      at += letter.length;
    }
    flush();
    return found;
  };
  const pieces = (draw) => {
    const marks = draw.marks ?? [];
    const parts = typeof draw.tokens === "string" ? [[draw.tokens, null]] : draw.tokens.map((text, i) => [text, draw.nats[i]]);
    let start = 0;
    return parts.map(([text, log]) => {
      const inside = marked(text, start, marks);
      start += text.length;
      if (log === null) return make("span", {}, ...inside);
      const level = LIKELY.filter((limit) => number(log) < limit).length;
      return make("span", { class: `p${level}`, title: `${nats(log)} nats` }, ...inside);
    });
  };
  const minus = (one, other) => {
    const difference = one === null || other === null ? NaN : number(one) - number(other);
    return Number.isFinite(difference) ? difference : Number.isNaN(difference) ? null : difference < 0 ? "-inf" : "inf";
  };
  const ENDS = { ended: " ■ ended", limit: " … cut at the limit of tokens", cut: " … shortened for this page" };
  const numbers = (draw, features) => {
    const [generator, law, base, target] = draw.logs;
    const logs = { "log π": generator, "log q": law, "log a": base, "log P": target, "log π − log a": minus(generator, base) };
    const told = [...Object.entries(logs).map(([name, x]) => [name, nats(x)]),
      ...draw.features.map(([i, value]) => [features[i], value])];
    return make("details", {}, make("summary", { class: "quiet" }, "Numbers"), make("dl", { class: "logs" },
      ...told.map(([name, x]) => make("div", {}, make("dt", {}, ...visible(name)), make("dd", {}, ...visible(x))))));
  };
  const article = (row, some, { features }) => {
    const title = make("h3", {}, make("bdi", {}, row.dataset.name));
    const verdict = row.querySelector("td .word");
    if (verdict) title.append(make("span", {}, verdict.textContent));
    return make("article", { "data-name": row.dataset.name }, title, ...some.flatMap((draw) => [
      make("p", { class: "text", dir: "auto" }, ...pieces(draw), make("span", { class: "tag" }, ENDS[draw.end])),
      numbers(draw, features)]));
  };
  const compareDraws = (details) => {
    if (!details.open || details.querySelector(".side")) return;
    const t = details.dataset.t, data = JSON.parse(at(`drawn-${t}`).textContent);
    const select = make("select", { id: `prompt-${t}` },
      ...data.prompts.map((text, i) => make("option", { value: i }, `${i + 1}. ${text.replace(/\s+/g, " ").slice(0, 80)}`)));
    const prompt = make("p", { class: "prompt", dir: "auto" }), side = make("div", { class: "side" });
    const lay = () => {
      const chosen = Number(select.value);
      prompt.replaceChildren(make("span", { class: "tag" }, "prompt "), ...visible(data.prompts[chosen]));
      const rows = all(`table.board[data-t="${t}"] tr[data-n]`).sort(original);
      side.replaceChildren(...rows.flatMap((row) => {
        const some = (data.draws[row.dataset.n] ?? []).filter((draw) => draw.prompt === chosen);
        return some.length ? [article(row, some, data)] : [];
      }));
      if (filter?.value) sift();
    };
    select.addEventListener("change", () => { lay(); write(`p${t}`, select.value === "0" ? "" : select.value); });
    const wanted = read()[1].get(`p${t}`) ?? "";
    if (/^\d+$/.test(wanted) && wanted < data.prompts.length) select.value = wanted;
    details.append(make("div", { class: "pick" }, make("label", { for: `prompt-${t}` }, "After the prompt"), select), prompt, side);
    lay();
  };
  for (const details of all("details.draws")) {
    details.addEventListener("toggle", () => {
      compareDraws(details);
      if (!details.open) write(`p${details.dataset.t}`, "");
    });
  }

  // A link within the page keeps what is chosen.
  for (const link of all('a[href^="#"]:not(.def, .note, .badge)')) {
    link.addEventListener("click", (event) => {
      const chosen = location.hash.split("?")[1], goal = at(link.hash.slice(1));
      if (!chosen || !goal) return;
      event.preventDefault();
      history.pushState(null, "", `${link.hash}?${chosen}`);
      goal.scrollIntoView();
      if (goal.tabIndex >= 0 || goal.hasAttribute("tabindex")) goal.focus({ preventScroll: true });
    });
  }

  // The state of the address, when the page is opened and when the address is changed by hand.
  const restore = () => {
    const [anchor, chosen] = read();
    for (const table of all(".board")) {
      const [, key, direction] = /^(.*) (ascending|descending)$/.exec(chosen.get(`s${table.dataset.t}`) ?? "") ?? [];
      if (filter) order(table, key, direction);
    }
    for (const button of toggles) {
      const on = (chosen.get(`v${button.dataset.t}`) ?? "").split(/[+ ]/).includes(button.dataset.group);
      group(button, on);
    }
    if (filter) { filter.value = chosen.get("q") ?? ""; sift(); }
    for (const details of all("details.draws")) if (chosen.has(`p${details.dataset.t}`)) details.open = true;
    const goal = anchor && at(anchor);
    if (goal && location.hash.includes("?")) goal.scrollIntoView();
  };
  addEventListener("hashchange", restore);
  restore();
})();
