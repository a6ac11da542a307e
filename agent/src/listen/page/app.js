// The live page. Spans hold text that strangers chose: everything is inserted as text, never as markup.
"use strict";

const ROWS = 200; // spans in the table, and in the buffer while it stands still
const SERVICES = 50; // rows in the service table
const TREND = 60; // seconds in a sparkline
const SILENCE = 6000; // ms without an event after which the connection counts as lost (one comes each second)
const RETRY = [1000, 2000, 4000, 8000, 15000]; // ms

const $ = (id) => document.getElementById(id);
const filters = { service: "", kind: "", status: "", path: "" };
const rows = new Map(); // span id -> row, newest first in the table
const trends = new Map(); // service and kind -> { row, rates }
let waiting = []; // spans to show, oldest first
let selected = null; // span id in the side panel
let paused = false;
let still = false; // no stream is opened
let pointing = false; // the pointer or the focus is in the table: it stands still, so that rows can be hit
let total = { shown: 0, more: 0, missed: 0 };
let loaded = false;
let lastStats = null;
let source = null;
let heard = 0;
let attempts = 0;
let retry = 0;
let generation = 0; // answers to earlier questions are dropped

// Numbers as people read them.

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const grouped = new Intl.NumberFormat("en");

function count(value) {
  if (!Number.isFinite(value)) return "–";
  return value < 10000 ? grouped.format(Math.round(value)) : compact.format(value);
}

function perSecond(value) {
  if (!Number.isFinite(value)) return "–";
  return `${value < 10 ? Number(value.toFixed(1)) : count(value)}/s`;
}

function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 0.9995) return `${Math.round(ms * 1000)} µs`;
  if (ms < 9.995) return `${ms.toFixed(2)} ms`;
  if (ms < 99.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59950) return `${(ms / 1000).toFixed(ms < 9995 ? 2 : 1)} s`;
  return `${(ms / 60000).toFixed(1)} min`;
}

function percent(part) {
  if (!Number.isFinite(part)) return "–";
  if (part > 0 && part < 0.0005) return "<0.1 %";
  return `${Number((part * 100).toFixed(part < 0.1 ? 1 : 0))} %`;
}

function octets(value) {
  if (!Number.isFinite(value)) return "–";
  return value < 1 << 20 ? `${Math.round(value / 1024)} KiB` : `${(value / (1 << 20)).toFixed(1)} MiB`;
}

function age(start, now) {
  const seconds = Math.max(0, (now - start) / 1000);
  if (seconds < 1) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}

function clock(start) {
  const at = new Date(start);
  if (Number.isNaN(at.getTime())) return "–";
  const digits = (value, width) => String(value).padStart(width, "0");
  const day = `${at.getFullYear()}-${digits(at.getMonth() + 1, 2)}-${digits(at.getDate(), 2)}`;
  const time = `${digits(at.getHours(), 2)}:${digits(at.getMinutes(), 2)}:${digits(at.getSeconds(), 2)}`;
  return `${day} ${time}.${digits(at.getMilliseconds(), 3)}`;
}

// Characters that cannot be seen, or turn the text around them, as their code.
function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (hidden) => `\\u{${hidden.codePointAt(0).toString(16)}}`);
}

// Elements.

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = visible(text);
  if (className) made.className = className;
  return made;
}

function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function pairs(entries) {
  const list = element("dl", null, "pairs");
  for (const [key, value] of entries) {
    const name = element("dt");
    // A long name breaks after a dot.
    key.split(/(?<=\.)/).forEach((part) => name.append(visible(part), element("wbr")));
    const text = element("dd");
    for (const item of Array.isArray(value) ? value : [value]) text.append(element("div", item));
    list.append(name, text);
  }
  return list;
}

// Services.

function showServices(data) {
  const chosen = data.services.slice(0, SERVICES);
  const key = (row) => `${row.kind} ${row.service}`;
  const keys = new Set(chosen.map(key));
  for (const [name, known] of trends) {
    if (!keys.has(name)) {
      known.row.remove();
      trends.delete(name);
    }
  }
  // By name, so that a row stays where it was.
  chosen.sort((a, b) => a.service.localeCompare(b.service) || b.kind.localeCompare(a.kind));
  const body = $("services");
  chosen.forEach((service, index) => {
    let known = trends.get(key(service));
    if (!known) {
      known = { row: serviceRow(service), rates: [] };
      trends.set(key(service), known);
    }
    if (body.children[index] !== known.row) body.insertBefore(known.row, body.children[index] || null);
    known.rates.push(service.rate);
    if (known.rates.length > TREND) known.rates.shift();
    updateService(known, service);
  });
  const omitted = data.omitted + data.services.length - chosen.length;
  const rest = omitted > 0 ? ` · ${count(omitted)} quieter ones not shown` : "";
  setText($("services-note"), chosen.length ? `rates and quantiles over the last ${Math.round(data.window_seconds)} s${rest}` : "");
  $("services-empty").hidden = chosen.length > 0;
  serviceOptions(data.services.map((row) => row.service));
}

