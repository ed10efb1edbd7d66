// What a page does once it is open: charts with hover and zoom, tables that sort, pictures that enlarge.
"use strict";
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const content = element => JSON.parse(element.querySelector("script").textContent);
const short = value => value == null ? "–" : Number.isInteger(value) ? value.toLocaleString("en") : +value.toPrecision(4) + "";
// The labels of evenly spaced ticks, with as many decimals as the spacing needs; and of a logarithmic axis.
const even = (u, ticks) => {
  const decimals = Math.max(0, Math.ceil(-Math.log10(ticks[1] - ticks[0] || 1) - 1e-6));
  return ticks.map(x => x.toLocaleString("en", { maximumFractionDigits: Math.min(decimals, 8) }));
};
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const powers = (u, ticks) => ticks.map(x => x == null ? "" : x < 1e-3 ? x.toExponential() : compact.format(x));
const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const drawn = [];

// The average that TensorBoard draws: it starts without bias, whatever the weight.
function smooth(values, weight) {
  let average = 0, rest = 1;
  return values.map(value => {
    if (value == null || !weight) return value;
    average = average * weight + value * (1 - weight);
    rest *= weight;
    return average / (1 - rest);
  });
}

function draw(element, settings) {
  const chart = content(element), view = chart.views[settings.view] || Object.values(chart.views)[0];
  const place = element.querySelector(".plot");
  place.replaceChildren();
  const smoothed = one => settings.smooth && !one.fixed && !one.mark && !one.band;
  // Behind a smoothed curve, the measured one stays visible.
  const lines = [...view.series, ...view.series.filter(smoothed).map(one => ({ ...one, raw: true }))];
  const tables = lines.map(one => [one.x, one.raw || !smoothed(one) ? one.y : smooth(one.y, settings.smooth)]);
  const data = uPlot.join(tables, tables.map(table => table.slice(1).map(() => 2)));
  const log = settings.log && view.series.every(one => one.y.every(value => value == null || value > 0));
  const series = lines.map((one, i) => ({
    label: one.label + (smoothed(one) ? " (smoothed)" : ""), spanGaps: true, width: one.mark || one.band ? 0 : 1.6, dash: dashes[one.dash || 0],
    class: one.band || one.raw ? "edge" : undefined,
    stroke: () => css(`--c${1 + (one.color ?? i) % 10}`) + (one.raw ? "55" : ""), value: (_, value) => short(value),
    points: one.mark || (one.x.length < 3 && !one.fixed && !one.band) ? {
      show: true, size: 10, width: 2, stroke: () => css(`--c${1 + (one.color ?? i) % 10}`),
      fill: () => css(one.mark === "hollow" ? "--page" : `--c${1 + (one.color ?? i) % 10}`),
    } : { show: false },
  }));
  const axis = { stroke: () => css("--text"), grid: { stroke: () => css("--line"), width: 1 }, ticks: { show: false } };
  const plot = new uPlot({
    width: Math.max(place.clientWidth, 200), height: 272, series: [{ label: view.x, value: (_, x) => short(x) }, ...series],
    scales: {
      x: { time: false, distr: view.log ? 3 : 1, range: view.log ? (u, low, high) => [low / 1.3, high * 1.3] : undefined },
      y: { distr: log ? 3 : 1, range: log ? undefined : (u, low, high) => chart.range || padded(Math.max(low, chart.low ?? low), high) },
    },
    axes: [
      { ...axis, label: view.x, labelSize: 24, size: 34, values: view.log ? decades : even },
      { ...axis, size: 62, values: log ? powers : even },
    ],
    padding: [8, 28, 0, 0],
    cursor: { drag: { x: true, y: false, dist: 8 }, focus: { prox: 24 }, hover: { prox: 8 } }, focus: { alpha: 0.4 },
    bands: view.series.flatMap((one, i) => one.band === 1 ? [
      { series: [i + 1, i + 2], fill: () => css(`--c${1 + one.color % 10}`) + "2a" },
    ] : []),
  }, data, place);
  plot.setCursor({ left: -10, top: -10 });
  if (!view.series.some(one => one.mark)) plot.setLegend({ idx: data[0].length - 1 });
  return plot;
}

