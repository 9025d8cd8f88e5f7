"use strict";

// The page of the admin listener. It reads `/events`: one event with the constant parts, then the seconds of the
// history, then one event a second.

const HISTORY_MS = 600_000;
/** Minutes on the axis, with the minutes between two labels. A young process has a short axis. */
const WINDOWS = [[1, 0.25], [2, 0.5], [5, 1], [10, 2]];
const STALE_MS = 5_000;
const RETRY_MS = 5_000;
const RATIO_SECONDS = 10;
const SVG = "http://www.w3.org/2000/svg";
/** Pixels beside a chart, for the values of its axis and for the end of its lines. */
const [LEFT, RIGHT] = [66, 4];

/** Constant parts: version, limits, names. */
let about = null;
/** Figures of each second, oldest first. */
let seconds = [];
/** State of the process now: lists, verdict. */
let state = null;
/** Place in `seconds` that the pointer shows; `null` shows the last one. */
let cursor = null;
let lastEventAt = 0;
/** Number of the last second. */
let lastNumber = -1;
let isDrawn = true;

const byId = id => document.getElementById(id);

// ---------------------------------------------------------------- text

const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return number(value / 1e6, 1) + " M";
  if (size >= 1e4) return number(value / 1e3, size >= 1e5 ? 0 : 1) + " k";
  return number(value, size > 0 && size < 10 ? 1 : 0);
}

function bytes(value) {
  const sign = value < 0 ? "−" : "";
  let size = Math.abs(value);
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || size >= 100 ? 0 : 1;
  return `${sign}${number(size, digits)} ${units[unit]}`;
}

function micros(value) {
  if (value === null) return "–";
  if (value < 1000) return `${number(value)} µs`;
  if (value < 1e6) return `${number(value / 1e3, value < 1e5 ? 1 : 0)} ms`;
  return `${number(value / 1e6, value < 1e8 ? 1 : 0)} s`;
}

const percent = value => value === null ? "–" : `${number(100 * value, value > 0 && value < 0.1 ? 1 : 0)} %`;

