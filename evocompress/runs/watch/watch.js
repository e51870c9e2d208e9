"use strict";
(() => {
  const POLL = 2000, SLOW = 10000; // milliseconds; slower while nobody sees the page
  const at = id => document.getElementById(id);
  const shown = new Map(); // what each part shows, so that only what has changed is drawn anew

  // Text goes in as text only; nothing here ever parses markup.
  function node(name, attributes, ...children) {
    const svg = ["svg", "path", "line", "circle", "text", "title", "g"].includes(name);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children.map(child => (child instanceof Node ? child : String(child))));
    return made;
  }
  function text(id, value) {
    if (at(id).textContent !== value) at(id).textContent = value;
  }
  function part(id, value, draw) {
    const key = JSON.stringify(value);
    if (shown.get(id) === key) return;
    shown.set(id, key);
    at(id).replaceChildren(...draw(value));
  }

  const tiles = list => list.map(([value, words]) =>
    node("div", { class: words === "failed" && value !== "0" ? "tile bad" : "tile" }, node("b", {}, value), node("span", {}, words)));

  const table = nothing => ({ columns, rows, more }) => {
    if (!rows.length) return [node("p", { class: "empty-text" }, nothing)];
    const head = node("tr", {}, ...columns.map(name => node("th", { scope: "col" }, name)));
    const body = rows.map(row => node("tr", {}, ...row.map(cell => node("td", {}, cell))));
    const made = [node("table", {}, node("thead", {}, head), node("tbody", {}, ...body))];
    return more ? [...made, node("p", { class: "note" }, `and ${more} more`)] : made;
  };

  // A chart is drawn for the width that there is; `x` and `y` map a value to [0, 1].
  function chart(id, { xTicks, yTicks, x, y, axis, marks }) {
    const box = at(id), width = Math.max(240, box.clientWidth), height = Math.max(160, box.clientHeight);
    const left = 12 + 7.2 * Math.max(2, ...yTicks.map(([, words]) => words.length)), right = 14, top = 22, bottom = 26;
    const px = value => left + x(value) * (width - left - right), py = value => height - bottom - y(value) * (height - top - bottom);
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": axis });
    svg.append(node("text", { x: 0, y: 12 }, axis));
    for (const [value, words] of yTicks) {
      svg.append(node("line", { class: "grid", x1: left, x2: width - right, y1: py(value), y2: py(value) }));
      svg.append(node("text", { x: left - 8, y: py(value) + 4, "text-anchor": "end" }, words));
    }
    let free = -Infinity;
    for (const [value, words] of xTicks) {
      const place = px(value), half = 3.6 * words.length;
      svg.append(node("line", { class: "grid", x1: place, x2: place, y1: top, y2: height - bottom }));
      if (place - half < free) continue; // no room for its words
      svg.append(node("text", { x: Math.min(place, width - half), y: height - 8, "text-anchor": "middle" }, words));
      free = place + half + 10;
    }
    svg.append(...marks(px, py));
    return [svg];
  }
  const scale = (values, room) => {
    const low = Math.min(...values), high = Math.max(...values), slack = (high - low || Math.abs(high) || 1) * room;
    return value => (value - low + slack) / (high - low + 2 * slack);
  };

  function front({ points, axis, rises, xTicks, yTicks }) {
    if (!points.length) return [node("p", { class: "empty-text" }, "No file yet.")];
    const x = scale(points.map(point => Math.log(point[0])), 0.04), y = scale(points.flatMap(point => point.slice(2)), 0.04);
    return chart("chart-front", {
      xTicks, yTicks, axis, x: value => x(Math.log(value)), y,
      marks(px, py) {
        const line = points.map(([bytes, quality], place) => `${place ? `H${px(bytes)}V` : `M${px(bytes)},`}${py(quality)}`).join("");
        return [node("path", { class: "curve", d: line })].concat(points.map(([bytes, quality, low, high]) =>
          node("g", {}, node("line", { class: "bar", x1: px(bytes), x2: px(bytes), y1: py(low), y2: py(high) }),
            node("circle", { class: "dot", cx: px(bytes), cy: py(quality), r: 4 }, node("title", {}, `${bytes} bytes, ${Number(quality.toPrecision(5))}`)))));
      },
    });
  }
  function hypervolume({ points, xTicks, yTicks }) {
    if (!points.length) return [node("p", { class: "empty-text" }, "No segment has ended yet.")];
    const most = Math.max(...points.map(point => point[1])) || 1, last = Math.max(1, points[points.length - 1][0]);
    return chart("chart-hypervolume", {
      xTicks, yTicks, axis: "hypervolume, by segments", x: value => value / last, y: value => value / most,
      marks: (px, py) => [node("path", { class: "curve", d: points.map(([number, value], place) => `${place ? `H${px(number)}V` : `M${px(number)},`}${py(value)}`).join("") })],
    });
  }

  let seen = null;
  function show(status) {
    text("problem", status.problem || "");
    at("problem").hidden = !status.problem;
    if (status.problem) return;
    seen = status;
    document.title = `${status.title} · ${status.state}`;
    text("title", status.title);
    text("state", status.state);
    at("state").className = `badge ${status.state}`;
    text("driver", status.driver);
    text("facts", status.facts);
    const { hidden } = status.front, width = window.innerWidth;
    text("front-note", status.front.note + (hidden ? ` ${hidden} of far worse quality ${hidden === 1 ? "is" : "are"} in the table only.` : ""));
    part("tiles", status.tiles, tiles);
    part("chart-front", { ...status.front, rows: null, width }, front);
    part("chart-hypervolume", { ...status.hypervolume, width }, hypervolume);
    part("failures", status.failures, table("None."));
    part("in-flight", status.inFlight, table("Nothing."));
    part("front", { columns: status.front.columns, rows: status.front.rows, more: status.front.more }, table("No file yet."));
  }

  async function look() {
    try {
      const answer = await fetch("status.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(`the answer is ${answer.status}`);
      show(await answer.json());
    } catch (error) {
      show({ problem: `No answer from evocompress watch (${error.message}); it is asked again.` });
    }
    setTimeout(look, document.hidden ? SLOW : POLL);
  }
  window.addEventListener("resize", () => seen && show(seen));
  look();
})();