function serviceRow(service) {
  const row = element("tr");
  const name = element("td");
  const button = element("button", service.service);
  button.type = "button";
  button.title = `Show only ${service.service} (${service.kind})`;
  button.addEventListener("click", () => {
    const on = filters.service === service.service && filters.kind === service.kind;
    setFilters({ service: on ? "" : service.service, kind: on ? "" : service.kind });
  });
  name.append(button, element("small", service.kind));
  row.append(name, element("td", service.kind, "kind"));
  row.append(element("td", "", "number"), element("td", "", "number"));
  const trend = element("td", null, "trend");
  const drawing = svg("svg", { viewBox: "0 0 126 24", preserveAspectRatio: "none", "aria-hidden": "true" });
  drawing.append(svg("polygon", { points: "" }), svg("polyline", { points: "" }));
  trend.append(drawing);
  row.append(trend);
  for (let cell = 0; cell < 4; cell += 1) row.append(element("td", "", "number"));
  return row;
}

function updateService(known, service) {
  const cells = known.row.children;
  setText(cells[2], count(service.requests));
  setText(cells[3], perSecond(service.rate));
  setText(cells[5], percent(service.error_rate ?? NaN));
  cells[5].classList.toggle("bad", service.error_rate > 0);
  [service.p50_ms, service.p90_ms, service.p99_ms].forEach((value, index) => setText(cells[6 + index], duration(value ?? NaN)));
  known.row.setAttribute("aria-current", String(filters.service === service.service && (!filters.kind || filters.kind === service.kind)));
  const most = Math.max(1e-9, ...known.rates);
  const left = TREND - known.rates.length;
  const points = known.rates.map((rate, index) => `${(((left + index) / (TREND - 1)) * 126).toFixed(1)},${(22 - (rate / most) * 20).toFixed(1)}`);
  const [area, line] = cells[4].firstChild.children;
  line.setAttribute("points", points.join(" "));
  const first = ((left / (TREND - 1)) * 126).toFixed(1);
  area.setAttribute("points", points.length > 1 ? `${first},24 ${points.join(" ")} 126,24` : "");
}

function serviceOptions(names) {
  const select = $("filter-service");
  const wanted = [...new Set(filters.service ? [...names, filters.service] : names)].sort((a, b) => a.localeCompare(b));
  const present = [...select.options].slice(1).map((option) => option.value);
  if (wanted.length === present.length && wanted.every((name, index) => name === present[index])) return;
  select.replaceChildren(select.options[0], ...wanted.map((name) => new Option(name, name)));
  select.value = filters.service;
}

// The agent's health.

function showStats(stats) {
  const seconds = lastStats ? stats.uptime_seconds - lastStats.uptime_seconds : 0;
  if (lastStats && seconds < 0) lastStats = null; // the agent was started anew
  if (seconds > 0.4) {
    const rate = (key) => (stats[key] - lastStats[key]) / seconds;
    setText($("health-records"), perSecond(rate("records")));
    setText($("health-spans"), perSecond(rate("spans")));
    setText($("health-cpu"), `${(rate("cpu_seconds") * 100).toFixed(1)} %`);
  }
  if (!lastStats || seconds > 0.4) lastStats = stats;
  setText($("health-connections"), count(stats.connections));
  setText($("health-memory"), octets(stats.resident_octets));

  const drops = stats.drops.filter((drop) => drop.count > 0);
  const dropped = drops.reduce((sum, drop) => sum + drop.count, 0);
  setText($("losses-total"), count(dropped));
  $("losses").dataset.state = dropped > 0 ? "warn" : "";
  const losses = drops.map((drop) => [`${drop.stage}: ${drop.reason.replaceAll("_", " ")}`, grouped.format(drop.count)]);
  if (stats.sampled_out > 0) losses.push(["left out by sampling (not a loss)", grouped.format(stats.sampled_out)]);
  $("losses-list").replaceChildren(losses.length ? pairs(losses) : element("p", "Nothing was lost."));

  const broken = stats.exporters.filter((exporter) => exporter.problem);
  const state = stats.exporters.length === 0 ? "none" : broken.length ? `${broken.length} failing` : "ok";
  setText($("exporters-state"), state);
  $("exporters").dataset.state = broken.length ? "bad" : "";
  const ways = stats.exporters.flatMap((exporter) => {
    const lines = [
      [exporter.name, `${grouped.format(exporter.exported)} exported`],
      ["waiting", `${grouped.format(exporter.queue)} of ${grouped.format(exporter.queue_capacity)}`],
    ];
    if (exporter.dropped > 0) lines.push(["dropped", grouped.format(exporter.dropped)]);
    if (exporter.problem) lines.push(["problem", exporter.problem]);
    return lines;
  });
  $("exporters-list").replaceChildren(ways.length ? pairs(ways) : element("p", "Spans go to this page only. Set OTEL_EXPORTER_OTLP_ENDPOINT or --spans to export them."));

  $("notice").hidden = stats.ready;
  if (!stats.ready) setText($("notice"), `Not ready: ${stats.not_ready_reason}`);
}

