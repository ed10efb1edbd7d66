// What a page does once it is open: charts with hover and zoom, tables that sort, pictures that enlarge.
"use strict";
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const content = element => JSON.parse(element.querySelector("script").textContent);
const short = value => value == null ? "–" : Number.isInteger(value) ? value.toLocaleString("en") : +value.toPrecision(4) + "";
// The labels of evenly spaced ticks, with as many decimals as the spacing needs; and of a logarithmic axis.
const even = (u, ticks) => {
  const decimals = Math.max(0, 1 - Math.floor(Math.log10(ticks[1] - ticks[0] || 10) + 1e-6));  // as in steps of 2.5
  return ticks.map(x => x.toLocaleString("en", { maximumFractionDigits: Math.min(decimals, 8) }));
};
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const powers = (u, ticks) => ticks.map(x => x == null ? "" : x < 1e-3 ? x.toExponential() : compact.format(x));
const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3], [1, 3]], borders = ["solid", "dashed", "dotted", "double", "dotted"];
const integers = [...Array(12).keys()].flatMap(power => [1, 2, 5].map(digit => digit * 10 ** power));
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

function draw(element, settings, group) {
  const chart = content(element), view = chart.views[settings.view] || Object.values(chart.views)[0];
  const place = element.querySelector(".plot"), named = one => one.label.toLowerCase().includes(settings.only);
  place.replaceChildren();
  const smoothed = one => settings.smooth && !one.fixed && !one.mark && !one.band;
  // Behind a smoothed curve, the measured one stays visible.
  const lines = [...view.series, ...view.series.filter(smoothed).map(one => ({ ...one, raw: true }))];
  // The curve that a band, or a raw curve, belongs to.
  const owner = lines.map((one, i) => one.raw ? view.series.indexOf(view.series.filter(smoothed)[i - view.series.length]) :
    one.band ? lines.slice(0, i).findLastIndex(line => !line.band) : i);
  const shown = lines.map((_, i) => named(lines[owner[i]]));
  const tables = lines.map(one => [one.x, one.raw || !smoothed(one) ? one.y : smooth(one.y, settings.smooth)]);
  const data = uPlot.join(tables, tables.map(table => table.slice(1).map(() => 2)));
  const log = settings.log && view.series.every(one => one.y.every(value => value == null || value > 0));
  const series = lines.map((one, i) => ({
    label: one.label + (smoothed(one) ? " (smoothed)" : ""), spanGaps: true, width: one.mark || one.band ? 0 : 1.6, dash: dashes[one.dash || 0],
    class: one.band || one.raw || !shown[i] ? "edge" : undefined, show: shown[i],
    stroke: () => css(`--c${1 + (one.color ?? i) % 10}`) + (one.raw ? "55" : ""), value: (_, value) => short(value),
    points: one.mark || (one.x.length < 3 && !one.fixed && !one.band) ? {
      show: true, size: 10, width: 2, stroke: () => css(`--c${1 + (one.color ?? i) % 10}`),
      fill: () => css(one.mark === "hollow" ? "--page" : `--c${1 + (one.color ?? i) % 10}`),
    } : { show: false },
  }));
  // Without a pointer, the legend has the last values.
  const rest = u => u.cursor.left < 0 && !chart.range && view.series.some(one => !one.mark) && u.setLegend({ idx: data[0].length - 1 });
  const whole = view.x === "epoch" || view.x === "step";
  const axis = { stroke: () => css("--text"), grid: { stroke: () => css("--line"), width: 1 }, ticks: { show: false } };
  const plot = new uPlot({
    width: Math.max(place.clientWidth, 200), height: 272, series: [{ label: view.x, value: (_, x) => short(x) }, ...series],
    scales: {
      x: { time: false, distr: view.log ? 3 : 1, range: view.log ? (u, low, high) => [round(low / 1.3), high * 1.3] : undefined },
      y: { distr: log ? 3 : 1, range: log ? undefined : (u, low, high) => chart.range || padded(Math.max(low, chart.low ?? low), high) },
    },
    axes: [
      { ...axis, label: view.x, labelSize: 24, size: 34, values: view.log ? decades : even, ...(whole && { incrs: integers }) },
      { ...axis, size: 62, values: log ? powers : even },
    ],
    padding: [8, 28, 0, 0],
    cursor: {
      drag: { x: true, y: false, dist: 8 }, focus: { prox: 24 }, hover: { prox: 8 },
      sync: { key: group + view.x, setSeries: false },  // charts with the same axis move and zoom together
    },
    focus: { alpha: 0.4 }, legend: { markers: { dash: (u, i) => borders[lines[i - 1]?.dash || 0] } },
    hooks: { setCursor: [rest], setSize: [rest], setSeries: [(u, i, { show }) => show !== undefined && owner.forEach((of, j) =>
      of === i - 1 && j !== of && u.setSeries(j + 1, { show }))] },
    bands: view.series.flatMap((one, i) => one.band === 1 ? [
      { series: [i + 1, i + 2], fill: () => css(`--c${1 + one.color % 10}`) + "2a" },
    ] : []),
  }, data, place);
  plot.setCursor({ left: -10, top: -10 }, false, false);
  return plot;
}

