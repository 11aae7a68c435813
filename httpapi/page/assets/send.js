// The form to send a push: what would be sent, and what becomes of it.

const form = document.getElementById("push");
const outcome = document.getElementById("outcome");
const lint = document.getElementById("lint");
let source = null;

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

// post sends the form; the answer is JSON, or a problem.
async function post(address) {
  try {
    const answer = await fetch(address, {
      method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" }, redirect: "error",
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

const words = {
  delayed: "Waits until it may be sent", queued: "In the queue", trying: "On its way to APNs", delivered: "APNs has taken it",
  refused: "APNs calls the token dead", buried: "Set aside: it cannot be sent as it is", expired: "Too late, not sent", finished: "Ended",
};

// clock is a time to come, to the second; one that has passed says nothing.
function clock(text) {
  const at = new Date(text ?? 0);
  return at > Date.now() ? at.toISOString().slice(0, 19).replace("T", " ") + " UTC" : undefined;
}

// show shows what has become of a push. note is a word about how that is known.
function show(n, note) {
  const badge = make("span", n.state, "badge fate");
  badge.dataset.fate = n.state;
  const head = make("p");
  head.append(badge, ` ${words[n.state] ?? ""}`);
  const took = n.at ? `${Math.max(0, new Date(n.at) - new Date(n.put))} ms after it was put` : undefined;
  const parts = [head];
  if (n.obstacle) parts.push(make("p", `It waits: ${n.obstacle}.`, "fault"));
  parts.push(list([
    ["reason", n.reason], ["status", n.status], ["tries", n.tries], ["answer", took], ["not before", clock(n.next_try ?? n.delayed_until)],
    ["apns-id", n.apns_id], ["job", n.id],
  ]));
  if (note) parts.push(make("p", note, "hint"));
  outcome.replaceChildren(...parts);
}

const final = new Set(["delivered", "refused", "buried", "expired", "finished"]);
const firstAsk = 1000; // ms before what is not told by events is asked for
const lastAsk = 30000; // twice as long each time, up to this

let sent = 0; // what was sent last, of all that this page has sent
let timer = 0;

// follow shows what becomes of a push as it happens, or, where there is no place
// for that or the daemon is away, asks from time to time.
function follow(put) {
  const mine = sent;
  let known = { state: "queued", ...put };
  const news = (n) => {
    known = n;
    show(n);
    if (final.has(n.state)) source.close();
  };
  show(known);
  source = new EventSource(`${form.dataset.events}?id=${encodeURIComponent(put.id)}`);
  source.addEventListener("outcome", (e) => news(JSON.parse(e.data)));
  source.onerror = () => {
    source.close();
    askLater(firstAsk);
  };

  function askLater(wait) {
    if (mine !== sent) return;
    show(known, `This is not live at present. It is asked for again in ${wait / 1000} s.`);
    timer = setTimeout(ask, wait, Math.min(2 * wait, lastAsk));
  }

  async function ask(next) {
    let answer, n;
    try {
      answer = await fetch(`${form.dataset.outcome}?id=${encodeURIComponent(put.id)}`, { headers: { Accept: "application/json" }, redirect: "error" });
      n = await answer.json();
    } catch {
      // away
    }
    if (mine !== sent) return; // another has been sent meanwhile
    if (answer?.ok && n) news(n);
    if (n && [401, 403, 404].includes(answer.status)) {
      show(known, `Nothing more is known of it: ${n.detail}.`);
    } else if (!final.has(known.state)) {
      askLater(next);
    }
  }
}

async function send() {
  const mine = ++sent;
  source?.close();
  clearTimeout(timer);
  outcome.replaceChildren(make("p", "Handing it to the queue …", "hint"));
  const { ok, value } = await post(form.action);
  if (mine !== sent) return;
  if (!ok) {
    fault(outcome, value);
    return;
  }
  mark();
  follow(value);
}

document.getElementById("preview").addEventListener("click", preview);
form.addEventListener("submit", (e) => {
  e.preventDefault();
  send();
});
addEventListener("pagehide", () => source?.close());
