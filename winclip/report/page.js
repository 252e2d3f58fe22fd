"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const filters = document.getElementById("filters").elements;
const gallery = document.getElementById("gallery");
const viewer = document.getElementById("viewer");
const WRONG = ["missed defect", "false alarm"];
let shown = []; // positions of the cards that pass the filters, in their order
let current = 0; // place of the enlarged card among them

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Tables: numbers descending first, names ascending first, "-" always last.
function sortBy(table, column) {
  const header = table.tHead.rows[0].cells[column];
  const body = table.tBodies[0];
  const text = (row) => row.cells[column].textContent.trim();
  const numeric = column > 0;
  const before = header.getAttribute("aria-sort");
  const ascending = before ? before === "descending" : !numeric;
  const compare = (a, b) => {
    if (text(a) === "-" || text(b) === "-") return (text(a) === "-") - (text(b) === "-");
    const order = numeric ? parseFloat(text(a)) - parseFloat(text(b)) : text(a).localeCompare(text(b));
    return ascending ? order : -order;
  };
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  body.append(...[...body.rows].sort(compare));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    cell.firstElementChild.addEventListener("click", () => sortBy(table, column));
  });
}

// A photograph or heat map with the outline of the defect on it.
function picture(card, heat) {
  const frame = element("div", "picture");
  frame.style.setProperty("--ratio", card.width / card.height);
  const layers = heat ? [[card.photo, "photo"], [heat, "heat"]] : [[card.photo, "photo"]];
  for (const [source, className] of layers) {
    const image = element("img", className);
    image.loading = "lazy";
    image.alt = className === "heat" ? "heat map" : heat ? "" : card.name;
    image.src = source;
    frame.append(image);
  }
  if (card.outline) {
    const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    drawing.setAttribute("viewBox", "0 0 100 100");
    drawing.setAttribute("preserveAspectRatio", "none");
    for (const className of ["casing", "border"]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", card.outline);
      path.setAttribute("class", className);
      drawing.append(path);
    }
    frame.append(drawing);
  }
  return frame;
}

function verdict(result) {
  return element("span", "outcome " + result.outcome.split(" ")[0], result.outcome);
}

function figures(result) {
  return element("div", "figures", `score ${result.score}   threshold ${result.threshold}`);
}

function caption(card, more) {
  const first = element("div", "line");
  first.append(element("b", "", [card.class, card.type].filter(Boolean).join(" · ")), more[0] || "");
  const made = element("div", "caption");
  made.append(first, ...more.slice(1), element("div", "name", card.name));
  if (card.label === "defective" && !card.masked) made.append(element("div", "name", "no mask"));
  return made;
}

function content(position) {
  const card = data.cards[position];
  const result = data.settings[filters.setting.value].results[position];
  const pictures = element("div", "pair");
  pictures.append(picture(card, ""), picture(card, result.heat));
  return [pictures, caption(card, [verdict(result), figures(result)])];
}

// The enlarged view of several settings: the picture, then the map of each, side by side.
function contentOfAll(position) {
  const card = data.cards[position];
  const pictures = element("div", "maps");
  const photo = element("figure");
  photo.append(picture(card, ""), element("figcaption", "", card.masked ? "picture, outline of the defect" : "picture"));
  pictures.append(photo, ...data.settings.map((setting, number) => {
    const result = setting.results[position];
    const shown = element("figure");
    if (String(number) === filters.setting.value) shown.setAttribute("aria-current", "true");
    const line = element("div", "line");
    line.append(element("b", "", setting.name), verdict(result));
    const words = element("figcaption");
    words.append(line, figures(result));
    shown.append(picture(card, result.heat), words);
    return shown;
  }));
  return [pictures, caption(card, [])];
}

// Filters
function fill(select, first, values) {
  const before = select.value;
  const options = [["", first], ...values.map((value) => [value, value])];
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  select.value = options.some(([value]) => value === before) ? before : "";
  select.parentElement.hidden = values.length < 2;
}

