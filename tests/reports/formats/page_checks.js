// What stands in the way of a reader, one line each. Runs in the page.
() => {
  const found = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (node) => node.checkVisibility({ contentVisibilityAuto: false, visibilityProperty: true });
  if (!document.documentElement.lang) found.push("no lang");
  if (!document.title) found.push("no title");

  const ids = all("[id]").map((node) => node.id);
  for (const id of new Set(ids.filter((one, i) => ids.indexOf(one) !== i))) found.push(`id ${id} twice`);
  for (const node of all("[aria-labelledby], a[href^='#']")) {
    const names = (node.getAttribute("aria-labelledby") || node.hash.slice(1)).split(" ");
    for (const name of names) if (!document.getElementById(name)) found.push(`nothing is called ${name}`);
  }

  const name = (node) => node.getAttribute("aria-label") || node.textContent.trim()
    || [...(node.labels || [])].map((label) => label.textContent.trim()).join("");
  const controls = all("button, input, a[href], summary, [tabindex='0']").filter(shown);
  for (const node of controls) {
    const named = name(node) || node.getAttribute("aria-labelledby");
    if (!named) found.push(`${node.tagName} has no name`);
  }
  const unreached = controls.filter((node) => node.tabIndex < 0);
  for (const node of unreached) found.push(`${name(node)} cannot be reached by tab`);

  let level = 0;
  for (const head of all("h1, h2, h3, h4, h5, h6")) {
    const next = Number(head.tagName[1]);
    if (next > level + 1) found.push(`${head.tagName} after H${level}`);
    level = next;
  }
  if (all("h1").length !== 1) found.push("not one H1");
  for (const table of all("table")) {
    if (!table.caption || !table.caption.textContent.trim()) found.push("a table without caption");
    for (const head of table.querySelectorAll("th")) if (!head.scope) found.push(`${head.textContent} has no scope`);
  }
  for (const svg of all("svg")) {
    const told = svg.getAttribute("aria-hidden") === "true" || (svg.querySelector("title") && svg.querySelector("desc"));
    if (!told) found.push("a picture without title and description");
  }

  const part = (x) => (x /= 255, x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const numbers = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3) return colour;
    }
    return [255, 255, 255];
  };
  const told = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), node = walker.currentNode.parentElement;
    if (!text || node.closest("script, style, noscript, title, desc, .unseen, caption, .skip") || !shown(node)) continue;
    const style = getComputedStyle(node);
    const colour = numbers(node.closest("svg") ? style.fill : style.color);
    const [one, other] = [light(colour), light(behind(node))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    const key = `${node.tagName}.${node.className.baseVal ?? node.className} contrast ${contrast.toFixed(2)}`;
    if (contrast < 4.5 && !told.has(key)) { told.add(key); found.push(`${key}: ${text.slice(0, 20)}`); }
  }

  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) found.push(`the page is wider than the window: ${document.documentElement.scrollWidth}`);
  return found;
}
