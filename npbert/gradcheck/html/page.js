"use strict";
// What the page can do beyond being read: sort and filter the summary, tell about a cell of a heat map,
// copy the line that runs a check again. "#sort=4&status=unproven&find=layer" in the address sets the table.

(() => {
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // The summary -------------------------------------------------------------------------------------

  const table = document.querySelector("#summary table");
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];

  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.sort === undefined && !cell.classList.contains("number")) return cell.textContent;
    const text = cell.dataset.sort ?? cell.textContent;
    // Python writes "inf" and "nan"; what was not measured comes last, what is not a number first.
    return { "": -1, inf: Infinity, nan: Infinity }[text] ?? Number(text);
  };

  const sort = (column, ascending) => {
    const sign = ascending ? 1 : -1;
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [key(one, column), key(other, column)];
      return sign * (typeof a === "string" ? a.localeCompare(b) : a === b ? 0 : a < b ? -1 : 1);
    });
    body.append(...rows);
    headers.forEach((header) => header.removeAttribute("aria-sort"));
    headers[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
  };

  headers.forEach((header, column) => {
    const button = element("button", { type: "button", textContent: header.textContent });
    // Numbers are mostly looked at from the largest down.
    const first = !header.classList.contains("number");
    button.onclick = () => {
      const now = header.getAttribute("aria-sort");
      sort(column, now ? now === "descending" : first);
    };
    header.replaceChildren(button);
  });

  const find = element("input", { type: "search", id: "find" });
  const status = element("select", { id: "status" });
  for (const [value, text] of [["", "all"], ["unproven", "not proven"], ["passed", "passed"]]) {
    status.append(element("option", { value, textContent: text }));
  }
  const count = element("span", { id: "count" });
  count.setAttribute("role", "status");

  const filter = () => {
    const words = find.value.toLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      const passed = row.querySelector(".badge").classList.contains("passed");
      const wanted = status.value === "" || (status.value === "passed") === passed;
      row.hidden = !(wanted && row.textContent.toLowerCase().includes(words));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${body.rows.length} shown`;
  };
  find.oninput = status.onchange = filter;

  const controls = document.getElementById("controls");
  controls.append(
    element("label", {}, "Find ", find),
    element("label", {}, "Status ", status),
    count,
  );
  controls.hidden = false;

  // The address -------------------------------------------------------------------------------------

  const follow = () => {
    const fragment = location.hash.slice(1);
    if (fragment.includes("=")) {
      const wanted = new URLSearchParams(fragment);
      find.value = wanted.get("find") ?? "";
      status.value = wanted.get("status") ?? "";
      const column = Number(wanted.get("sort") ?? NaN);
      if (headers[column]) sort(column, wanted.get("order") === "ascending");
    } else if (fragment) {
      const target = document.getElementById(fragment);
      if (target?.tagName === "DETAILS") {
        target.open = true;
        target.scrollIntoView();
      }
    }
    filter();
  };
  addEventListener("hashchange", follow);

  // The heat maps -----------------------------------------------------------------------------------

  const tip = element("div", { id: "tip", hidden: true });
  tip.setAttribute("role", "status");
  document.body.append(tip);
  const parsed = new WeakMap();

  // Reading thousands of numbers can wait until somebody points at them.
  const read = (map) => {
    if (!parsed.has(map)) {
      const [width, blockHeight, blockWidth, columns] = map.dataset.grid.split(",").map(Number);
      const shape = map.dataset.shape ? map.dataset.shape.split(",").map(Number) : [];
      const cells = new Map();
      for (const text of map.dataset.cells.split(";")) {
        const [flat, gradient, reference, error] = text.split(",");
        const y = Math.floor(Math.floor(flat / width) / blockHeight);
        const x = Math.floor((flat % width) / blockWidth);
        cells.set(y * columns + x, { flat: Number(flat), gradient, reference: reference || gradient, error });
      }
      const ground = map.querySelector("rect.no");
      const rows = ground.height.baseVal.value;
      const blocks = blockHeight * blockWidth > 1;
      parsed.set(map, { shape, cells, columns, rows, blocks, ground, x: 0, y: 0 });
    }
    return parsed.get(map);
  };

  const indexOf = (flat, shape) => {
    const index = [];
    for (const size of [...shape].reverse()) {
      index.unshift(flat % size);
      flat = Math.floor(flat / size);
    }
    return `[${index.join(", ")}]`;
  };

  const tell = (map, x, y) => {
    const data = read(map);
    const cell = data.cells.get(y * data.columns + x);
    let cursor = map.querySelector(".cursor");
    if (!cursor) {
      cursor = document.createElementNS(map.namespaceURI, "rect");
      cursor.setAttribute("class", "cursor");
      cursor.setAttribute("width", 1);
      cursor.setAttribute("height", 1);
      map.append(cursor);
    }
    cursor.setAttribute("x", x);
    cursor.setAttribute("y", y);
    tip.textContent = cell
      ? `${indexOf(cell.flat, data.shape)}${data.blocks ? ", the worst of its block" : ""}\n` +
        `gradient ${cell.gradient}\nreference ${cell.reference}\nrelative error ${cell.error}`
      : "not compared";
    tip.hidden = false;
    const at = cursor.getBoundingClientRect();
    const left = Math.min(at.right + 8, innerWidth - tip.offsetWidth - 4);
    const below = at.bottom + 8;
    const top = below + tip.offsetHeight > innerHeight ? at.top - tip.offsetHeight - 8 : below;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
    Object.assign(data, { x, y });
  };

  const hide = (map) => {
    map.querySelector(".cursor")?.remove();
    tip.hidden = true;
  };

  for (const map of document.querySelectorAll("svg.map")) {
    map.onpointermove = map.onpointerdown = (event) => {
      const data = read(map);
      const box = data.ground.getBoundingClientRect();
      const x = Math.floor(((event.clientX - box.left) / box.width) * data.columns);
      const y = Math.floor(((event.clientY - box.top) / box.height) * data.rows);
      if (x >= 0 && y >= 0 && x < data.columns && y < data.rows) tell(map, x, y);
      else hide(map);
    };
    map.onpointerleave = map.onblur = () => hide(map);
    map.onkeydown = (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Escape") hide(map);
      if (!step) return;
      event.preventDefault();
      const data = read(map);
      const started = map.querySelector(".cursor") !== null;
      const x = started ? data.x + step[0] : data.x;
      const y = started ? data.y + step[1] : data.y;
      tell(map, Math.max(0, Math.min(data.columns - 1, x)), Math.max(0, Math.min(data.rows - 1, y)));
    };
  }

  // The line that runs a check again ----------------------------------------------------------------

  for (const place of document.querySelectorAll(".reproduce")) {
    const button = element("button", { type: "button", textContent: "Copy" });
    button.onclick = async () => {
      try {
        await navigator.clipboard.writeText(place.querySelector("code").textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(place.querySelector("code")); // no clipboard here: ready for Ctrl-C
      }
    };
    place.append(button);
  }

  follow();
  document.documentElement.dataset.ready = "yes"; // for tests: all of the above ran
})();
