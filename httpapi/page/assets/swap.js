// Puts a new part of the page in the place of the one with its id. idiomorph changes only
// what differs, so that focus, selection and scrolling stay. The HTML is of the server's
// templates, which escape.

// own says which attributes are the scripts', not the server's: what a filter hides, and
// what is folded.
const own = (name, e) => (name === "hidden" && e.matches("tr")) || (name === "class" && e.matches(".sheet"));

export function swap(html) {
  const parsed = document.createElement("template");
  parsed.innerHTML = html;
  const part = parsed.content.firstElementChild;
  const old = document.getElementById(part.id);
  if (old) Idiomorph.morph(old, part, { callbacks: { beforeAttributeUpdated: (name, e) => !own(name, e) } });
}
