"use strict";
(() => {
  const panels = JSON.parse(document.getElementById("panels").textContent);
  const hidden = new Set();
  const round = (value) => (Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(3));

  // Of the cells of a table one is reached by the tab key: the last one visited, or the first in sight.
  const gone = (cell) => cell.closest(".off") !== null;
  const enter = (table) => {
    const cells = [...table.tBodies[0].querySelectorAll("td, th")];
    const current = cells.find((cell) => cell.tabIndex === 0);
    if (current && !gone(current)) return;
    current?.removeAttribute("tabindex");
    const first = cells.find((cell) => !gone(cell));
    if (first) first.tabIndex = 0;
  };

  // Methods that the reader hides.
  const bar = document.getElementById("bar");
  const apply = () => {
    for (const element of document.querySelectorAll("[data-method]"))
      element.classList.toggle("off", hidden.has(element.dataset.method));
    for (const button of bar.querySelectorAll("[data-toggle]"))
      button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.toggle)));
    document.querySelectorAll("table.data").forEach(enter);
  };
  bar?.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const method = button.dataset.toggle;
    if (method === undefined) hidden.clear();
    else if (!hidden.delete(method)) hidden.add(method);
    apply();
  });
  if (bar) bar.hidden = false;

  // Values of the curves at the pointer, or where the arrow keys are.
  const tip = document.getElementById("tip");
  const line = document.createElementNS(document.querySelector("svg")?.namespaceURI ?? null, "line");
  line.setAttribute("stroke", "currentColor");
  line.setAttribute("stroke-dasharray", "2 2");
  const hide = () => {
    tip.hidden = true;
    line.remove();
  };
  const interpolated = (series, x) => {
    const at = series.x.findIndex((value) => value >= x);
    if (at < 0 || x < series.x[0]) return null;
    const from = Math.max(at - 1, 0);
    const width = series.x[at] - series.x[from];
    const share = width ? (x - series.x[from]) / width : 0;
    const value = (of) => (of ? of[from] + share * (of[at] - of[from]) : null);
    return { y: value(series.y), low: value(series.low), high: value(series.high) };
  };
  const show = (svg, panel, x) => {
    const rows = panel.series
      .filter((series) => !hidden.has(series.method))
      .map((series) => [series.method, interpolated(series, x)])
      .filter(([, found]) => found)
      .sort((one, other) => other[1].y - one[1].y);
    if (!rows.length) return hide();
    const place = panel.left + ((x - panel.x[0]) / (panel.x[1] - panel.x[0])) * (panel.right - panel.left);
    for (const [name, value] of Object.entries({ x1: place, x2: place, y1: panel.top, y2: panel.bottom }))
      line.setAttribute(name, value);
    svg.append(line);
    const head = document.createElement("strong");
    head.textContent = `${panel.title} · ${round(x)}`;
    tip.replaceChildren(head);
    for (const [method, found] of rows) {
      const row = document.createElement("div");
      const dot = document.createElement("span");
      dot.className = "dot";
      dot.style.background = svg.querySelector(`[data-method="${CSS.escape(method)}"] > path`).style.stroke;
      const range = found.low === null ? "" : ` [${round(found.low)}, ${round(found.high)}]`;
      row.append(dot, `${method} ${round(found.y)}${range}`);
      tip.append(row);
    }
    tip.hidden = false;
    const frame = svg.getBoundingClientRect();
    const scale = frame.width / svg.viewBox.baseVal.width;
    const left = frame.left + place * scale + 12;
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - tip.offsetWidth - 4))}px`;
    const top = frame.top + panel.top * scale;
    tip.style.top = `${Math.max(4, Math.min(top, innerHeight - tip.offsetHeight - 4))}px`;
  };
  document.addEventListener("scroll", hide, { capture: true, passive: true }); // the values do not move along
  for (const figure of document.querySelectorAll("[data-figure]")) {
    const own = panels[figure.dataset.figure];
    const picture = figure.querySelector(".picture");
    const svg = picture.querySelector("svg");
    let current = 0;
    let step = 0;
    const follow = (event) => {
      const frame = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / frame.width;
      const [x, y] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
      const panel = own.find((one) => x >= one.left && x <= one.right && y >= one.top && y <= one.bottom);
      if (!panel) return hide();
      const share = (x - panel.left) / (panel.right - panel.left);
      show(svg, panel, panel.x[0] + share * (panel.x[1] - panel.x[0]));
    };
    picture.addEventListener("pointermove", follow);
    picture.addEventListener("pointerdown", follow);
    picture.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") hide(); // after a tap the values stay until the next one, or until one scrolls
    });
    picture.addEventListener("blur", hide);
    picture.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!move) return;
      event.preventDefault();
      current = Math.max(0, Math.min(own.length - 1, current + move[0]));
      const longest = own[current].series.reduce((most, one) => (one.x.length > most.x.length ? one : most));
      step = tip.hidden && !move[0] ? 0 : Math.max(0, Math.min(longest.x.length - 1, step + move[1]));
      show(svg, own[current], longest.x[step]);
    });
  }

  // Tables that do not fit say so.
  const fits = () => {
    for (const one of document.querySelectorAll(".scroll"))
      one.classList.toggle("wider", one.scrollWidth > one.clientWidth + 1);
  };
  addEventListener("resize", fits);
  document.addEventListener("toggle", fits, { capture: true }); // of what was folded away nothing can be measured

  // Tables: a heading sorts, arrow keys walk from cell to cell.
  const sortable = (cell, numeric) => {
    if (numeric) return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "—" ? null : text;
  };
  for (const table of document.querySelectorAll("table.data")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const numeric = [...body.rows].some((row) => row.cells[column].dataset.value !== undefined);
        const rows = [...body.rows].map((row) => [sortable(row.cells[column], numeric), row]);
        rows.sort(([one], [other]) => {
          if (one === null || other === null) return (one === null) - (other === null); // gaps stay last
          const order = numeric ? one - other : one.localeCompare(other, "en", { numeric: true });
          return falling ? -order : order;
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
    enter(table);
    body.addEventListener("keydown", (event) => {
      const cell = event.target.closest("td, th");
      const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!cell || !move) return;
      event.preventDefault();
      let [row, column] = [cell.parentElement, cell.cellIndex];
      do {
        row = move[0] > 0 ? row.nextElementSibling : move[0] < 0 ? row.previousElementSibling : row;
        column += move[1];
      } while (row?.cells[column] && gone(row.cells[column]));
      const next = row?.cells[column];
      if (!next) return;
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }
  fits();
})();
