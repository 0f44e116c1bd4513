// The page: which panel is shown, the theme, the key. No framework, no request to anyone but this server.

import { chat } from "./chat.js";
import { key, models as listed, setKey } from "./api.js";
import { failed, h } from "./dom.js";
import { classify, embed, rerank, transcribe, write } from "./panels.js";
import { models } from "./shelf.js";

const PANELS = { chat, write, embed, classify, transcribe, rerank, models };

async function show() {
  const name = location.hash.slice(1) in PANELS ? location.hash.slice(1) : "chat";
  for (const link of document.querySelectorAll("nav a"))
    link.hash.slice(1) === name ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  document.querySelector("nav [aria-current]").scrollIntoView({ inline: "center", block: "nearest" });
  const fresh = h("main", { id: "main", tabindex: "-1" });
  document.getElementById("main").replaceWith(fresh);
  try { await PANELS[name](fresh); } catch (error) {
    failed(error);
    fresh.replaceChildren(h("div", { class: "panel" }, h("p", { class: "bad" }, error.message), h("button", { onclick: show }, "Try again")));
  }
}

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
function paint() { root.dataset.theme = localStorage.getItem("brolly.theme") || (dark.matches ? "dark" : "light"); root.style.colorScheme = root.dataset.theme; }
dark.addEventListener("change", paint);
document.getElementById("theme").addEventListener("click", () => { localStorage.setItem("brolly.theme", root.dataset.theme === "dark" ? "light" : "dark"); paint(); });

document.getElementById("key").addEventListener("click", () => {
  const dialog = document.getElementById("ask");
  if (dialog.open) return;
  const input = h("input", { type: "password", autocomplete: "off", value: key(), "aria-label": "API key" });
  dialog.replaceChildren(h("form", { method: "dialog", onsubmit: () => { setKey(input.value.trim()); listed(true).then(show, failed); } },
    h("h1", {}, "API key"), h("p", { class: "soft" }, "Kept in this browser, sent to this server alone. Leave it empty where the server asks for none."),
    field(input), h("div", { class: "row" }, h("button", { class: "main" }, "Use it"))));
  dialog.showModal();
});
const field = (input) => { input.style.width = "100%"; return input; };

addEventListener("hashchange", show);
addEventListener("keydown", (event) => {
  const typing = /^(input|textarea|select)$/i.test(event.target.tagName);
  if (event.altKey && /^[1-7]$/.test(event.key)) { event.preventDefault(); location.hash = Object.keys(PANELS)[event.key - 1]; }
  if (event.key === "/" && !typing) { event.preventDefault(); document.querySelector("textarea")?.focus(); }
});
paint();
show();
