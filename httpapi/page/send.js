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

function show(n) {
  const badge = make("span", n.state, "badge fate");
  badge.dataset.fate = n.state;
  const head = make("p");
  head.append(badge, ` ${words[n.state] ?? ""}`);
  const took = n.at ? `${Math.max(0, new Date(n.at) - new Date(n.put))} ms after it was put` : undefined;
  outcome.replaceChildren(head, list([
    ["reason", n.reason], ["status", n.status], ["tries", n.tries], ["answer", took], ["not before", n.next_try ?? n.delayed_until],
    ["apns-id", n.apns_id], ["job", n.id],
  ]));
}

const final = new Set(["delivered", "refused", "buried", "expired", "finished"]);

function follow(id) {
  source?.close();
  source = new EventSource(`${form.dataset.events}?id=${encodeURIComponent(id)}`);
  source.addEventListener("outcome", (e) => {
    const n = JSON.parse(e.data);
    show(n);
    if (final.has(n.state)) source.close();
  });
}

async function send() {
  source?.close();
  outcome.replaceChildren(make("p", "Handing it to the queue …", "hint"));
  const { ok, value } = await post(form.action);
  if (!ok) {
    fault(outcome, value);
    return;
  }
  mark();
  follow(value.id);
}

document.getElementById("preview").addEventListener("click", preview);
form.addEventListener("submit", (e) => {
  e.preventDefault();
  send();
});
addEventListener("pagehide", () => source?.close());
