// Keeps a page up to date by the events of /events: each brings a part of the page, drawn
// as the page was at first, and is put in its place.

import { swap } from "./swap.js";

const firstRetry = 5000; // ms, when the server is away or has no place
const lastRetry = 60000; // twice as long each time, up to this

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

// Where there are many apps, those whose name, topic or state contains a text.
const many = 8; // fewer are seen at a glance
const filter = document.getElementById("filter");

function applyFilter() {
  const rows = document.querySelectorAll("tr[data-app]");
  if (!filter || rows.length <= many) return;
  filter.hidden = false;
  const text = filter.value.trim().toLowerCase();
  for (const row of rows) {
    row.hidden = !`${row.dataset.app} ${row.dataset.topic} ${row.dataset.state}`.toLowerCase().includes(text);
  }
}

filter?.addEventListener("input", applyFilter);
applyFilter();

let source = null;
let wait = firstRetry;
let timer = 0;
const seen = new Date(); // as of when is what the page shows

// say tells that the page is not live, and why; without a text, that it is.
function say(why) {
  const sign = document.getElementById("stale");
  const text = why ? `Not live: ${why}. Last update ${seen.toISOString().slice(11, 19)} UTC. Next try in ${wait / 1000} s.` : "";
  sign.hidden = !why;
  if (sign.textContent !== text) sign.textContent = text;
}

function open() {
  if (source || document.hidden) return;
  clearTimeout(timer);
  source = new EventSource(document.body.dataset.events);
  source.addEventListener("part", (e) => swap(e.data));
  source.addEventListener("done", () => { // with all parts that have changed
    applyFilter();
    fold();
    document.body.dataset.live = "on";
    seen.setTime(Date.now());
    wait = firstRetry;
    say();
  });
  source.addEventListener("reload", () => location.reload()); // other apps, or signed out
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
