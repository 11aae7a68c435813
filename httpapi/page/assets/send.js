// The form to send a push: a preview, and its delivery status.

import { swap } from "./swap.js";

const form = document.getElementById("push");
const lint = document.getElementById("lint");
let source = null;

const outcome = () => document.getElementById("outcome");

function make(name, text, className) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
}

function list(pairs) {
  const dl = make("dl");
  for (const [name, value] of pairs) {
    if (value === undefined || value === "") continue;
    dl.append(make("dt", name), make("dd", String(value)));
  }
  return dl;
}

function mark(key) {
  for (const e of form.querySelectorAll("[aria-invalid]")) e.removeAttribute("aria-invalid");
  form.elements[key]?.setAttribute?.("aria-invalid", "true");
}

function fault(where, problem) {
  mark(problem.key);
  where.replaceChildren(make("p", (problem.key ? `${problem.key}: ` : "") + problem.detail, "fault"));
}

// post sends the form as the notification that it describes; the answer is JSON, or a
// problem. What is empty is left out.
async function post(address) {
  const notification = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  try {
    const answer = await fetch(address, {
      method: "POST", body: JSON.stringify(notification), headers: { Accept: "application/json", "Content-Type": "application/json" }, redirect: "error",
    });
    return { ok: answer.ok, value: await answer.json() };
  } catch {
    return { ok: false, value: { detail: "The daemon does not answer." } };
  }
}

async function preview() {
  const { ok, value } = await post(form.dataset.preview);
  if (!ok || !value.ok) {
    fault(lint, ok ? value.error : value);
    return;
  }
  mark();
  const waits = value.delay ? `${value.delay} s` : undefined;
  lint.replaceChildren(
    make("p", `This can be sent: ${value.payload_bytes} bytes.`, "notice"),
    list([...Object.entries(value.headers).sort(), ["waits", waits]]),
    make("pre", JSON.stringify(value.payload, null, 2)),
  );
}

const firstAsk = 1000; // ms before what is not told by events is asked for
const lastAsk = 30000; // twice as long each time, up to this

let sent = 0; // what was sent last, of all that this page has sent
let timer = 0;

const ended = () => outcome().hasAttribute("data-ended");

function note(text) {
  outcome().querySelector(".note")?.remove();
  outcome().append(make("p", text, "hint note"));
}

// follow shows what becomes of a push as it happens, or, where there is no place
// for that or the daemon is away, asks from time to time.
async function follow(id) {
  const mine = sent;
  const query = `?id=${encodeURIComponent(id)}`;
  if (!(await ask()) || mine !== sent) return;
  source = new EventSource(form.dataset.events + query);
  source.addEventListener("part", (e) => {
    swap(e.data);
    if (ended()) source.close();
  });
  source.onerror = () => {
    source.close();
    askLater(firstAsk);
  };

  function askLater(wait) {
    if (mine !== sent) return;
    note(`This is not live at present. Next try in ${wait / 1000} s.`);
    timer = setTimeout(async () => {
      if (await ask()) askLater(Math.min(2 * wait, lastAsk));
    }, wait);
  }

  // ask shows what has become of the push, and says whether to ask again.
  async function ask() {
    let status, text;
    try {
      const answer = await fetch(form.dataset.outcome + query, { headers: { Accept: "text/html, application/problem+json" }, redirect: "error" });
      status = answer.status;
      text = await answer.text();
    } catch {
      return true; // the daemon is away
    }
    if (mine !== sent) return false; // another has been sent meanwhile
    if (status === 200) {
      swap(text);
      return !ended();
    }
    if (![401, 403, 404].includes(status)) return true;
    note(`Nothing more is known: ${JSON.parse(text).detail}.`);
    return false;
  }
}

async function send() {
  const mine = ++sent;
  source?.close();
  clearTimeout(timer);
  outcome().removeAttribute("data-ended");
  outcome().replaceChildren(make("p", "Putting it in the queue …", "hint"));
  const { ok, value } = await post(form.action);
  if (mine !== sent) return;
  if (!ok) {
    fault(outcome(), value);
    return;
  }
  mark();
  outcome().append(make("p", `job ${value.id}`, "hint"));
  follow(value.id);
}

document.getElementById("preview").addEventListener("click", preview);
form.addEventListener("submit", (e) => {
  e.preventDefault();
  send();
});
addEventListener("pagehide", () => source?.close());
