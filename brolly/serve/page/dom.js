// Elements, notes and what every panel shares. Text enters the page as text, never as HTML.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

export function note(text, bad = false) {
  const line = h("p", { class: bad ? "bad" : "" }, text);
  document.getElementById("notes").append(line);
  setTimeout(() => line.remove(), bad ? 12000 : 4000);
}

export const failed = (error) => error.name === "AbortError" || note(error.message || String(error), true);

export function field(label, input, grow = false) {
  return h("label", { class: grow ? "grow" : "" }, label, input);
}

export const number = (n) => n.toLocaleString("en");

export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return `${n.toLocaleString("en", { maximumFractionDigits: n < 10 && i ? 1 : 0 })} ${units[i]}`;
}

export function count(n) {
  if (!n) return "?";
  for (const [scale, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
    if (n >= scale) return `${(n / scale).toLocaleString("en", { maximumFractionDigits: n / scale < 10 ? 2 : 0 })}${unit}`;
  return String(n);
}

// A field for files: by click, by drop anywhere in `area`, by paste.
export function drop(area, accept, several, take) {
  const input = h("input", { type: "file", accept, multiple: several, onchange: () => { take([...input.files]); input.value = ""; } });
  const label = h("label", { class: "drop" }, several ? "Drop files here, paste, or choose" : "Drop a file here, paste, or choose", input);
  catchFiles(area, take);
  return label;
}

export function catchFiles(area, take) {
  area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("over"); });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
  area.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) { event.preventDefault(); take([...event.clipboardData.files]); }
  });
}

export const dataUrl = (file) => new Promise((done, fail) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => fail(new Error(`${file.name} cannot be read.`));
  reader.readAsDataURL(file);
});

export function save(name, text, type = "text/plain") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// A button that does one thing at a time and can be stopped while it does.
export function runs(label, work) {
  let stop = null;
  const button = h("button", { class: "main", type: "button" }, label);
  button.addEventListener("click", async () => {
    if (stop) return stop.abort();
    stop = new AbortController();
    button.textContent = "Stop";
    try { await work(stop.signal); } catch (error) { failed(error); }
    button.textContent = label;
    stop = null;
  });
  return button;
}
