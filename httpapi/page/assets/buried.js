// The page of buried jobs: selections, a second click before anything is deleted,
// and a job's text below its line. Everything but the last works without this.

const form = document.getElementById("jobs");
const sure = 5000; // ms in which the second click counts

function selected() {
  return form.querySelectorAll('input[name="ids"]:checked').length;
}

function count() {
  const n = selected();
  for (const id of ["kick-selected", "delete-selected"]) {
    const button = document.getElementById(id);
    if (button) button.disabled = n === 0;
  }
  for (const all of form.querySelectorAll("input.all")) {
    const boxes = [...all.closest("table").querySelectorAll('input[name="ids"]')];
    const on = boxes.filter((b) => b.checked).length;
    all.checked = on === boxes.length;
    all.indeterminate = on > 0 && on < boxes.length;
  }
}

function disarm(button) {
  if (!button.classList.contains("armed")) return;
  button.classList.remove("armed");
  button.textContent = button.dataset.text;
}

function arm(button) {
  button.dataset.text = button.textContent;
  button.textContent = "Really delete?";
  button.classList.add("armed");
  setTimeout(disarm, sure, button);
}

async function toggle(link) {
  const row = link.closest("tr");
  const below = row.nextElementSibling;
  if (below?.classList.contains("below")) {
    below.remove();
    link.textContent = "Show";
    link.setAttribute("aria-expanded", "false");
    return;
  }
  const tr = document.createElement("tr");
  const td = tr.insertCell();
  tr.className = "below";
  td.colSpan = row.cells.length;
  try {
    const answer = await fetch(link.href + "?part", { headers: { Accept: "text/html" } });
    if (!answer.ok || answer.redirected) {
      location.assign(link.href); // which says what is wrong
      return;
    }
    td.innerHTML = await answer.text(); // of the server's template, which escapes
  } catch {
    td.textContent = "The daemon does not answer.";
  }
  row.after(tr);
  link.textContent = "Hide";
  link.setAttribute("aria-expanded", "true");
}

if (form) {
  form.addEventListener("change", (e) => {
    if (e.target.classList.contains("all")) {
      for (const box of e.target.closest("table").querySelectorAll('input[name="ids"]')) box.checked = e.target.checked;
    }
    count();
  });
  form.addEventListener("click", (e) => {
    const link = e.target.closest(".show");
    if (link) {
      e.preventDefault();
      toggle(link);
      return;
    }
    const button = e.target.closest("button.danger");
    for (const other of form.querySelectorAll("button.armed")) {
      if (other !== button) disarm(other);
    }
    if (button && !button.classList.contains("armed")) {
      e.preventDefault();
      arm(button);
    }
  });
  for (const all of form.querySelectorAll("th.check label")) all.hidden = false;
  count();
}
