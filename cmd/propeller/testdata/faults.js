// Lists what of a page cannot be read, or has no name, for TestPageLooks.
(() => {
  const faults = new Set();
  const name = (e) => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + (e.className && e.className.trim ? "." + e.className.trim().replaceAll(" ", ".") : "");

  const channels = (color) => {
    const n = color.match(/^rgba?\(([^)]*)\)$/);
    if (!n) throw new Error("no colour: " + color);
    const [r, g, b, a = 1] = n[1].split(/[ ,/]+/).map(Number);
    return [r, g, b, a];
  };
  const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
  const behind = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) layers.push(channels(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const luminance = (color) => {
    const [r, g, b] = color.map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };

  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || e.closest(":disabled, .skip, svg")) continue;
    const style = getComputedStyle(e);
    const back = behind(e);
    const [a, b] = [luminance(over(channels(style.color), back)), luminance(back)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (contrast < (large ? 3 : 4.5)) faults.add(`${name(e)}: contrast ${contrast.toFixed(2)}`);
    if (size < 11) faults.add(`${name(e)}: text of ${size} px`);
  }

  for (const e of document.querySelectorAll("body :not(input, textarea)")) {
    if (e.checkVisibility() && /hidden|clip/.test(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1) {
      faults.add(`${name(e)}: cuts off what is in it, ${e.scrollWidth} px in ${e.clientWidth}`);
    }
  }

  // What is beside the edge of a phone is not looked for.
  for (const e of document.querySelectorAll(".sheet")) {
    if (innerWidth < 760 && e.checkVisibility() && e.scrollWidth > e.clientWidth + 1) {
      faults.add(`${name(e)}: has to be moved sideways, ${e.scrollWidth} px in ${e.clientWidth}`);
    }
  }

  const labelled = (e) => e.ariaLabel || e.getAttribute("aria-labelledby") || e.labels?.length || e.title;
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (e.checkVisibility() && !labelled(e)) faults.add(`${name(e)}: has no label`);
  }
  for (const e of document.querySelectorAll("button, a[href]")) {
    if (e.checkVisibility() && !e.innerText.trim() && !labelled(e)) faults.add(`${name(e)}: has no name`);
  }
  for (const e of document.querySelectorAll("img:not([alt])")) faults.add(`${name(e)}: has no alt`);
  if (document.querySelectorAll("h1").length !== 1) faults.add("the page has not exactly one h1");
  if (!document.documentElement.lang || !document.title) faults.add("the page has no language or title");
  return [...faults];
})();
