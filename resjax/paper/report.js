(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  const { quantities, runs } = JSON.parse(one("#data").textContent);
  const body = one("table.runs tbody"), plot = one(".plot"), legend = one(".legend"), filter = one("#filter");
  const COLOURS = 8, KINDS = ["train", "validation", "test", "own"], style = new Map();  // run -> its colour, while it is shown
  one("#chart").hidden = filter.hidden = false;

  // --- the table: sort, filter, tick
  const value = (row, column) => row.cells[column].dataset.value;
  const compare = (a, b, column) => {
    const [x, y] = [value(a, column), value(b, column)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return isNaN(x) || isNaN(y) ? x.localeCompare(y, "en", { numeric: true }) : x - y;
  };
  all("table.runs th").forEach((head, column) => one("button", head).addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    all("table.runs th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const empty = row => value(row, column) === "";
    body.append(...all("tr", body).sort((a, b) => empty(a) || empty(b) ? compare(a, b, column)
      : (down ? -1 : 1) * compare(a, b, column)));
  }));
  const narrow = () => {
    const words = one("input", filter).value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of all("tr", body)) {
      row.hidden = !words.every(word => row.dataset.words.includes(word));
      one(`section.run[data-run="${row.dataset.run}"]`).hidden = row.hidden;
      shown += !row.hidden;
    }
    one("output", filter).textContent = `${shown} of ${runs.length}`;
  };
  one("input", filter).addEventListener("input", narrow);
  one("[name=none]", filter).addEventListener("click", () => {
    all("input:checked", body).forEach(box => { box.checked = false; });
    draw();
  });
  body.addEventListener("change", () => draw());
  const what = one("#chart [name=what]");
  what.append(...quantities.map(name => new Option(name)));
  what.parentElement.hidden = quantities.length < 2;
  all("#chart .controls :is(input, select)").forEach(box => box.addEventListener("change", () => draw()));

  // --- the chart
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const make = (name, attributes, text = "") => {
    const element = document.createElementNS(NAMESPACE, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    element.textContent = text;
    return element;
  };
  const nice = span => { const unit = 10 ** Math.floor(Math.log10(span)); return unit * [1, 2, 5, 10].find(k => unit * k >= span * .999); };
  const ticks = (low, high, log, count) => {
    const inside = some => some.filter(t => t >= low - (high - low) * 1e-9 && t <= high + (high - low) * 1e-9);
    if (log) {
      const first = Math.floor(Math.log10(low)), decades = Math.ceil(Math.log10(high)) - first;
      const steps = decades > 4 ? [1] : [1, 2, 5];
      return inside(Array.from({ length: decades + 1 }, (_, i) => i + first).flatMap(p => steps.map(k => +(k * 10 ** p).toPrecision(3))));
    }
    const step = nice((high - low) / count), first = Math.ceil(low / step - 1e-9);
    return inside(Array.from({ length: Math.floor((high - low) / step + 1e-9) + 2 }, (_, i) => +((i + first) * step).toPrecision(12)));
  };
  const label = number => { const size = Math.abs(number); return size && (size >= 1e5 || size < 1e-3) ? number.toExponential().replace("e+", "e") : `${number}`; };
  const curves = run => run.curves[what.value] ?? {};
  const chosen = kind => kind === "own" || one(`#chart [name=${kind}]`).checked;
  const kindsOf = run => KINDS.filter(kind => chosen(kind) && curves(run)[kind]);
  const recolour = () => {
    const ticked = all("input:checked", body).map(box => +box.value);
    for (const run of [...style.keys()]) if (!ticked.includes(run)) style.delete(run);
    for (const run of ticked) {
      const used = [...style.values()];
      if (!style.has(run)) style.set(run, Array.from({ length: 999 }, (_, i) => i).find(i => !used.includes(i)));
    }
    for (const row of all("tr", body)) {
      const number = style.get(+row.dataset.run);
      one(".line", row).className = number === undefined ? "line" : `line c${number % COLOURS} d${Math.floor(number / COLOURS) % 3}`;
    }
  };
  let axes = null;
  const draw = () => {
    recolour();
    for (const kind of KINDS.slice(0, 3)) one(`#chart [name=${kind}]`).parentElement.hidden = !runs.some(run => curves(run)[kind]);
    const shown = [...style.keys()].flatMap(run => kindsOf(runs[run])
      .map(kind => ({ run, kind, points: curves(runs[run])[kind] })));
    const width = Math.max(280, plot.clientWidth), height = Math.round(Math.min(430, Math.max(250, width * .46)));
    const log = one("#chart [name=log]").checked, [right, top, bottom] = [width - 10, 26, height - 40];
    const numbers = shown.flatMap(curve => curve.points.map(point => point[1])).filter(number => !log || number > 0);
    const last = Math.max(1, ...shown.map(curve => curve.points.at(-1)[0]));
    const most = numbers.reduce((a, b) => Math.max(a, b), log ? 1e-12 : -Infinity), least = numbers.reduce((a, b) => Math.min(a, b), Infinity);
    let [low, high] = numbers.length ? (log ? [Math.min(least, most / 2), most] : [Math.min(0, least), Math.max(0, most)]) : (log ? [.5, 1] : [0, 1]);
    if (low === high) high = low + 1;
    const levels = ticks(low, high, log, 5), left = 14 + 7 * Math.max(3, ...levels.map(tick => label(tick).length));
    const x = step => left + (right - left) * step / last;
    const part = log ? number => Math.log(Math.max(number, low) / low) / Math.log(high / low) : number => (number - low) / (high - low);
    const y = number => bottom - (bottom - top) * part(number);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
    for (const tick of levels) svg.append(
      make("path", { class: "grid", d: `M${left} ${y(tick)}H${right}` }),
      make("text", { x: left - 6, y: y(tick) + 4, class: "end" }, label(tick)));
    for (const tick of ticks(0, last, false, width < 500 ? 3 : 6)) svg.append(
      make("text", { x: x(tick), y: bottom + 18, class: x(tick) > right - 24 ? "end" : "middle" }, tick.toLocaleString("en")));
    svg.append(make("path", { class: "axis", d: `M${left} ${bottom}H${right}` }),
      make("text", { x: 0, y: 12, class: "soft" }, what.value), make("text", { x: right, y: height - 4, class: "soft end" }, "iteration"));
    for (const { run, kind, points } of shown) {
      const number = style.get(run), places = points.filter(point => !log || point[1] > 0);
      const look = `${kind} c${number % COLOURS} d${Math.floor(number / COLOURS) % 3}`;
      if (places.length) svg.append(places.length === 1  // a test at the end alone
        ? make("circle", { class: `point ${look}`, cx: x(places[0][0]).toFixed(1), cy: y(places[0][1]).toFixed(1), r: 4.5 })
        : make("path", { class: `curve ${look}`,
          d: "M" + places.map(([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("L") }));
    }
    const cursor = make("path", { class: "cursor", d: "" });
    svg.append(cursor);
    plot.replaceChildren(svg);
    axes = { left, right, top, bottom, last, cursor };
    list(null);
  };
  const at = (points, step) => points.reduce((best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);
  const list = step => {  // the legend, with the errors at a step, or the last ones
    const items = [...style.keys()].map(run => {
      const item = document.createElement("li"), mark = document.createElement("i"), name = document.createElement("span");
      const numbers = document.createElement("b"), number = style.get(run);
      mark.className = `line c${number % COLOURS} d${Math.floor(number / COLOURS) % 3}`;
      name.textContent = runs[run].name;
      const found = kindsOf(runs[run]).map(kind => {
        const points = curves(runs[run])[kind];
        return [kind, ...(step === null ? points.at(-1) : at(points, step))];
      });
      const here = step ?? Math.max(...found.map(each => each[1]));  // what was measured at another step says so
      const near = found.reduce((best, each) => Math.abs(each[1] - here) < Math.abs(best - here) ? each[1] : best, Infinity);
      numbers.textContent = found.map(([kind, place, value]) => (kind === "own" ? "" : `${kind} `)
        + (Math.abs(value) >= .1 && Math.abs(value) < 1e5 ? value.toFixed(2) : label(value))
        + (place === near ? "" : ` (at ${place.toLocaleString("en")})`)).join(", ") || "-";
      item.append(mark, name, numbers);
      return item;
    });
    legend.replaceChildren(...items);
    legend.dataset.what = what.value;
    legend.dataset.step = step === null ? "last iteration" : `iteration ${step.toLocaleString("en")}`;
  };
  plot.addEventListener("pointermove", event => {
    const across = event.clientX - plot.getBoundingClientRect().left;
    const inside = Math.min(Math.max(across, axes.left), axes.right);
    axes.cursor.setAttribute("d", `M${inside} ${axes.top}V${axes.bottom}`);
    list(Math.round(axes.last * (inside - axes.left) / (axes.right - axes.left)));
  });
  plot.addEventListener("pointerleave", () => { axes.cursor.setAttribute("d", ""); list(null); });
  new ResizeObserver(() => { if (axes && one("svg", plot).clientWidth !== plot.clientWidth) draw(); }).observe(plot);

  // --- commands
  document.addEventListener("click", async event => {
    if (!event.target.matches(".copy")) return;
    const code = event.target.previousElementSibling;
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); } catch { document.execCommand("copy"); }
    event.target.textContent = "copied";
    setTimeout(() => { event.target.textContent = "copy"; }, 1500);
  });

  all("input", body).slice(0, 4).forEach(box => { box.checked = true; });
  narrow();
  draw();
})();