function distinct(values) {
  return [...new Set(values.filter(Boolean))].sort((a, b) => a.localeCompare(b));
}

function fillFilters() {
  fill(filters.class, "all", distinct(data.cards.map((card) => card.class)));
  const chosen = filters.class.value;
  fill(filters.type, "all", distinct(data.cards.filter((c) => !chosen || c.class === chosen).map((card) => card.type)));
  const outcomes = distinct(data.settings.flatMap((setting) => setting.results.map((result) => result.outcome)));
  fill(filters.outcome, "all", outcomes.some((text) => WRONG.includes(text)) ? ["wrong", ...outcomes] : outcomes);
}

function update() {
  fillFilters();
  const number = filters.setting.value;
  const setting = data.settings[number];
  const chosen = { class: filters.class.value, type: filters.type.value, outcome: filters.outcome.value };
  shown = setting.order.filter((position) => {
    const card = data.cards[position];
    const outcome = setting.results[position].outcome;
    const wanted = !chosen.outcome || outcome === chosen.outcome || (chosen.outcome === "wrong" && WRONG.includes(outcome));
    return wanted && (!chosen.class || card.class === chosen.class) && (!chosen.type || card.type === chosen.type);
  });
  gallery.replaceChildren(...shown.map((position, place) => {
    const card = element("button", "card");
    card.type = "button";
    card.append(...content(position));
    card.addEventListener("click", () => open(place));
    return card;
  }));
  const counts = WRONG.map((text) => [shown.filter((p) => setting.results[p].outcome === text).length, text]);
  const wrong = counts.filter(([count]) => count).map(([count, text]) => `${count} ${text}${count > 1 ? "s" : ""}`);
  const words = [`${shown.length} of ${data.cards.length} images`, ...wrong];
  document.getElementById("count").textContent = words.join(", ");
  for (const curves of document.querySelectorAll(".curves")) curves.hidden = curves.dataset.setting !== number;
  for (const details of document.querySelectorAll("details[data-class]")) {
    details.hidden = Boolean(chosen.class) && details.dataset.class !== chosen.class;
    if (chosen.class && !details.hidden) details.open = true;
  }
}

document.getElementById("filters").addEventListener("change", update);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());

function showOutlines() {
  document.body.classList.toggle("plain", !document.getElementById("outlines").checked);
}
document.getElementById("outlines").addEventListener("change", showOutlines);
document.getElementById("outlines").parentElement.hidden = !data.cards.some((card) => card.masked);

// Enlarged view; Escape closes it because it is a dialog.
function open(place) {
  current = (place + shown.length) % shown.length;
  document.getElementById("enlarged").replaceChildren(...(data.settings.length > 1 ? contentOfAll : content)(shown[current]));
  document.getElementById("position").textContent = `${current + 1} of ${shown.length}`;
  if (!viewer.open) viewer.showModal();
}

document.getElementById("previous").addEventListener("click", () => open(current - 1));
document.getElementById("next").addEventListener("click", () => open(current + 1));
document.getElementById("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close();
});
viewer.addEventListener("close", () => gallery.children[current]?.focus());
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") open(current - 1);
  else if (event.key === "ArrowRight") open(current + 1);
  else return;
  event.preventDefault();
});

// Theme: the system's until the button is used; then kept, where the browser allows that.
const theme = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = null;
try {
  chosenTheme = localStorage.getItem("report-theme");
} catch {
  // Storage may be denied to files; the choice then holds for this page.
}

function isDark() {
  return chosenTheme ? chosenTheme === "dark" : systemDark.matches;
}

function showTheme() {
  document.documentElement.style.colorScheme = chosenTheme || "";
  theme.textContent = isDark() ? "Light theme" : "Dark theme";
}

theme.addEventListener("click", () => {
  chosenTheme = isDark() ? "light" : "dark";
  try {
    localStorage.setItem("report-theme", chosenTheme);
  } catch {
    // As above.
  }
  showTheme();
});
systemDark.addEventListener("change", showTheme);

showTheme();
showOutlines();
update();
