// Keeps a page as it is now: by the events of /events, which httpapi
// describes. Elements are found by the class that is a field's name.

const chartPoints = 120; // maxRates of the server
const firstRetry = 5000; // ms, when the server is away or has no place
const lastRetry = 60000; // twice as long each time, up to this

const charts = new Map(); // rates by topic, oldest first
const lastRate = new Map();

// shown lists the apps of the page, in the order of their topics.
function shown() {
  return [...document.querySelectorAll("[data-topic]")].map((e) => e.dataset.topic).sort();
}

function rowOf(topic) {
  return document.querySelector(`[data-topic="${CSS.escape(topic)}"]`);
}

function setText(root, name, text) {
  for (const e of root.getElementsByClassName(name)) {
    if (e.textContent !== text) e.textContent = text;
  }
}

function showApp(app) {
  const row = rowOf(app.topic);
  if (!row) return;
  row.dataset.state = app.state;
  row.dataset.held = app.held;
  for (const [name, text] of Object.entries(app)) setText(row, name, text);
  for (const e of row.getElementsByClassName("expiry")) e.dataset.urgency = app.urgency;
}

function scale(chart, top, bottom) {
  const [above, below] = chart.previousElementSibling.children;
  above.textContent = top;
  below.textContent = bottom;
}

function draw(topic) {
  const chart = rowOf(topic)?.querySelector(".chart");
  if (!chart) return;
  const rates = charts.get(topic);
  if (rates.every((r) => r === 0)) { // as most are where there are very many
    for (const e of chart.children) e.setAttribute("points", "");
    scale(chart, "", "");
    return;
  }
  const top = Math.max(1, ...rates);
  scale(chart, top.toLocaleString("en", { maximumFractionDigits: top < 100 ? 1 : 0 }), "0");
  const first = chartPoints - rates.length;
  const line = rates.map((r, i) => `${first + i},${(23 - 22 * r / top).toFixed(1)}`).join(" ");
  chart.querySelector("polyline").setAttribute("points", line);
  chart.querySelector("polygon").setAttribute("points", `${first},24 ${line} ${chartPoints - 1},24`);
}

function advance(topic, more) {
  const rates = (charts.get(topic) ?? []).concat(more).slice(-chartPoints);
  charts.set(topic, rates);
  draw(topic);
}

function look(event) {
  if (event.topics && event.topics.sort().join(" ") !== shown().join(" ")) {
    location.reload(); // apps have come or gone
    return;
  }
  event.apps.forEach(showApp);
  for (const [topic, rate] of Object.entries(event.now ?? {})) lastRate.set(topic, rate);
  if (event.rates) {
    for (const [topic, rates] of Object.entries(event.rates)) advance(topic, rates ?? []);
  } else {
    for (const topic of charts.keys()) advance(topic, lastRate.get(topic) ?? 0);
  }
  for (const e of document.querySelectorAll("[data-total]")) {
    for (const [name, text] of Object.entries(event.total)) setText(e, name, text);
  }
  document.querySelector("[data-total]")?.setAttribute("data-trouble", event.total.trouble !== "all well");
  const refused = document.getElementById("refused");
  refused.hidden = !event.refused;
  if (refused.textContent !== (event.refused ?? "")) refused.textContent = event.refused ?? "";
  for (const [id, html] of Object.entries(event.parts ?? {})) {
    const part = document.getElementById(id);
    if (part) part.innerHTML = html; // of the server's templates, which escape
  }
  if (event.parts) fold();
}

// Of long lists the first rows are shown, until all are asked for.
const few = 10;

function fold() {
  for (const button of document.querySelectorAll("button.more")) {
    const sheet = document.getElementById(button.getAttribute("aria-controls"));
    const rows = sheet.querySelectorAll("tbody tr").length;
    const all = button.getAttribute("aria-expanded") === "true";
    button.hidden = rows <= few;
    button.textContent = all ? `Show ${few}` : `Show all ${rows}`;
    sheet.classList.toggle("folded", !all);
  }
}

for (const button of document.querySelectorAll("button.more")) {
  button.addEventListener("click", () => {
    button.setAttribute("aria-expanded", button.getAttribute("aria-expanded") !== "true");
    fold();
  });
}
fold();

let source = null;
let wait = firstRetry;
let timer = 0;
const seen = new Date(); // as of when is what the page shows

// say tells that the page is not live, and why; without a text, that it is.
function say(why) {
  const sign = document.getElementById("stale");
  const text = why ? `Not live: ${why}. What you see is as of ${seen.toISOString().slice(11, 19)} UTC. Next try in ${wait / 1000} s.` : "";
  sign.hidden = !why;
  if (sign.textContent !== text) sign.textContent = text;
}

function open() {
  if (source || document.hidden) return;
  clearTimeout(timer);
  charts.clear();
  source = new EventSource(document.body.dataset.events);
  source.addEventListener("look", (e) => {
    document.body.dataset.live = "on";
    seen.setTime(Date.now());
    wait = firstRetry;
    say();
    look(JSON.parse(e.data));
  });
  source.addEventListener("signedout", () => location.reload());
  source.onerror = () => {
    close();
    later();
  };
}

function later() {
  timer = setTimeout(comeBack, wait);
}

// comeBack goes on when the server is there and has a place. An EventSource does not
// tell why it failed, so that this is asked first.
async function comeBack() {
  if (source || document.hidden) return;
  const ask = new URL(document.body.dataset.events, location.href);
  ask.searchParams.set("place", "");
  let why = "";
  try {
    const answer = await fetch(ask, { headers: { Accept: "application/json" }, redirect: "error" });
    if (answer.status === 401 || answer.status === 403) {
      location.reload(); // leads to the form to sign in, or says what is wrong
      return;
    }
    if (!answer.ok) why = (await answer.json()).detail;
  } catch {
    why = "the daemon does not answer";
  }
  if (!why) {
    open();
    return;
  }
  wait = Math.min(2 * wait, lastRetry);
  say(why);
  later();
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
  document.body.dataset.live = "off";
}

// Nothing is asked for a page that nobody sees.
document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
addEventListener("pagehide", close);
addEventListener("pageshow", open);
open();
