// Conversations: streamed, stopped, edited, tried again; kept in this browser alone.

import { ask, chooser, events, models, verbs } from "./api.js";
import { catchFiles, dataUrl, failed, field, h, note, save } from "./dom.js";
import { markdown } from "./markdown.js";

const STORE = "brolly.chats";
const read = () => { try { return JSON.parse(localStorage.getItem(STORE)) || []; } catch { return []; } };

const PDF = "application/pdf";
const isPdf = (url) => url.startsWith(`data:${PDF}`);
const thumb = (url, kind = "") => (isPdf(url) ? h("span", { class: "pdf" }, "PDF") : h("img", { class: kind, src: url, alt: "attached picture" }));
const part = (url) => (isPdf(url) ? { type: "file", file: { file_data: url, filename: "attached.pdf" } } : { type: "image_url", image_url: { url } });

export async function chat(main) {
  let chats = read();
  let now = chats[0] || fresh();
  let stop = null;
  let files = [];

  function fresh() { return { id: crypto.randomUUID?.() || String(Date.now()), turns: [], system: "" }; }
  function keep() {
    if (now.turns.length && !chats.includes(now)) chats.unshift(now);
    try { localStorage.setItem(STORE, JSON.stringify(chats.slice(0, 100))); } catch { note("This browser keeps no more conversations.", true); }
    list();
  }

  const select = await chooser("chat", () => files.length && attachable());
  const past = h("aside", { class: "past", "aria-label": "Conversations" });
  const said = h("div", { class: "said", role: "log", "aria-live": "off" });
  const input = h("textarea", { rows: 1, placeholder: "Write a message", "aria-label": "Message", oninput: grow, onkeydown: keys });
  const go = h("button", { class: "main" }, "Send");
  const chosen = h("input", { type: "file", multiple: true, hidden: true, onchange: () => { attach([...chosen.files]).finally(() => { chosen.value = ""; }); } });
  const pick = h("button", { type: "button", title: "Attach files", "aria-label": "Attach files", onclick: () => chosen.click() }, "+", chosen);
  const shown = h("div", { class: "files" });
  const system = h("textarea", { rows: 2, oninput: () => { now.system = system.value; keep(); } });
  const settings = { temperature: box(0, 2, 0.1), top_p: box(0, 1, 0.05), max_tokens: box(1, 1e6, 1), seed: box(0, 2 ** 31, 1) };
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); stop ? stop.abort() : send(); } }, pick, input, go);
  const area = h("div", { class: "chat" }, past, h("section", { class: "talk" },
    h("div", { class: "top" },
      h("button", { class: "plain narrow", onclick: () => past.classList.toggle("shown") }, "Conversations"),
      select,
      h("details", { class: "options" }, h("summary", { class: "soft" }, "Options"),
        h("div", { class: "row" }, field("Instruction", system, true)),
        h("div", { class: "row" }, Object.entries(settings).map(([name, one]) => field(name.replace("_", " "), one))))),
    said, h("div", { class: "compose" }, shown, form)));
  main.replaceChildren(area);
  catchFiles(area, attach);
  main.addEventListener("keydown", (event) => { if (event.key === "Escape" && stop) stop.abort(); });
  draw(); list(); input.focus();

  function box(min, max, step) { return h("input", { type: "number", min: String(min), max: String(max), step: String(step), placeholder: "default" }); }
  function grow() { input.style.height = "auto"; input.style.height = `${Math.min(input.scrollHeight + 2, innerHeight * 0.4)}px`; }
  function keys(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); if (!stop) form.requestSubmit(); }
    if (event.key === "ArrowUp" && !input.value && !stop) edit(now.turns.findLastIndex((t) => t.role === "user"));
  }

  function list() {
    past.replaceChildren(h("button", { class: "main", onclick: () => { if (!stop) { now = fresh(); draw(); list(); input.focus(); } } }, "New"),
      ...chats.map((one) => h("div", { class: "one", "aria-current": one === now && "true" },
        h("button", { title: title(one), onclick: () => { if (!stop) { now = one; past.classList.remove("shown"); draw(); list(); } } }, title(one)),
        h("button", { class: "plain", "aria-label": `Delete ${title(one)}`, onclick: () => { chats = chats.filter((c) => c !== one); if (now === one) now = chats[0] || fresh(); keep(); draw(); } }, "×"))),
      chats.length > 0 && h("button", { class: "plain", onclick: () => save("conversations.json", JSON.stringify(chats, null, 1), "application/json") }, "Save all as JSON") || "");
  }
  function title(one) { return (one.turns[0]?.text || "…").slice(0, 60); }

  function draw() {
    system.value = now.system || "";
    said.replaceChildren(...(now.turns.length ? now.turns.map(turn) : [h("p", { class: "soft" }, "Ask something. Files can be dropped here: a sound is written down, a text is quoted, a picture or a PDF goes to models that read it.")]));
    said.scrollTop = said.scrollHeight;
  }
  function turn(one, index) {
    const body = h("div", { class: "text" });
    const box = h("article", { class: `turn ${one.role}` }, h("div", { class: "who" }, one.role === "user" ? "You" : one.model || "Model"), body);
    fill(body, one);
    if (!one.live) box.append(h("div", { class: "acts" },
      h("button", { class: "plain", onclick: () => navigator.clipboard.writeText(one.text).then(() => note("Copied.")) }, "Copy"),
      one.role === "user" && h("button", { class: "plain", onclick: () => edit(index) }, "Edit"),
      one.role === "user" && index === now.turns.length - 1 && h("button", { class: "plain", onclick: () => stop || answer() }, "Ask again"),
      one.role !== "user" && h("button", { class: "plain", onclick: () => { if (!stop) { now.turns.length = index; answer(); } } }, "Try again"),
      one.told && h("span", { class: "soft" }, one.told)));
    if (one.fault) box.append(h("p", { class: "fault" }, one.fault));
    return box;
  }
  function fill(body, one) {
    const parts = one.role === "user" ? [one.text] : markdown(one.text);
    body.replaceChildren(
      ...(one.images || []).map((url) => thumb(url, "thumb")),
      ...(one.reasoning ? [h("details", { open: one.live && !one.text }, h("summary", {}, "Thoughts"), one.reasoning)] : []),
      ...parts,
      ...(one.calls || []).map((call) => h("pre", {}, h("code", {}, `${call.name}(${call.arguments})`))));
    body.classList.toggle("cursor", !!one.live);
  }

  function edit(index) {
    if (index < 0 || stop) return;
    input.value = now.turns[index].text;
    now.turns.length = index;
    draw(); grow(); input.focus();
  }

  async function attach(given) {
    for (const file of given) {
      if (file.type.startsWith("image/") || file.type === PDF) { files.push(await dataUrl(file)); attachable(); }
      else if (/^(audio|video)\//.test(file.type)) await hear(file).catch(failed);
      else input.value += `${input.value ? "\n\n" : ""}${await file.text()}`;
    }
    grow();
    shown.replaceChildren(...files.map((url, i) => h("button", { title: "Remove", onclick: () => { files.splice(i, 1); shown.children[i].remove(); } }, thumb(url))));
  }
  async function attachable() {
    const model = (await models()).find((m) => m.id === select.value);
    const kinds = model?.brolly?.remote ? model.brolly.modalities.in : ["text", ...(model && verbs(model).includes("see") ? ["image"] : [])];
    if (!model || kinds.length < 2 && model.brolly?.remote) return; // nobody tells what it reads
    if (files.some((url) => !kinds.includes(isPdf(url) ? "pdf" : "image"))) note(`${model.id} reads ${kinds.join(", ")}; another model may take the file. Classify and Embed take pictures too.`);
  }
  async function hear(file) {
    const ear = (await models()).find((m) => verbs(m).includes("transcribe"));
    if (!ear) throw new Error("No model here can transcribe.");
    note(`${ear.id} listens to ${file.name} …`);
    const form = new FormData();
    form.append("model", ear.id); form.append("file", file);
    input.value += (await ask("/v1/audio/transcriptions", { form })).text.trim();
  }

  async function send() {
    const text = input.value.trim();
    if (!text && !files.length) return;
    now.turns.push({ role: "user", text, ...(files.length ? { images: files } : {}) });
    files = []; shown.replaceChildren(); input.value = ""; grow();
    await answer();
  }

  async function answer() {
    if (!select.value) return note("No model here can chat.", true);
    const one = { role: "assistant", text: "", reasoning: "", calls: [], model: select.value, live: true };
    delete now.turns.at(-1)?.fault;
    const messages = now.turns.map((t) => ({ role: t.role, content: t.images ? [...t.images.map(part), { type: "text", text: t.text }] : t.text }));
    if (system.value.trim()) messages.unshift({ role: "system", content: system.value.trim() });
    const options = Object.fromEntries(Object.entries(settings).filter(([, b]) => b.value !== "").map(([name, b]) => [name, Number(b.value)]));
    now.turns.push(one);
    draw(); keep();
    const body = said.lastElementChild.querySelector(".text");
    stop = new AbortController(); go.textContent = "Stop"; said.setAttribute("aria-busy", "true");
    const begun = performance.now();
    let first = 0, usage = null, due = false;
    const paint = () => { due = false; const end = said.scrollHeight - said.scrollTop - said.clientHeight < 80; fill(body, one); if (end) said.scrollTop = said.scrollHeight; };
    try {
      for await (const event of events("/v1/chat/completions", { body: { model: one.model, messages, stream: true, stream_options: { include_usage: true }, ...options }, signal: stop.signal })) {
        usage = event.usage || usage;
        const delta = event.choices?.[0]?.delta;
        if (!delta) continue;
        first ||= performance.now();
        one.text += delta.content || "";
        one.reasoning += delta.reasoning_content || "";
        for (const call of delta.tool_calls || []) {
          const known = (one.calls[call.index] ||= { name: "", arguments: "" });
          known.name += call.function?.name || ""; known.arguments += call.function?.arguments || "";
        }
        if (!due) { due = true; requestAnimationFrame(paint); }
      }
    } catch (error) { if (error.name !== "AbortError") one.fault = error.message || String(error); }
    const seconds = (performance.now() - first) / 1000;
    if (usage && first) one.told = `${usage.completion_tokens} tokens, ${(usage.completion_tokens / Math.max(seconds, 1e-3)).toFixed(1)} a second, first after ${((first - begun) / 1000).toFixed(2)} s`;
    stop = null; one.live = false; go.textContent = "Send"; said.removeAttribute("aria-busy");
    if (!one.text && !one.reasoning && !one.calls.length) {
      now.turns.pop();
      if (one.fault) now.turns.at(-1).fault = `${one.model}: ${one.fault}`;
    }
    keep(); draw();
  }
}
