// The page of the admin listener: reads one event a second and draws it. No library, no network beyond its own listener.
// Everything that is shown came over a socket at some point: texts are set as text, never as HTML.

import { drawPlot, drawTimeline } from "./drawings.js";

const KEPT = 600; // seconds of the plots, as the server keeps them
const SHOWN_EVENTS = 100;
const SHOWN_STREAMS = 40;
const byId = (id) => document.getElementById(id);
const board = { series: [], happened: [], ended: [], transitions: [] };
let key = sessionStorage.getItem("evenflow-admin-key") ?? "";
let paused = false;
let latest = null;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

const seconds = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : value < 120 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`);
const clock = (unix) => new Date(unix * 1000).toLocaleTimeString([], { hour12: false });
const many = (value) => (value >= 1e9 ? `${(value / 1e9).toFixed(1)} G` : value >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : value >= 1e4 ? `${(value / 1e3).toFixed(1)} k` : `${Math.round(value)}`);

// ---- the stream of snapshots

async function follow() {
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const response = await fetch("dashboard/events", { headers: key ? { authorization: `Bearer ${key}` } : {}, cache: "no-store" });
      if (response.status === 401) return askForKey(key !== "");
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      Object.assign(board, { series: [], happened: [], ended: [], transitions: [] });
      byId("board").hidden = false;
      wait = 500;
      await read(response.body, take);
      show("stopped", "bad");
    } catch (problem) {
      show(`no connection (${problem.message}); trying again`, "bad");
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function read(body, taken) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) if (block.startsWith("data: ")) taken(JSON.parse(block.slice(6)));
  }
}

function askForKey(refused) {
  sessionStorage.removeItem("evenflow-admin-key");
  byId("login").hidden = false;
  byId("board").hidden = true;
  byId("refused").textContent = refused ? "That key is not one of them." : "";
  show("key needed", "");
  byId("key").focus();
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  sessionStorage.setItem("evenflow-admin-key", key);
  byId("key").value = "";
  byId("login").hidden = true;
  follow();
});

function take(news) {
  // A worker that was late corrects a second that was told already, and brings what happened a while ago.
  const told = new Map([...board.series, ...news.series].map((point) => [point.tick, point]));
  board.series = [...told.values()].sort((one, other) => one.tick - other.tick).slice(-KEPT);
  for (const name of ["happened", "ended", "transitions"]) {
    board[name].push(...news[name]);
    board[name].sort((one, other) => one.at - other.at);
  }
  board.happened = board.happened.slice(-SHOWN_EVENTS);
  board.ended = board.ended.slice(-SHOWN_STREAMS);
  board.transitions = board.transitions.slice(-200);
  latest = news;
  if (!paused) draw();
}

// ---- drawing

function show(text, mood) {
  const pill = byId("pill");
  if (pill.textContent !== text) pill.textContent = text; // a status role speaks each change
  pill.className = `pill ${mood}`;
}

function draw() {
  const now = latest;
  const nobody = now.workers?.every((worker) => worker.state === "starting" || worker.state === "no answer");
  if (nobody) show("no worker answers", "bad");
  else show(now.ready ? "ready" : "draining", now.ready ? "good" : "");
  if (!nobody) byId("about").textContent = `${now.version}, up ${seconds(now.uptime)}, ${now.base_url}, engine ${now.engine}`;
  const banner = byId("banner");
  banner.hidden = !now.fallback;
  banner.textContent = now.fallback ? `The relay serves all streams: ${now.fallback}. "evenflow rollout PERCENT" ends it.` : "";
  drawNumbers(now);
  drawWorkers(now.workers ?? []);
  drawPlots();
  drawCircuits(now.circuits);
  drawStreams(now);
  drawHappened();
  drawEnded();
}

function drawNumbers(now) {
  const last = board.series.at(-1) ?? {};
  const shown = [
    ["streams", now.streams_active], ["waiting", now.waiting], ["events a second", many(last.events ?? 0)], ["first token p50", last.first_token === null || last.first_token === undefined ? "–" : seconds(last.first_token)],
    ["done", many(now.totals.done)], ["errors", many(now.totals.error), now.totals.error > 0], ["cancelled", many(now.totals.cancelled)], ["repairs", many(now.totals.repairs)], ["retries", many(now.totals.retries)],
  ];
  byId("numbers").replaceChildren(...shown.map(([name, value, bad]) => element("div", bad ? { class: "bad" } : {}, element("dt", {}, name), element("dd", {}, String(value)))));
}

function drawPlots() {
  const series = board.series;
  const of = (name) => series.map((point) => point[name]);
  const plots = byId("plots");
  const wanted = [
    ["events a second", of("events"), null, many],
    ["streams", of("streams"), null, many],
    ["first token: p50, p99 (dashed)", of("first_token"), of("first_token_p99"), seconds],
    ["added latency: longest holds p50, p99 (dashed)", of("held"), of("held_p99"), seconds],
  ];
  plots.replaceChildren(...wanted.map(([title, one, two, told]) => drawPlot(title, one, two, told)));
}

function mark(text, mood) {
  return element("span", { class: `mark ${mood}` }, text);
}

const MOODS = { closed: "", half_open: "warn", open: "bad", paused: "warn", forced_open: "bad", disabled: "warn", metrics_only: "warn" };

const WORKER_MOODS = { serving: "", draining: "warn", starting: "warn", "no answer": "bad" };

function drawWorkers(workers) {
  document.documentElement.classList.toggle("several", workers.length > 0); // shows the columns that name a worker
  byId("workers").replaceChildren(...workers.map((one) => element("li", { title: `process ${one.pid}` },
    mark(`worker ${one.worker}: ${one.state}`, WORKER_MOODS[one.state]), ` ${one.streams} streams, ${many(one.events)} events a second${one.restarts ? `, started again${one.restarts > 1 ? ` ${one.restarts} times` : ""}` : ""}`)));
}

const ofWorker = (one) => (one.worker ? `worker ${one.worker}` : "");

const windowOf = (circuit) => `${circuit.state.replace("_", " ")}${circuit.seconds_left > 0 ? ` ${Math.ceil(circuit.seconds_left)} s` : ""}`;

/** One mark per state, and whose it is where workers differ: each has a circuit of its own. */
function stateMarks(circuits) {
  const states = new Map();
  for (const circuit of circuits) states.set(circuit.state, [...(states.get(circuit.state) ?? []), circuit]);
  return [...states].flatMap(([state, those]) => [
    mark(states.size === 1 && those.length > 1 ? state.replace("_", " ") : windowOf(those.reduce((one, other) => (other.seconds_left > one.seconds_left ? other : one))), MOODS[state] ?? ""),
    states.size > 1 ? element("span", { class: "faint" }, ` worker ${those.map((one) => one.worker).join(", ")} `) : "",
  ]);
}

function drawCircuits(circuits) {
  const focused = document.activeElement?.dataset.action;
  const upstreams = new Map();
  for (const circuit of circuits) upstreams.set(circuit.name, [...(upstreams.get(circuit.name) ?? []), circuit]);
  const rows = [...upstreams].map(([name, those]) => {
    const sum = (field) => those.reduce((total, circuit) => total + circuit[field], 0);
    const history = board.transitions.filter((one) => one.upstream === name).slice(-6);
    const buttons = [["reset", "Reset", {}], ["force", "Force open", { state: "forced_open" }], ["force", "Normal", { state: "on" }]].map(([what, label, body]) => {
      const button = element("button", { type: "button", "data-action": `${name} ${label}`, "aria-label": `${label}: circuit of ${name}${those[0].worker ? " at every worker" : ""}` }, label);
      button.addEventListener("click", () => order(name, what, body));
      return button;
    });
    return element("tr", {},
      element("th", { scope: "row" }, name), element("td", {}, ...stateMarks(those)),
      element("td", { class: "number" }, `${sum("failed")} of ${sum("calls")}`), element("td", { class: "number" }, String(sum("permits_out"))), element("td", { class: "number" }, String(sum("refused"))),
      element("td", {}, historyOf(name, history, those)),
      element("td", {}, ...buttons));
  });
  byId("circuits").tBodies[0].replaceChildren(...rows);
  if (focused) document.querySelector(`[data-action="${CSS.escape(focused)}"]`)?.focus();
}

const opened = new Set(); // circuits whose history is open; the table is drawn anew each second

function historyOf(name, history, circuits) {
  const own = circuits.filter((one) => one.worker).map((one) => element("li", {}, `${ofWorker(one)}: ${windowOf(one)}, ${one.failed} of ${one.calls} failed, ${one.permits_out} permits out, ${one.refused} refused`));
  if (history.length === 0 && own.length === 0) return "–";
  const lines = history.toReversed().map((one) => element("li", {}, `${clock(one.at)} ${[ofWorker(one), one.from].filter(Boolean).join(" ")} → ${one.to}${one.reason ? `: ${one.reason}` : ""}`));
  const last = history.at(-1);
  const made = element("details", opened.has(name) ? { open: "" } : {}, element("summary", { "data-action": `${name} history` }, last ? `${clock(last.at)} ${last.to}` : "each worker"), element("ol", { class: "history" }, ...own, ...lines));
  made.addEventListener("toggle", () => (made.open ? opened.add(name) : opened.delete(name)));
  return made;
}

async function order(upstream, what, body) {
  const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const response = await fetch(`breaker/${encodeURIComponent(upstream)}/${what}`, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) show(`refused: HTTP ${response.status}`, "bad"); // 503: a worker did not hear it, and its circuit shows that
}

const QUIET = { initial: "warn", stuttering: "warn", recovering: "bad" };

function drawStreams(now) {
  byId("live-count").textContent = now.streams_active > now.streams.length ? `${now.streams_active}, the oldest ${now.streams.length} are listed` : `${now.streams_active}`;
  byId("states").replaceChildren(...Object.entries(now.states).map(([state, count]) => mark(`${count} ${state}`, QUIET[state] ?? "")));
  byId("no-streams").hidden = now.streams.length > 0;
  byId("streams").hidden = now.streams.length === 0;
  byId("streams").tBodies[0].replaceChildren(...now.streams.map((stream) => element("tr", {},
    element("td", {}, mark(stream.state, QUIET[stream.state] ?? "")), element("td", { class: "of-worker number" }, String(stream.worker ?? "")), element("td", {}, stream.model), element("td", {}, stream.upstream || "–"),
    element("td", { class: "number" }, seconds(stream.age)), element("td", { class: "number" }, many(stream.events)), element("td", { class: "number" }, stream.rate.toFixed(0)),
    element("td", { class: "number" }, String(stream.attempts)), element("td", {}, stream.repairs || "–"), element("td", {}, stream.client || "–"), element("td", {}, stream.id))));
}

const KINDS = { fault: "bad", retry: "warn", repair: "", hold: "", resume: "warn", loop: "warn", attempt: "", state: "", circuit: "bad" };

function drawHappened() {
  byId("nothing-happened").hidden = board.happened.length > 0;
  const runs = []; // the same thing again and again is one line with a count
  for (const one of board.happened) {
    const last = runs.at(-1);
    if (last && last.kind === one.kind && last.text === one.text && last.worker === one.worker) Object.assign(last, { at: one.at, times: last.times + 1 });
    else runs.push({ ...one, times: 1 });
  }
  byId("happened").replaceChildren(...runs.toReversed().map((one) => element("li", {},
    element("time", {}, clock(one.at)), element("span", {}, mark(one.kind, KINDS[one.kind] ?? "")), element("span", {}, `${one.text}${one.times > 1 ? `, ${one.times} times` : ""}`, element("span", { class: "faint of-worker" }, ` ${ofWorker(one)}`)))));
}

const ENDS = { done: "", error: "bad", cancelled: "warn" };

function drawEnded() {
  byId("no-ended").hidden = board.ended.length > 0;
  const place = byId("ended");
  const keyOf = (stream) => `${stream.id} ${stream.at}`; // an id may be the client's, and come twice
  const known = new Map([...place.children].map((child) => [child.dataset.key, child]));
  // An entry never changes once it is there: what is open, stays open, and what has the focus keeps it.
  place.replaceChildren(...board.ended.toReversed().map((stream) => known.get(keyOf(stream)) ?? endedStream(stream, keyOf(stream))));
}

function endedStream(stream, key) {
  const facts = `${stream.model} · ${stream.upstream || "no upstream"} · ${seconds(stream.total)}${stream.first_token === null ? "" : `, first token ${seconds(stream.first_token)}`} · ${stream.events} tokens${stream.attempts > 1 ? ` · ${stream.attempts} tries` : ""}${stream.repairs ? ` · repaired ${stream.repairs}` : ""}`;
  const made = element("details", { "data-key": key }, element("summary", {}, mark(stream.outcome, ENDS[stream.outcome]), element("span", {}, facts)));
  made.addEventListener("toggle", () => {
    if (!made.open || made.children.length > 1) return;
    made.append(drawTimeline(stream, seconds));
    const story = stream.story.map(([at, kind, text]) => element("li", {}, element("span", { class: "at" }, seconds(at)), element("span", {}, mark(kind, KINDS[kind] ?? "")), element("span", {}, text)));
    made.append(element("ol", { class: "story" }, ...story), element("p", { class: "faint" }, `request ${stream.id}, ${stream.worker ? `${ofWorker(stream)}, ` : ""}ended ${clock(stream.at)}${stream.fault ? `: ${stream.fault}` : ""}`));
  });
  return made;
}

// ---- the two buttons

byId("pause").addEventListener("click", (event) => {
  paused = !paused;
  event.target.setAttribute("aria-pressed", String(paused));
  event.target.textContent = paused ? "Go on" : "Pause";
  if (!paused && latest) draw();
});

byId("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme === "dark" || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});

follow();