const padded = (low, high) => {
  const margin = 0.05 * (high - low) || Math.abs(high) * 0.05 || 1;
  return [low - margin, high + margin];
};
const decades = (u, ticks) => ticks.map(x => /^[125]0*$/.test(x + "") ? compact.format(x) : "");

function charts(group) {
  const settings = { view: "epoch", log: false, smooth: 0 };
  const elements = [...group.querySelectorAll(".chart")];
  const all = () => elements.forEach(element => {
    const entry = drawn.find(one => one.element === element) || drawn[drawn.push({ element }) - 1], before = entry.plot;
    entry.plot = draw(element, settings);
    if (before && entry.view === settings.view) {  // keep the zoom, and which curves are hidden
      const { min, max } = before.scales.x;
      entry.plot.setScale("x", { min, max });
      before.series.forEach((one, i) => i && i < entry.plot.series.length && entry.plot.setSeries(i, { show: one.show }));
    }
    entry.view = settings.view;
    before?.destroy();
  });
  group.querySelectorAll(".controls input").forEach(input => input.addEventListener("input", () => {
    if (input.name === "log") settings.log = input.checked;
    else if (input.name === "smooth") {
      settings.smooth = +input.value;
      input.nextElementSibling.textContent = input.value;
    }
    else if (input.checked) settings.view = input.value;
    all();
  }));
  all();
  elements.forEach(element => {
    const place = element.querySelector(".plot"), plot = () => drawn.find(one => one.element === element).plot;
    new ResizeObserver(() => plot().setSize({ width: Math.max(place.clientWidth, 200), height: 272 })).observe(place);
    place.addEventListener("keydown", event => {  // the arrow keys move along the curve, Escape shows all of it again
      const u = plot(), at = u.cursor.idx ?? -1, xs = u.data[0], { min, max } = u.scales.x;
      const first = xs.findIndex(x => x >= min), last = xs.findLastIndex(x => x <= max);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: first, End: last }[event.key];
      if (event.key === "Escape") u.setScale("x", { min: xs[0], max: xs.at(-1) });
      if (to === undefined) return;
      event.preventDefault();
      const x = xs[Math.min(Math.max(to, first), last)];
      u.setCursor({ left: u.valToPos(x, "x"), top: u.over.clientHeight / 2 });
    });
  });
}

function sortable(table) {
  table.querySelectorAll("th").forEach((head, column) => {
    const button = head.querySelector("button");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = new Intl.Collator(undefined, { numeric: true }), numeric = head.classList.contains("number");
      const key = row => numeric ? row.cells[column].dataset.value : row.cells[column].textContent || undefined;
      const compare = (a, b) => numeric ? key(a) - key(b) : order.compare(key(a), key(b));
      const rows = [...table.tBodies[0].rows].sort((a, b) =>  // those without a value come last
        key(a) === undefined || key(b) === undefined ? (key(a) === undefined) - (key(b) === undefined) :
        down ? compare(b, a) : compare(a, b));
      table.tBodies[0].append(...rows);
    });
  });
}