function span(milliseconds) {
  const total = Math.max(0, Math.floor(milliseconds / 1000));
  const [days, hours] = [Math.floor(total / 86400), Math.floor(total / 3600) % 24];
  const [minutes, rest] = [Math.floor(total / 60) % 60, total % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${rest} s`;
  return `${rest} s`;
}

/** Minutes on the axis: the fewest that the history fits in. */
function axis() {
  const length = (seconds[seconds.length - 1].at_ms - seconds[0].at_ms) / 60_000;
  return WINDOWS.find(([minutes]) => length <= minutes) ?? WINDOWS[WINDOWS.length - 1];
}

const clock = at => new Date(at).toLocaleTimeString("en-GB");

// ---------------------------------------------------------------- series

const sum = list => list.reduce((total, value) => total + value, 0);

/** Rate of a count in a second, which may be a little longer than one. */
function rate(place, count) {
  const before = seconds[place - 1];
  const length = before ? (seconds[place].at_ms - before.at_ms) / 1000 : 1;
  return count / Math.min(Math.max(length, 0.5), 60);
}

/** Hits among the requests of the last seconds; `null` without requests. */
function hitRatio(place) {
  const last = seconds.slice(Math.max(0, place + 1 - RATIO_SECONDS), place + 1);
  const requests = sum(last.map(second => sum(second.outcomes)));
  return requests ? Math.min(1, sum(last.map(second => second.cache_hits)) / requests) : null;
}

/** Parts of the memory, lowest first. The kernel's part of the sockets is measured, so their ledger is left out. */
function memoryParts() {
  const kinds = about.kinds
    .map((name, kind) => ({ name, color: `--c-${name.replace("lifted bytes", "lifted").replaceAll(" ", "-")}`, kind }))
    .filter(part => part.name !== "socket")
    .map(part => ({ ...part, of: second => second.kind_bytes[part.kind] }));
  return [
    { name: "program, allocator", color: "--c-fixed", of: second => second.fixed_bytes, always: true },
    { name: "caches", color: "--c-cache", of: second => second.cache_bytes, always: true },
    ...kinds,
    { name: "unattributed", color: "--c-unattributed", of: second => Math.max(0, second.unattributed_bytes), always: true },
    { name: "kernel sockets", color: "--c-kernel", of: second => second.socket_bytes, always: true },
  ];
}

const named = (names, figures) =>
  names.map((name, place) => ({ name, color: `--c-${name}`, of: (second, at) => rate(at, second[figures][place]) }));

/** Every chart but that of the memory: its series, its shape, and the text of a value. */
const CHARTS = [
  { id: "outcomes", title: "Requests per second by outcome", shape: "stack", least: 4, unit: "/s", text: value => `${short(value)}/s`,
    series: () => named(about.outcomes, "outcomes") },
  { id: "codes", title: "Requests per second by status class", shape: "stack", least: 4, unit: "/s", text: value => `${short(value)}/s`,
    series: () => ["2xx", "3xx", "4xx", "5xx", "none"].map(name =>
      named(about.codes, "codes").find(series => series.name === name)) },
  { id: "latency", title: "Time of a request, over ten seconds", shape: "lines", scale: "log", text: micros,
    series: () => ["p50", "p90", "p99"].map((name, place) =>
      ({ name, color: `--c-${name}`, of: second => second.latency_us && second.latency_us[place] })) },
  { id: "sent", title: "Bytes sent per second", shape: "stack", base: 1024, least: 1024, text: value => `${bytes(value)}/s`,
    series: () => [{ name: "sent", color: "--c-sent", of: (second, at) => rate(at, second.sent_bytes) }] },
  { id: "cache", title: "Cache hit ratio, over ten seconds", shape: "lines", top: 1, text: percent,
    series: () => [{ name: "hits", color: "--c-hits", of: (_, at) => hitRatio(at) }] },
];

// ---------------------------------------------------------------- elements

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Sets a text only if it has changed, so that a screen reader says nothing twice. */
function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function swatch(color) {
  const made = element("span", { class: "swatch", "aria-hidden": "true" });
  made.style.background = `var(${color})`;
  return made;
}

// ---------------------------------------------------------------- charts

/** The next of 1, 2, 5, 10, …, or 1, 2, 4, … KiB for bytes. */
function nice(value, base) {
  if (base === 1024) {
    const power = Math.pow(1024, Math.max(0, Math.floor(Math.log(value) / Math.log(1024))));
    for (let step = 1; step <= 1024; step *= 2) if (step * power >= value) return step * power;
  }
  const power = Math.pow(10, Math.floor(Math.log10(value)));
  return [1, 2, 5, 10].find(step => step * power >= value * 0.999) * power;
}

/** Text of a value on the axis: round, so without zeros behind the point. */
function tickText(value, { text, unit }) {
  if (unit === undefined) return text(value).replace(/\.0(?=\D)/, "");
  const [size, prefix] = value >= 1e6 ? [value / 1e6, " M"] : value >= 1e3 ? [value / 1e3, " k"] : [value, ""];
  return `${Number(size.toFixed(2))}${prefix}${unit}`;
}

/** Values of all series, by place. */
function valuesOf(series) {
  return series.map(one => seconds.map((second, place) => one.of(second, place)));
}

function draw(chart, series, options) {
  const { text, shape } = options;
  const [width, height] = [chart.clientWidth, chart.clientHeight];
  if (!width || !seconds.length) return;
  const end = seconds[seconds.length - 1].at_ms;
  const [minutes, step] = axis();
  const box = { left: LEFT, right: width - RIGHT, top: 8, bottom: height - 20 };
  const x = at => box.left + (box.right - box.left) * (1 - (end - at) / (minutes * 60_000));
  const values = valuesOf(series);

  // From the lowest to the highest value: the sums of a stack, or the lines themselves.
  const levels = [values.length ? seconds.map(() => 0) : []];
  if (shape === "stack") {
    for (const row of values) {
      const below = levels[levels.length - 1];
      levels.push(row.map((value, place) => below[place] + value));
    }
  }
  const shown = (shape === "stack" ? levels[levels.length - 1] : values.flat()).filter(value => value !== null);
  const most = shown.reduce((most, value) => Math.max(most, value), 0);
  const least = shown.filter(value => value > 0).reduce((least, value) => Math.min(least, value), Infinity);

  const svg = drawn("svg", { role: "img", width, height });
  let ticks, y;
  if (options.scale === "log") {
    const low = Math.pow(10, Math.floor(Math.log10(Number.isFinite(least) ? least : 100)));
    const high = Math.max(low * 10, Math.pow(10, Math.ceil(Math.log10(Math.max(most, 10)))));
    const decades = Math.log10(high / low);
    y = value => box.bottom - (box.bottom - box.top) * Math.log10(Math.max(value, low) / low) / decades;
    ticks = Array.from({ length: Math.round(decades) + 1 }, (_, place) => low * Math.pow(10, place));
  } else {
    const top = options.top ?? nice(Math.max(most * 1.05, options.least ?? 1), options.base);
    y = value => box.bottom - (box.bottom - box.top) * Math.min(value / top, 1);
    ticks = [0, 0.25, 0.5, 0.75, 1].map(part => part * (options.whole ?? top));
  }

  for (const tick of ticks) {
    const at = Math.round(y(tick)) + 0.5;
    svg.append(drawn("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }));
    svg.append(drawn("text", { x: box.left - 6, y: at + 4, "text-anchor": "end" }, tickText(tick, options)));
  }
  const every = width < 420 ? minutes / 2 : step;
  for (let minute = 0; minute <= minutes; minute += every) {
    const anchor = minute === 0 ? "end" : minute === minutes ? "start" : "middle";
    const ago = minute < 1 || minute % 1 ? `${minute * 60} s` : `${minute} min`;
    const label = minute === 0 ? "now" : `${ago} ago`;
    const at = x(end - minute * 60_000);
    svg.append(drawn("text", { x: at, y: height - 5, "text-anchor": anchor }, label));
  }

  // A gap in time breaks a shape, and so does a place without a value.
  const runs = row => {
    const found = [];
    let run = [];
    row.forEach((value, place) => {
      const isGap = place > 0 && seconds[place].at_ms - seconds[place - 1].at_ms > 5_000;
      if ((value === null || isGap) && run.length) {
        found.push(run);
        run = [];
      }
      if (value !== null) run.push(place);
    });
    if (run.length) found.push(run);
    return found;
  };
  const point = (place, value) => `${x(seconds[place].at_ms).toFixed(1)} ${y(value).toFixed(1)}`;
  series.forEach((one, index) => {
    const row = values[index];
    if (shape === "stack") {
      if (!row.some(value => value > 0)) return;
      const [below, above] = [levels[index], levels[index + 1]];
      const paths = runs(above).map(run => {
        const up = run.map(place => point(place, above[place]));
        const down = run.map(place => point(place, below[place])).reverse();
        return `M${up.join("L")}L${down.join("L")}Z`;
      });
      const path = drawn("path", { d: paths.join("") });
      path.style.fill = `var(${one.color})`;
      svg.append(path);
    } else {
      const paths = runs(row).map(run => {
        const line = run.map(place => point(place, row[place]));
        return `M${(line.length > 1 ? line : [line[0], line[0]]).join("L")}`;
      });
      const path = drawn("path", { class: "line", d: paths.join(""), "stroke-linecap": "round" });
      path.style.stroke = `var(${one.color})`;
      svg.append(path);
    }
  });

  if (options.limit) drawLimit(svg, box, y, options.limit, ticks[ticks.length - 1]);
  if (cursor !== null && seconds[cursor]) {
    const at = x(seconds[cursor].at_ms);
    svg.append(drawn("line", { class: "cursor", x1: at, x2: at, y1: box.top, y2: box.bottom }));
  }
  const last = values.map(row => row[row.length - 1]);
  const parts = series.map((one, index) => `${one.name} ${last[index] === null ? "none" : text(last[index])}`);
  svg.setAttribute("aria-label", `${options.title}. Now: ${parts.join(", ")}.`);
  chart.replaceChildren(svg);
}

/** The line of the memory limit, or a note where it is above the chart. */
function drawLimit(svg, box, y, limit, top) {
  const isAbove = limit > top;
  const at = isAbove ? box.top : y(limit);
  if (!isAbove) svg.append(drawn("line", { class: "limit", x1: box.left, x2: box.right, y1: at, y2: at }));
  const label = isAbove ? `↑ limit ${bytes(limit)}` : `limit ${bytes(limit)}`;
  svg.append(drawn("text", { class: "limit-text", x: box.left + 6, y: at + 15 }, label));
}

// ---------------------------------------------------------------- parts of the page

/** Place of the second that is shown: the pointer's, or the last. */
const place = () => cursor !== null && seconds[cursor] ? cursor : seconds.length - 1;

function drawMemory() {
  const parts = memoryParts();
  const limit = about.memory_plan.limit_bytes;
  const most = Math.max(...seconds.map(second => second.held_bytes));
  const toLimit = byId("to-limit").checked;
  const options = { title: "Memory by part", shape: "stack", base: 1024, text: bytes, limit, least: 1024 };
  // Below the limit's quarter the parts would be a thin line.
  if (toLimit || most > limit / 4) [options.top, options.whole] = [Math.max(most, limit) * 1.08, limit];
  draw(byId("memory-chart"), parts, options);

  const at = place();
  const rows = [];
  for (const part of [...parts].reverse()) {
    const highest = Math.max(...seconds.map(part.of));
    if (!highest && !part.always) continue;
    rows.push(element("tr", {},
      element("th", { scope: "row" }, swatch(part.color), part.name),
      element("td", {}, bytes(part.of(seconds[at]))),
      element("td", {}, bytes(highest))));
  }
  byId("memory-parts").replaceChildren(...rows);
  byId("memory-sum").replaceChildren(element("tr", {},
    element("th", { scope: "row" }, "measured"),
    element("td", {}, bytes(seconds[at].held_bytes)),
    element("td", {}, bytes(most))));
  const moment = cursor === null ? "now" : `at ${clock(seconds[at].at_ms)}`;
  document.querySelectorAll(".moment").forEach(target => write(target, moment));
}

function drawCharts() {
  for (const chart of CHARTS) {
    const series = chart.series();
    draw(byId(`${chart.id}-chart`), series, chart);
    const at = place();
    byId(`${chart.id}-legend`).replaceChildren(...series.map(one => {
      const value = one.of(seconds[at], at);
      return element("li", {}, swatch(one.color), `${one.name} `,
        element("b", {}, value === null ? "–" : chart.text(value)));
    }));
  }
}

function tile(name, value, note, mark) {
  const made = element("div", { class: mark ?? "" }, element("dt", {}, name), element("dd", {}, value));
  if (note) made.append(element("dd", { class: "note" }, note));
  return made;
}

function drawTiles() {
  const at = place();
  const second = seconds[at];
  const limit = about.memory_plan.limit_bytes;
  const share = second.held_bytes / limit;
  const failed = rate(at, second.outcomes[about.outcomes.indexOf("failed")]);
  const tiles = [
    tile("Memory", bytes(second.held_bytes), `${percent(share)} of ${bytes(limit)}`,
      share > 1 ? "bad" : share > 0.9 ? "warn" : ""),
    tile("Requests", `${short(rate(at, sum(second.outcomes)))}/s`, failed ? `${short(failed)}/s failed` : "none failed",
      failed ? "bad" : ""),
    tile("99 % within", micros(second.latency_us && second.latency_us[2]),
      second.latency_us ? `half within ${micros(second.latency_us[0])}` : "no requests"),
    tile("Sent", `${bytes(rate(at, second.sent_bytes))}/s`),
    tile("Cache hits", percent(hitRatio(at)), "of requests"),
  ];
  if (state) {
    tiles.push(tile("In flight", number(state.requests), `${number(state.connections)} ${state.connections === 1 ? "connection" : "connections"}`));
    tiles.push(state.unready
      ? tile("Ready", "no", state.unready, "bad")
      : tile("Ready", "yes", state.waiting ? `${state.waiting} requests wait` : "nothing waits"));
    if (state.certificate) tiles.push(certificateTile(state.certificate));
  }
  byId("tiles").replaceChildren(...tiles);
  document.title = `${bytes(second.held_bytes)} of ${bytes(limit)} – millpond`;
}

function certificateTile({ days_left: days, not_after: end }) {
  if (days === null) return tile("Certificate", "unknown", "its end cannot be read", "warn");
  const mark = days < 0 ? "bad" : days < 14 ? "warn" : "";
  const value = days < 0 ? "expired" : days === 1 ? "1 day left" : `${number(days)} days left`;
  return tile("Certificate", value, `until ${end.slice(0, 10)}`, mark);
}

const SIGNS = { steady: "✓", rising: "◔", leaked: "◔", growing: "▲" };

function drawVerdict() {
  const { state: kind, text, details } = state.verdict;
  byId("verdict").className = `verdict ${kind}`;
  write(byId("verdict-sign"), SIGNS[kind] ?? "");
  write(byId("verdict-text"), text);
  const list = byId("verdict-details");
  if (list.dataset.text !== details.join("\n")) {
    list.dataset.text = details.join("\n");
    list.replaceChildren(...details.map(detail => element("li", {}, detail)));
  }
}

function limitRow(name, limit, used, share) {
  const cell = element("td", {}, used);
  if (share !== undefined) {
    cell.append(element("meter", { min: 0, max: 1, high: 0.9, value: Math.min(1, share), "aria-label": `${name}, in use` }));
  }
  return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, limit), cell);
}

function drawLimits() {
  const plan = about.memory_plan;
  const second = seconds[seconds.length - 1];
  const rows = [
    limitRow("memory in all", bytes(plan.limit_bytes), bytes(second.held_bytes), second.held_bytes / plan.limit_bytes),
    limitRow("fixed", bytes(plan.fixed_bytes), bytes(second.fixed_bytes), second.fixed_bytes / plan.fixed_bytes),
    limitRow("caches", bytes(plan.cache_bytes), bytes(second.cache_bytes), second.cache_bytes / plan.cache_bytes),
  ];
  if (state) {
    rows.push(
      limitRow("instances", number(plan.instances), number(state.instances), state.instances / plan.instances),
      limitRow("connections", number(plan.connections), number(state.connections), state.connections / plan.connections),
      limitRow("responses", bytes(plan.responses_bytes), bytes(state.reserved_bytes), state.reserved_bytes / plan.responses_bytes),
    );
  }
  rows.push(limitRow("each request", bytes(about.request_memory_bytes), "–"));
  byId("limits").replaceChildren(...rows);
}

function emptyRow(columns, text) {
  return element("tr", {}, element("td", { class: "empty", colspan: columns }, text));
}

function drawRequests() {
  const order = byId("order").value;
  const list = state[order];
  const which = order === "largest" ? "requests that hold most memory" : "oldest requests";
  const all = state.requests > list.length ? `, of ${number(state.requests)}` : "";
  write(byId("requests-caption"), `The 20 ${which}${all}`);
  const rows = list.map(request => {
    const kinds = Object.entries(request.by_kind).sort((a, b) => b[1] - a[1]);
    const ledger = kinds.map(([kind, size]) => `${kind.replaceAll("_", " ")} ${bytes(size)}`).join(", ");
    const name = element("th", { scope: "row" }, `${request.method} ${request.route}`);
    if (request.has_ended) name.append(" ", element("span", { class: "leaked" }, "ended, not given back"));
    return element("tr", {}, name,
      element("td", {}, request.age_ms < 1000 ? `${request.age_ms} ms` : span(request.age_ms)),
      element("td", {}, bytes(request.total_bytes)),
      element("td", {}, bytes(request.peak_bytes)),
      element("td", { class: "wide" }, ledger || "nothing"));
  });
  byId("requests").replaceChildren(...(rows.length ? rows : [emptyRow(5, "No request is in flight.")]));
}

function readablePath(path) {
  try {
    return decodeURI(path);
  } catch {
    return path;
  }
}

function drawMedia() {
  const rows = state.top_targets.map(target => {
    const isRough = target.overcount_bytes > target.bytes / 100;
    return element("tr", {},
      element("th", { scope: "row", class: "wide" }, readablePath(target.path)),
      element("td", {}, (isRough ? "about " : "") + bytes(target.bytes)),
      element("td", {}, number(target.requests)));
  });
  byId("media").replaceChildren(...(rows.length ? rows : [emptyRow(3, "Nothing was sent yet.")]));
}

function drawMinutes() {
  const end = seconds[seconds.length - 1].at_ms;
  const rows = [];
  for (let minute = 0; minute < 10; minute += 1) {
    const [from, until] = [end - (minute + 1) * 60_000, end - minute * 60_000];
    const places = seconds.flatMap((second, at) => second.at_ms > from && second.at_ms <= until ? [at] : []);
    if (!places.length) break;
    const total = of => sum(places.map(at => of(seconds[at])));
    const requests = total(second => sum(second.outcomes));
    const errors = total(second => second.codes[about.codes.indexOf("5xx")]);
    const hits = total(second => second.cache_hits);
    const p99 = Math.max(0, ...places.map(at => seconds[at].latency_us ? seconds[at].latency_us[2] : 0));
    const first = places[0];
    const length = (seconds[places[places.length - 1]].at_ms - seconds[first].at_ms) / 1000 + 1;
    rows.push(element("tr", {},
      element("th", { scope: "row" }, clock(until)),
      element("td", {}, bytes(Math.max(...places.map(at => seconds[at].held_bytes)))),
      element("td", {}, `${short(requests / length)}/s`),
      element("td", {}, `${short(errors / length)}/s`),
      element("td", {}, p99 ? micros(p99) : "–"),
      element("td", {}, `${bytes(total(second => second.sent_bytes) / length)}/s`),
      element("td", {}, requests ? percent(Math.min(1, hits / requests)) : "–")));
  }
  byId("minutes").replaceChildren(...rows);
}

function drawProcess() {
  write(byId("version"), about.version);
  const up = seconds.length ? seconds[seconds.length - 1].at_ms - about.started_ms : 0;
  write(byId("process"), `process ${about.process}, up ${span(up)}`);
  write(byId("component"), `Component ${about.component}, sha256 ${about.component_sha256.slice(0, 16)}…`);
}

/** Draws all once before the next frame, however many events there were. */
function redraw() {
  if (!isDrawn) return;
  isDrawn = false;
  requestAnimationFrame(() => {
    isDrawn = true;
    if (!about || !seconds.length) return;
    drawProcess();
    drawTiles();
    drawMemory();
    drawCharts();
    drawLimits();
    drawMinutes();
    if (state) {
      drawVerdict();
      drawRequests();
      drawMedia();
    }
  });
}

// ---------------------------------------------------------------- events

function connection(text, kind) {
  const target = byId("connection");
  write(target, text);
  target.className = `connection ${kind}`;
}

function connect() {
  const source = new EventSource("/events");
  source.addEventListener("about", event => {
    const next = JSON.parse(event.data);
    // Another process has another history.
    if (!about || about.started_ms !== next.started_ms) {
      [seconds, state, cursor, lastNumber] = [[], null, null, -1];
    }
    about = next;
  });
  source.addEventListener("second", event => {
    const data = JSON.parse(event.data);
    // A new connection may bring seconds once more.
    const number = Number(event.lastEventId.split("-")[1]);
    if (number <= lastNumber) return;
    lastNumber = number;
    seconds.push(data.second);
    const first = data.second.at_ms - HISTORY_MS;
    const old = seconds.findIndex(second => second.at_ms >= first);
    if (old > 0) {
      seconds.splice(0, old);
      if (cursor !== null) cursor = Math.max(0, cursor - old);
    }
    if (data.state) state = data.state;
    lastEventAt = Date.now();
    connection("Live", "live");
    redraw();
  });
  source.addEventListener("error", () => {
    connection("The connection is lost. Trying again…", "lost");
    // The browser tries again by itself, unless the server has refused.
    if (source.readyState === EventSource.CLOSED) {
      source.close();
      setTimeout(connect, RETRY_MS);
    }
  });
}

setInterval(() => {
  const silence = Date.now() - lastEventAt;
  if (lastEventAt && silence > STALE_MS) {
    connection(`No figures for ${span(silence)}. Trying again…`, "lost");
  }
}, 1000);

/** The pointer on any chart shows the values of that time in all of them. */
function follow(chart) {
  chart.addEventListener("pointermove", event => {
    if (!seconds.length) return;
    const frame = chart.getBoundingClientRect();
    const [left, right] = [frame.left + LEFT, frame.right - RIGHT];
    const part = Math.min(1, Math.max(0, (event.clientX - left) / (right - left)));
    const at = seconds[seconds.length - 1].at_ms - (1 - part) * axis()[0] * 60_000;
    cursor = seconds.reduce((best, second, index) =>
      Math.abs(second.at_ms - at) < Math.abs(seconds[best].at_ms - at) ? index : best, 0);
    redraw();
  });
  chart.addEventListener("pointerleave", () => {
    cursor = null;
    redraw();
  });
}

document.querySelectorAll(".chart").forEach(follow);
byId("to-limit").addEventListener("change", redraw);
byId("order").addEventListener("change", redraw);
new ResizeObserver(redraw).observe(byId("main"));
connect();