// Spans.

function spanRow(span, now) {
  const row = element("tr");
  row.span = span;
  const at = element("td", age(span.start, now), "number age");
  at.title = clock(span.start);
  const service = element("td", span.service);
  service.title = span.service;
  const request = element("td", null, "request");
  const button = element("button");
  button.type = "button";
  if (span.method) button.append(element("span", `${span.method} `, "method"));
  // A message's topic alone would not tell whether it was sent or received.
  const shown = span.method ? (span.path ?? span.name) : span.name;
  button.append(visible(shown));
  request.append(button, element("small", `${span.service} · ${span.kind}`));
  request.title = shown;
  const failed = span.error !== null;
  const status = element("td", null, "status");
  const reason = failed && span.error !== String(span.status) ? span.error : null;
  status.textContent = [span.status, reason].filter((part) => part !== null).join(" ") || "–";
  status.title = status.textContent;
  status.dataset.class = span.status === null || (failed && span.status < 400) ? (failed ? "error" : "none") : String(span.status).charAt(0);
  const bar = element("td", null, "bars");
  const meter = element("span", null, "meter");
  if (failed) meter.dataset.error = "";
  // From 0.01 ms to 10 s.
  const part = (Math.log10(Math.max(span.duration_ms, 0.01)) + 2) / 6;
  meter.style.setProperty("width", `${Math.min(100, part * 100).toFixed(1)}%`);
  bar.append(meter);
  const peer = element("td", span.peer ?? "–", "peer");
  row.append(at, service, element("td", span.kind, "kind"), request, status, element("td", duration(span.duration_ms), "number"), bar, peer);
  if (span.span_id === selected) row.setAttribute("aria-current", "true");
  return row;
}

function showSpans(spans, fresh) {
  const now = Date.now();
  const body = $("spans");
  const made = document.createDocumentFragment();
  for (const span of spans.slice(-ROWS)) {
    if (rows.has(span.span_id)) continue;
    const row = spanRow(span, now);
    if (fresh) row.className = "fresh";
    rows.set(span.span_id, row);
    made.prepend(row);
  }
  body.prepend(made);
  // A map keeps the order in which things came.
  for (const [id, row] of rows) {
    if (rows.size <= ROWS) break;
    row.remove();
    rows.delete(id);
  }
  showEmpty();
}

function flush() {
  if (paused || pointing || waiting.length === 0) return;
  const spans = waiting;
  waiting = [];
  showSpans(spans, true);
}

function arrived(data) {
  total.shown += data.spans.length;
  total.more += data.more;
  total.missed += data.missed;
  waiting.push(...data.spans);
  if (waiting.length > ROWS) waiting = waiting.slice(-ROWS);
  flush();
}

function showCounter() {
  const parts = [`${count(total.shown + total.more)} spans in this view`];
  if (total.more > 0) parts.push(`${count(total.more)} more than the 200 a second that are shown`);
  if (total.missed > 0) parts.push(`${count(total.missed)} came too fast to be looked at`);
  if (waiting.length > 0) {
    const reason = paused ? "paused" : "standing still while you point";
    parts.push(`${reason}, ${count(waiting.length)}${waiting.length === ROWS ? "+" : ""} new`);
  }
  setText($("counter"), loaded ? parts.join(" · ") : "");
}