function confusion(element) {
  const { names, counts, totals } = content(element), n = names.length;
  const canvas = element.querySelector("canvas"), output = element.querySelector("output");
  const cells = new Map(counts.map(([row, column, count]) => [row * n + column, count]));
  let at = null, margin = 0;
  const paint = () => {
    const side = Math.min(canvas.clientWidth, 700), ratio = devicePixelRatio || 1;
    canvas.style.height = `${side}px`;
    canvas.width = canvas.height = Math.round(side * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = `${Math.min(13, 0.7 * side / n)}px system-ui`;
    // Names fit beside the cells only if these are few.
    margin = n > 40 ? 0 : Math.min(side / 5, Math.max(...names.map(name => pen.measureText(name).width))) + 8;
    const cell = (side - margin) / n;
    pen.fillStyle = css("--text");
    pen.textBaseline = "middle";
    if (margin) names.forEach((name, i) => {
      const middle = margin + (i + 0.5) * cell;
      pen.textAlign = "right";
      pen.fillText(name, margin - 5, middle, margin - 8);
      pen.save();
      pen.translate(middle, margin - 5);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(name, 0, 0, margin - 8);
      pen.restore();
    });
    pen.translate(margin, margin);
    pen.fillStyle = css("--zero");
    pen.fillRect(0, 0, n * cell, n * cell);
    for (const [place, count] of cells) {
      const row = Math.floor(place / n), column = place % n, share = count / totals[row];
      pen.globalAlpha = 0.12 + 0.88 * share;
      pen.fillStyle = css("--full");
      pen.fillRect(column * cell, row * cell, Math.max(cell - (cell > 6), 1), Math.max(cell - (cell > 6), 1));
      pen.globalAlpha = 1;
      if (cell < 22) continue;
      pen.fillStyle = share > 0.45 ? css("--page") : css("--text");
      pen.font = `${Math.min(13, cell / 2.6)}px system-ui`;
      pen.textAlign = "center";
      pen.fillText(count, (column + 0.5) * cell, (row + 0.5) * cell);
    }
    if (at) {
      pen.strokeStyle = css("--mark");
      pen.lineWidth = 2;
      pen.strokeRect(at[1] * cell, at[0] * cell, Math.max(cell, 4), Math.max(cell, 4));
    }
  };
  const show = (row, column) => {
    at = [Math.min(Math.max(row, 0), n - 1), Math.min(Math.max(column, 0), n - 1)];
    const count = cells.get(at[0] * n + at[1]) || 0, total = totals[at[0]];
    output.textContent = `${names[at[0]]}, predicted as ${names[at[1]]}: ${count} of ${total} images` +
      (total ? ` (${(100 * count / total).toFixed(1)}%)` : "");
    paint();
  };
  ["pointermove", "pointerdown"].forEach(kind => canvas.addEventListener(kind, event => {
    const box = canvas.getBoundingClientRect();
    const place = (along, length) => Math.floor((along - margin) / (length - margin) * n);
    show(place(event.clientY - box.top, box.height), place(event.clientX - box.left, box.width));
  }));
  canvas.addEventListener("keydown", event => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const [row, column] = at || [0, 0];
    at ? show(row + move[0], column + move[1]) : show(0, 0);
  });
  new ResizeObserver(paint).observe(element);
  drawn.push({ element, plot: { redraw: paint } });
}

function enlarge(gallery) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-label", "enlarged image");
  const pictures = Object.assign(document.createElement("div"), { className: "pictures" });
  const close = Object.assign(document.createElement("button"), { textContent: "Close" });
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => event.target === dialog && dialog.close());
  dialog.append(pictures, close);
  document.body.append(dialog);
  gallery.querySelectorAll("figure").forEach(figure => figure.querySelector("button").addEventListener("click", () => {
    pictures.replaceChildren(...[...figure.querySelectorAll("img")].map(image => {
      const large = document.createElement("figure");
      large.append(image.cloneNode(), Object.assign(document.createElement("figcaption"), { textContent: image.alt }));
      return large;
    }));
    dialog.showModal();
  }));
}

document.querySelectorAll(".charts").forEach(charts);
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".confusion").forEach(confusion);
document.querySelectorAll(".gallery").forEach(enlarge);
["(prefers-color-scheme: dark)", "print"].forEach(query =>
  matchMedia(query).addEventListener("change", () => drawn.forEach(one => one.plot.redraw())));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => { one.open = true; }));