const padded = (low, high) => {
  const margin = 0.05 * (high - low) || Math.abs(high) * 0.05 || 1;
  return [low - margin, high + margin];
};
// One digit, rounded down: from there, uPlot counts the ticks of a logarithmic axis.
const round = x => { const unit = 10 ** Math.floor(Math.log10(x)); return Math.floor(x / unit + 1e-9) * unit; };
const decades = (u, ticks) => ticks.map(x => x && /^(0\.0*)?[125]0*$/.test(+x.toPrecision(6) + "") ? compact.format(x) : "");

// A finger that moves sideways over a chart zooms as a mouse does; one that moves up or down scrolls the page.
function touch(over) {
  const kinds = { pointerdown: "mousedown", pointermove: "mousemove", pointerup: "mouseup", pointercancel: "mouseup" };
  Object.entries(kinds).forEach(([kind, mouse]) => over.addEventListener(kind, event => {
    if (event.pointerType !== "touch") return;
    const { clientX, clientY } = event;
    over.dispatchEvent(new MouseEvent(mouse, { clientX, clientY, bubbles: true, button: 0, movementX: 1 }));
  }));
}

function charts(group, number) {
  const settings = { view: "epoch", log: false, smooth: 0, only: "" };
  const elements = [...group.querySelectorAll(".chart")];
  const all = () => elements.forEach(element => {
    const entry = drawn.find(one => one.element === element) || drawn[drawn.push({ element }) - 1], before = entry.plot;
    entry.plot = draw(element, settings, `${number} `);
    touch(entry.plot.over);
    if (before && entry.view === settings.view) {  // keep the zoom, and which curves are hidden
      const { min, max } = before.scales.x;
      entry.plot.setScale("x", { min, max });
      if (entry.only === settings.only) before.series.forEach((one, i) =>
        i && i < entry.plot.series.length && entry.plot.setSeries(i, { show: one.show }));
    }
    [entry.view, entry.only] = [settings.view, settings.only];
    before?.destroy();
  });
  group.querySelectorAll(".controls input").forEach(input => input.addEventListener("input", () => {
    if (input.name === "log") settings.log = input.checked;
    else if (input.name === "only") settings.only = input.value.trim().toLowerCase();
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
    place.addEventListener("keydown", event => {  // the arrow keys move along the curve, + and - zoom, Escape shows all
      const u = plot(), at = u.cursor.idx ?? -1, xs = u.data[0], { min, max } = u.scales.x;
      const zoom = { "+": 0.5, "=": 0.5, "-": 2 }[event.key], middle = xs[at] ?? (min + max) / 2;
      const all = event.key === "Escape" || (zoom && (max - min) * zoom >= xs.at(-1) - xs[0]);
      const range = all ? { min: xs[0], max: xs.at(-1) } :
        { min: middle - (middle - min) * zoom, max: middle + (max - middle) * zoom };
      if (all || zoom) uPlot.sync(u.cursor.sync.key).plots.forEach(other => other.setScale("x", range));
      const first = xs.findIndex(x => x >= min), last = xs.findLastIndex(x => x <= max);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: first, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const x = xs[Math.min(Math.max(to, first), last)];
      u.setCursor({ left: u.valToPos(x, "x"), top: u.over.clientHeight / 2 }, true, true);
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

const FEW = 40, WINDOW = 25;  // classes whose names fit beside the cells, and those that a large matrix enlarges

function confusion(element) {
  const { names, counts, totals } = content(element), n = names.length;
  const canvas = element.querySelector("canvas"), output = element.querySelector("output");
  const cells = new Map(counts.map(([row, column, count]) => [row * n + column, count]));
  let at = null, margin = 0, size = n, first = [0, 0];  // the row and the column at the top left
  const paint = () => {
    const side = Math.min(canvas.clientWidth, 700), ratio = devicePixelRatio || 1;
    canvas.style.height = `${side}px`;
    canvas.width = canvas.height = Math.round(side * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = `${Math.min(13, 0.7 * side / size)}px system-ui`;
    const [rows, columns] = first.map(start => names.slice(start, start + size));
    const widest = Math.max(...[...rows, ...columns].map(name => pen.measureText(name).width));
    margin = size > FEW ? 0 : Math.min(side / 5, widest) + 8;
    const cell = (side - margin) / size;
    pen.fillStyle = css("--text");
    pen.textBaseline = "middle";
    if (margin) for (let i = 0; i < size; i++) {
      const middle = margin + (i + 0.5) * cell;
      pen.textAlign = "right";
      pen.fillText(rows[i], margin - 5, middle, margin - 8);
      pen.save();
      pen.translate(middle, margin - 5);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(columns[i], 0, 0, margin - 8);
      pen.restore();
    }
    pen.translate(margin, margin);
    pen.fillStyle = css("--zero");
    pen.fillRect(0, 0, size * cell, size * cell);
    for (const [place, count] of cells) {
      const [row, column] = [Math.floor(place / n) - first[0], place % n - first[1]];
      if (Math.min(row, column) < 0 || Math.max(row, column) >= size) continue;
      const share = count / totals[row + first[0]];
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
      pen.strokeRect((at[1] - first[1]) * cell, (at[0] - first[0]) * cell, Math.max(cell, 4), Math.max(cell, 4));
    }
  };
  const show = to => {
    at = to.map(place => Math.min(Math.max(place, 0), n - 1));
    first = first.map((start, i) => Math.min(Math.max(start, at[i] - size + 1), at[i]));
    const count = cells.get(at[0] * n + at[1]) || 0, total = totals[at[0]];
    output.textContent = `${names[at[0]]}, predicted as ${names[at[1]]}: ${count} of ${total} images` +
      (total ? ` (${(100 * count / total).toFixed(1)}%)` : "");
    paint();
  };
  const enlarge = () => {  // the surroundings of a cell, or all of the matrix again
    if (n <= FEW || !at) return;
    size = size === n ? WINDOW : n;
    first = at.map(place => Math.min(Math.max(place - Math.floor(size / 2), 0), n - size));
    paint();
  };
  ["pointermove", "pointerdown"].forEach(kind => canvas.addEventListener(kind, event => {
    const box = canvas.getBoundingClientRect();
    const place = (along, length) => Math.min(Math.max(Math.floor((along - margin) / (length - margin) * size), 0), size - 1);
    show([first[0] + place(event.clientY - box.top, box.height), first[1] + place(event.clientX - box.left, box.width)]);
  }));
  canvas.addEventListener("click", enlarge);
  canvas.addEventListener("keydown", event => {
    if (event.key === "Enter") enlarge();
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    show(at ? at.map((place, i) => place + move[i]) : [0, 0]);
  });
  if (n > FEW) output.textContent += " Click, or press Enter, to enlarge its surroundings.";
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