function showEmpty() {
  const empty = loaded && rows.size === 0;
  $("spans-empty").hidden = !empty;
  if (!empty) return;
  const hint = $("spans-empty-hint");
  if (Object.values(filters).some(Boolean)) {
    setText($("spans-empty-title"), "No span matches the filters");
    setText(hint, "New ones appear here as soon as they do.");
  } else if (!hint.querySelector("code")) {
    setText($("spans-empty-title"), "Nothing seen yet");
    hint.replaceChildren("Whatever processes on this host say over HTTP, or send and receive by Kafka or RabbitMQ, appears here at once. Try ", element("code", "curl http://example.org/"), " or ask a service of your own; nothing needs to be restarted.");
  }
}

// The side panel.

function select(id) {
  const before = rows.get(selected);
  if (before) before.removeAttribute("aria-current");
  selected = id;
  const row = rows.get(id);
  $("detail").hidden = !row;
  if (!row) return;
  row.setAttribute("aria-current", "true");
  showDetail(row.span);
  $("detail-title").focus({ preventScroll: true });
  fetchJson(`/api/spans/${id}`).then(
    (whole) => selected === id && showDetail(whole),
    () => selected === id && $("detail-body").append(element("p", "The agent no longer holds this span: long values are cut, its resource is not shown.", "note")),
  );
}

function close(byKeyboard) {
  const row = rows.get(selected);
  select(null);
  if (row && byKeyboard) row.querySelector("button").focus({ preventScroll: true });
}

function showDetail(span) {
  setText($("detail-title"), visible(span.name));
  const facts = [
    ["service", `${span.service} (${span.kind})`],
    ["start", clock(span.start)],
    ["duration", duration(span.duration_ms)],
  ];
  if (span.ttfb_ms !== null) facts.push(["first octet after", duration(span.ttfb_ms)]);
  if (span.error !== null) facts.push(["error", span.error]);
  facts.push(["trace", span.trace_id], ["span", span.span_id]);
  if (span.parent !== null) facts.push(["parent", span.parent]);
  if (span.trace_state) facts.push(["tracestate", span.trace_state]);
  const body = $("detail-body");
  const drawn = body.querySelector(".trace");
  const known = drawn && drawn.dataset.trace === span.trace_id ? drawn : element("div", null, "trace");
  if (known !== drawn) showTrace(known, span.trace_id);
  body.replaceChildren(pairs(facts), element("h4", "Trace"), known, element("h4", "Attributes"), pairs(Object.entries(span.attributes)));
  if (span.links?.length) body.append(element("h4", "Comes from"), ...span.links.map(linkedTrace));
  if (span.resource) body.append(element("h4", "Resource"), pairs(Object.entries(span.resource)));
}

// Another trace that a span names: shown below its id when asked for.
function linkedTrace(link) {
  const made = element("div", null, "linked");
  const button = element("button", `trace ${link.trace_id}`);
  button.type = "button";
  button.title = `Show the trace of span ${link.span_id}`;
  button.setAttribute("aria-expanded", "false");
  const trace = element("div");
  trace.hidden = true;
  button.addEventListener("click", () => {
    trace.hidden = !trace.hidden;
    button.setAttribute("aria-expanded", String(!trace.hidden));
    if (!trace.hidden) showTrace(trace, link.trace_id, link.span_id);
  });
  made.append(button, trace);
  return made;
}

// A trace as a waterfall: each span under its parent, its bar where it lies in the trace's time.
async function showTrace(into, id, current = selected) {
  into.dataset.trace = id;
  try {
    const { spans, more } = await fetchJson(`/api/traces/${id}`);
    const children = new Map();
    const present = new Set(spans.map((span) => span.span_id));
    for (const span of spans) {
      const parent = present.has(span.parent) ? span.parent : null;
      children.set(parent, [...(children.get(parent) ?? []), span]);
    }
    const begin = Math.min(...spans.map((span) => span.start));
    const whole = Math.max(0.001, ...spans.map((span) => span.start + span.duration_ms - begin));
    const list = element("ol", null, "waterfall");
    // Not by recursion: a chain may be long.
    const left = (children.get(null) ?? []).map((span) => [span, 0]).reverse();
    while (left.length > 0) {
      const [span, depth] = left.pop();
      list.append(traceRow(span, depth, begin, whole, current));
      left.push(...(children.get(span.span_id) ?? []).map((child) => [child, depth + 1]).reverse());
    }
    into.replaceChildren(list);
    if (more) into.append(element("p", "This trace has more spans than are shown.", "note"));
  } catch (failure) {
    into.replaceChildren(element("p", "The agent no longer holds this trace.", "note"));
  }
}

