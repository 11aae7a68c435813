// Where there are many apps, those whose name or state has a text in it.

const many = 8; // fewer are seen at a glance
const filter = document.getElementById("filter");
const rows = [...document.querySelectorAll("tr[data-topic]")];

function apply() {
  const text = filter.value.trim().toLowerCase();
  for (const row of rows) {
    row.hidden = !`${row.dataset.topic} ${row.dataset.state}`.toLowerCase().includes(text);
  }
}

if (rows.length > many) {
  filter.hidden = false;
  filter.addEventListener("input", apply);
}