function traceRow(span, depth, begin, whole, current) {
  const row = element("li");
  row.style.setProperty("--depth", String(Math.min(depth, 12)));
  if (span.span_id === current) row.setAttribute("aria-current", "true");
  const label = element("span", null, "label");
  label.append(element("strong", span.service), " ", element("span", span.name));
  const method = span.attributes["remora.link.method"];
  if (method) {
    const certain = span.attributes["remora.link.confidence"];
    label.append(" ", element("small", certain < 1 ? `${method} ${percent(certain)}` : method));
  }
  label.title = `${span.service} (${span.kind}): ${span.name}`;
  const line = element("span", null, "line");
  const bar = element("span", null, "meter");
  if (span.error !== null) bar.dataset.error = "";
  if (span.kind === "client" || span.kind === "producer") bar.dataset.outgoing = "";
  bar.style.setProperty("left", `${(((span.start - begin) / whole) * 100).toFixed(2)}%`);
  bar.style.setProperty("width", `${((span.duration_ms / whole) * 100).toFixed(2)}%`);
  line.append(bar);
  row.append(label, element("span", duration(span.duration_ms), "number"), line);
  return row;
}

// The services as a map: callers to the left of those they call.

const NODE = { width: 150, height: 34, across: 230, down: 52 };

async function showMap() {
  if (!$("map").open || document.hidden) return;
  let map;
  try {
    map = await fetchJson("/api/map");
  } catch (failure) {
    return; // the connection's own state tells of it
  }
  const outside = "(elsewhere)";
  const calls = map.calls.map((call) => ({ ...call, from: call.from ?? outside })).filter((call) => call.from !== call.to);
  const names = [...new Set(calls.flatMap((call) => [call.from, call.to]))];
  setText($("map-note"), names.length ? `of the newest ${count(map.spans)} spans` : "no calls between services yet");
  // The column of a service is the longest way to it; a circle of calls ends the search.
  const column = new Map(names.map((name) => [name, 0]));
  for (let round = 0; round < Math.min(names.length, 32); round += 1) {
    let moved = false;
    for (const { from, to } of calls) {
      if (column.get(to) <= column.get(from) && column.get(from) + 1 < names.length) {
        column.set(to, column.get(from) + 1);
        moved = true;
      }
    }
    if (!moved) break;
  }
  const filled = [];
  const place = new Map();
  for (const name of names.sort((a, b) => a.localeCompare(b))) {
    const x = column.get(name);
    filled[x] = (filled[x] ?? 0) + 1;
    place.set(name, { x: 10 + x * NODE.across, y: 10 + (filled[x] - 1) * NODE.down });
  }
  const width = Math.max(0, ...[...place.values()].map(({ x }) => x)) + NODE.width + 10;
  const height = Math.max(0, ...[...place.values()].map(({ y }) => y)) + NODE.height + 10;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Which service calls which" });
  for (const call of calls) {
    const [from, to] = [place.get(call.from), place.get(call.to)];
    const [x1, y1, x2, y2] = [from.x + NODE.width, from.y + NODE.height / 2, to.x, to.y + NODE.height / 2];
    const bend = Math.max(30, Math.abs(x2 - x1) / 2);
    const path = svg("path", { d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`, "stroke-width": (1 + Math.log10(call.requests)).toFixed(1) });
    if (call.errors > 0) path.dataset.error = "";
    const title = svg("title", {});
    title.textContent = visible(`${call.from} → ${call.to}: ${count(call.requests)} times, ${percent(call.errors / call.requests)} errors, ${duration(call.mean_ms)} on average`);
    path.append(title);
    drawing.append(path);
  }
  for (const [name, { x, y }] of place) {
    drawing.append(svg("rect", { x, y, width: NODE.width, height: NODE.height, rx: 8 }));
    const text = svg("text", { x: x + NODE.width / 2, y: y + NODE.height / 2 + 4, "text-anchor": "middle" });
    const shown = visible(name);
    text.textContent = shown.length > 20 ? `${shown.slice(0, 19)}…` : shown;
    drawing.append(text);
  }
  $("map-drawing").replaceChildren(drawing);
}

$("map").addEventListener("toggle", showMap);
setInterval(showMap, 2000);

// Asking the agent.

async function fetchJson(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function query(more) {
  const given = Object.entries({ ...filters, ...more }).filter(([, value]) => value !== "");
  return new URLSearchParams(given).toString();
}

function connection(state, text) {
  const node = $("connection");
  node.dataset.state = state;
  setText(node, text);
}

// Fills the page, then follows the stream from there on; begins anew after any failure.
async function load() {
  disconnect();
  const mine = generation;
  try {
    const [spans, services, stats] = await Promise.all([
      fetchJson(`/api/spans?${query({ limit: ROWS })}`),
      fetchJson("/api/services"),
      fetchJson("/api/stats"),
    ]);
    if (mine !== generation) return;
    waiting = [];
    rows.clear();
    $("spans").replaceChildren();
    total = { shown: spans.spans.length, more: 0, missed: 0 };
    loaded = true;
    showServices(services);
    showStats(stats);
    showSpans(spans.spans.reverse(), false);
    showCounter();
    // Opened with `?paused`, the page is a still picture until people resume it.
    if (still) connection("connecting", "Not followed");
    else follow(spans.cursor);
  } catch (failure) {
    if (mine === generation) lost();
  }
}

function follow(cursor) {
  const mine = generation;
  source = new EventSource(`/api/stream?${query({ after: cursor })}`);
  heard = Date.now();
  const on = (name, show) =>
    source.addEventListener(name, (event) => {
      if (mine !== generation) return;
      heard = Date.now();
      attempts = 0;
      connection("live", "Live");
      show(JSON.parse(event.data));
    });
  on("spans", arrived);
  on("services", showServices);
  on("stats", showStats);
  source.addEventListener("error", () => mine === generation && lost());
}

function disconnect() {
  generation += 1;
  clearTimeout(retry);
  if (source) source.close();
  source = null;
}

function lost() {
  disconnect();
  const wait = RETRY[Math.min(attempts, RETRY.length - 1)];
  attempts += 1;
  connection("lost", "Connection lost, trying again…");
  retry = setTimeout(load, wait);
}

// What people do.

function setFilters(change) {
  Object.assign(filters, change);
  for (const [name, value] of Object.entries(filters)) {
    const field = $(`filter-${name}`);
    if (name === "service" && ![...field.options].some((option) => option.value === value)) field.append(new Option(value, value));
    if (field.value !== value) field.value = value;
    if (field.value !== value) filters[name] = field.value = ""; // not a choice
  }
  $("clear").hidden = !Object.values(filters).some(Boolean);
  const search = query({});
  history.replaceState(null, "", search ? `?${search}` : location.pathname);
  load();
}

let typing = 0;
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => setFilters({ [event.target.name]: event.target.value }), event.target.id === "filter-path" ? 250 : 0);
});
$("filters").addEventListener("reset", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  setFilters({ service: "", kind: "", status: "", path: "" });
});
$("pause").addEventListener("click", () => {
  pause(!paused);
  if (still) {
    still = false;
    load();
  }
  flush();
  showCounter();
});

function pause(on) {
  paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  setText($("pause"), on ? "Resume" : "Pause");
}

const body = $("spans");
const hold = () => {
  pointing = body.matches(":hover") || body.contains(document.activeElement);
  flush();
  showCounter();
};
for (const name of ["mouseenter", "mouseleave", "focusin"]) body.addEventListener(name, hold);
body.addEventListener("focusout", () => setTimeout(hold));
body.addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row) select(row.span.span_id);
});
body.addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const row = step && event.target.closest("tr")[step];
  if (!row) return;
  event.preventDefault();
  row.querySelector("button").focus();
});
$("detail-close").addEventListener("click", (event) => close(event.detail === 0));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const open of document.querySelectorAll("details[open]")) open.open = false;
  if (selected) close(true);
});
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details[open]")) if (!open.contains(event.target)) open.open = false;
});

// Nobody looks: the agent need not work for this page.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    disconnect();
    connection("connecting", "Not followed in the background");
  } else {
    load();
  }
});

setInterval(() => {
  if (source && Date.now() - heard > SILENCE) lost();
  const now = Date.now();
  for (const row of rows.values()) setText(row.firstChild, age(row.span.start, now));
  showCounter();
}, 1000);
// A screen reader is told rarely.
setInterval(() => setText($("announce"), $("counter").textContent), 15000);

const asked = new URLSearchParams(location.search);
still = asked.has("paused");
pause(still);
setFilters(Object.fromEntries(Object.keys(filters).map((name) => [name, asked.get(name) ?? ""])));
